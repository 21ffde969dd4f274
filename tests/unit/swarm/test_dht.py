import asyncio
import os
import signal
import time

import msgpack
import pytest
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hypothesis import given
from hypothesis import strategies as st

from peer.clock import FakeClock
from peer.errors import UnreachableError
from peer.swarm import validator as validator_module
from peer.swarm.bodies import ClaimBody
from peer.swarm.dht import EnvelopeValidator, RecordStorage
from peer.swarm.records import Refusal, key_of, seal
from peer.swarm.validator import key_id_of, pack

RUN = "tiny-" + "0" * 32
KEY = key_of(RUN, "claim")


@pytest.fixture
def make(identities):
    """Return a record as hivemind shows it to a validator, some of it changed."""

    def make(who=0, *, seq=1, life_s=60.0, **changed):
        expires_s = time.time() + life_s
        data = seal(identities[who], RUN, "claim", seq, expires_s, ClaimBody(shards=str(seq)))
        fields = {
            "key": key_id_of(KEY).to_bytes(),
            "subkey": pack(identities[who].peer_id),
            "value": pack(data),
            "expiration_time": expires_s,
        }
        return DHTRecord(**(fields | changed))

    return make


@pytest.fixture
def checker():
    return EnvelopeValidator()


def count(checker):
    return {reason: n for reason, n in checker.refused.items() if n}


def test_a_record_in_its_place_is_taken(make, checker):
    assert checker.validate(make())
    assert count(checker) == {}


def test_every_reason_is_counted_from_zero(checker):
    assert set(checker.refused) == set(Refusal)


@pytest.mark.parametrize("subkey", DHTProtocol.RESERVED_SUBKEYS)
def test_a_plain_value_is_refused(make, checker, subkey):
    assert not checker.validate(make(subkey=subkey))
    assert count(checker) == {Refusal.PLAIN: 1}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"key": key_id_of(key_of(RUN, "peer")).to_bytes()}, Refusal.KEY),
        ({"key": b""}, Refusal.KEY),
        ({"subkey": pack("Qm" + "1" * 44)}, Refusal.OWNER),
        ({"subkey": pack(b"Qm")}, Refusal.SCHEMA),
        ({"subkey": b"\xc1"}, Refusal.SCHEMA),
        ({"expiration_time": 2e9}, Refusal.EXPIRY),
        ({"expiration_time": float("inf")}, Refusal.EXPIRY),
        ({"expiration_time": float("nan")}, Refusal.EXPIRY),
        ({"value": pack("text")}, Refusal.SCHEMA),
        ({"value": pack(b"text")}, Refusal.SCHEMA),
        ({"value": msgpack.packb({"a": 1})}, Refusal.SCHEMA),
        ({"value": b""}, Refusal.SCHEMA),
        ({"value": None}, Refusal.SCHEMA),
        ({"value": pack(b"x" * 4096)}, Refusal.SCHEMA),
        ({"value": pack(b"x" * 4097)}, Refusal.SIZE),
        ({"value": b"\xdd\xff\xff\xff\xff" + b"x" * 10_000}, Refusal.SIZE),
    ],
)
def test_a_record_out_of_place_is_refused(make, checker, changed, reason):
    assert not checker.validate(make(**changed))
    assert count(checker) == {reason: 1}


def test_another_peer_s_record_under_one_s_own_name_is_refused(make, checker, identities):
    assert not checker.validate(make(1, subkey=pack(identities[0].peer_id)))
    assert count(checker) == {Refusal.OWNER: 1}


def test_expiry_is_checked_against_the_clock_given(make):
    checker = EnvelopeValidator(FakeClock(time.time() - 300.0))
    assert not checker.validate(make())
    assert count(checker) == {Refusal.EXPIRY: 1}


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.floats())
def test_junk_is_refused_without_an_exception(key, subkey, value, expires_s):
    assert not EnvelopeValidator().validate(DHTRecord(key, subkey, value, expires_s))


@pytest.fixture
def storage(checker):
    return RecordStorage(checker)


@pytest.fixture
def store(storage, identities):
    def store(record, who=0, key=KEY):
        return storage.store_subkey(
            key_id_of(key), identities[who].peer_id, record.value, record.expiration_time
        )

    return store


def seqs(storage):
    return [envelope.seq for envelope in storage.records(key_id_of(KEY))]


def test_a_newer_record_takes_the_older_one_s_place_also_if_it_ends_sooner(storage, store, make):
    assert store(make(seq=1, life_s=100.0))
    assert store(make(seq=2, life_s=20.0))
    assert seqs(storage) == [2]


def test_an_older_record_replayed_is_refused_and_does_not_shorten_the_newer(
    storage, store, make, checker
):
    old = make(seq=1, life_s=0.3)
    assert store(make(seq=2))
    assert not store(old)
    assert count(checker) == {Refusal.REPLAY: 1}
    while time.time() < old.expiration_time + 0.01:
        time.sleep(0.05)
    assert seqs(storage) == [2]


def test_the_same_record_again_is_no_offence(storage, store, make, checker):
    record = make()
    assert store(record)
    assert store(record)
    assert count(checker) == {}
    assert storage.record_count == storage.key_count == 1


def test_records_that_ended_are_gone(storage, store, make):
    assert not store(make(life_s=-1.0))
    assert store(make(life_s=0.2))
    assert store(make(1), who=1)
    deadline_s = time.monotonic() + 5.0
    while storage.record_count > 1:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert [e.peer_id for e in storage.sample(10)] == [e.peer_id for e in storage.sample(1)]


def test_a_full_key_refuses_newcomers_and_lets_owners_renew(
    storage, store, make, checker, monkeypatch
):
    first = make()
    monkeypatch.setattr(validator_module, "MAX_KEY_BYTES", len(first.value) + 10)
    assert store(first)
    assert not store(make(1), who=1)
    assert count(checker) == {Refusal.FULL: 1}
    assert store(make(seq=2))
    assert store(make(1), who=1, key=key_of(RUN, "peer"))  # another key has room


def test_a_full_node_refuses_whatever_the_key_until_records_end(
    storage, store, make, checker, monkeypatch
):
    first = make(life_s=0.3)
    monkeypatch.setattr(validator_module, "MAX_STORED_BYTES", len(first.value) + 10)
    monkeypatch.setattr(validator_module, "_RECOUNT_S", 0.0)
    assert store(first)
    assert not store(make(1), who=1, key=key_of(RUN, "peer"))
    assert count(checker) == {Refusal.FULL: 1}
    while time.time() < first.expiration_time + 0.01:
        time.sleep(0.05)
    assert store(make(1), who=1, key=key_of(RUN, "peer"))


@pytest.fixture(scope="module")
def trio(nodes):
    """An entry point and two peers that know only it."""
    entry = nodes.start("entry")
    return entry, nodes.start("one", entry), nodes.start("two", entry)


def test_what_one_peer_puts_others_get(nodes, trio, swarm_tools):
    entry, one, two = trio
    run = "shared-" + "0" * 32
    assert nodes.do(one.dht.put(run, "peer", swarm_tools.peer_body(epoch=5), 60.0))
    assert nodes.do(two.dht.put(run, "peer", swarm_tools.peer_body(epoch=6), 60.0))
    for node in trio:
        found = nodes.do(node.dht.get(run, "peer"))
        assert {peer: e.body.epoch for peer, e in found.items()} == {one.peer_id: 5, two.peer_id: 6}
    assert nodes.do(entry.dht.get(run, "claim")) == {}
    assert nodes.do(entry.dht.get("other-" + "0" * 32, "peer")) == {}


def test_a_later_put_takes_the_earlier_one_s_place_everywhere(nodes, trio, swarm_tools):
    run = "later-" + "0" * 32
    for epoch, life_s in ((1, 100.0), (2, 30.0)):
        assert nodes.do(trio[1].dht.put(run, "peer", swarm_tools.peer_body(epoch=epoch), life_s))
    for node in trio:
        (envelope,) = nodes.do(node.dht.get(run, "peer")).values()
        assert envelope.body.epoch == 2


def test_a_record_ends_by_itself(nodes, trio, swarm_tools):
    run = "ends-" + "0" * 32
    assert nodes.do(trio[1].dht.put(run, "peer", swarm_tools.peer_body(), 0.5))
    assert nodes.do(trio[2].dht.get(run, "peer"))
    swarm_tools.wait_until(lambda: not nodes.do(trio[2].dht.get(run, "peer")))


def test_a_restarted_peer_s_record_takes_the_old_one_s_place(nodes, trio, swarm_tools):
    run = "again-" + "0" * 32
    for epoch in (1, 2):
        node = nodes.start("again", trio[0])
        assert nodes.do(node.dht.put(run, "peer", swarm_tools.peer_body(epoch=epoch), 60.0))
        nodes.do(node.stop())
    (envelope,) = nodes.do(trio[2].dht.get(run, "peer")).values()
    assert envelope.body.epoch == 2


def test_a_client_puts_and_gets_but_holds_nothing(nodes, trio, swarm_tools):
    run = "client-" + "0" * 32
    client = nodes.start("client", trio[0], client=True)
    assert nodes.do(client.dht.put(run, "peer", swarm_tools.peer_body(client=True), 60.0))
    assert nodes.do(client.dht.get(run, "peer")).keys() == {client.peer_id}
    assert nodes.do(trio[2].dht.get(run, "peer")).keys() == {client.peer_id}
    assert client.dht.storage.record_count == 0
    assert client.peer_id not in trio[0].dht.nodes
    nodes.do(client.stop())


def test_alone_one_s_own_node_holds_the_record(nodes, swarm_tools):
    node = nodes.start("alone")
    assert nodes.do(node.dht.put(RUN, "peer", swarm_tools.peer_body(), 60.0))
    assert nodes.do(node.dht.get(RUN, "peer")).keys() == {node.peer_id}
    assert not node.dht.counts["failed_puts"]
    nodes.do(node.stop())


def test_dead_nodes_are_an_error_and_a_count_and_then_forgotten(nodes, swarm_tools):
    first = nodes.start("left")
    second = nodes.start("right", first)
    nodes.do(first.stop())
    with pytest.raises(UnreachableError, match="no node"):
        nodes.do(second.dht.get(RUN, "peer"))
    assert second.dht.counts["failed_gets"] == 1
    assert second.dht.nodes == frozenset()
    assert nodes.do(second.dht.put(RUN, "peer", swarm_tools.peer_body(), 60.0))
    nodes.do(second.stop())


def test_a_node_that_was_lost_is_found_again(nodes, swarm_tools):
    first = nodes.start("lost")
    second = nodes.start("finder", first)
    second.dht._protocol.wait_timeout = 0.5
    os.kill(first.p2pd_pid, signal.SIGSTOP)
    try:
        with pytest.raises(UnreachableError):
            nodes.do(second.dht.put(RUN, "peer", swarm_tools.peer_body(), 60.0))
        assert second.dht.counts["failed_puts"] == 1
        assert second.dht.nodes == frozenset()
    finally:
        os.kill(first.p2pd_pid, signal.SIGCONT)

    def found():
        nodes.do(second.dht.get(RUN, "peer"))
        return second.dht.nodes == {first.peer_id}

    swarm_tools.wait_until(found)
    for node in (first, second):
        nodes.do(node.stop())


def test_a_frozen_node_costs_a_get_its_deadline_and_then_nothing(
    nodes, trio, swarm_tools, monkeypatch
):
    monkeypatch.setattr("peer.swarm.rpc.RPC_TIMEOUT_S", 0.5)
    run = "frozen-" + "0" * 32
    frozen = nodes.start("frozen", trio[0])
    nodes.do(frozen.dht.put(run, "peer", swarm_tools.peer_body(), 60.0))
    swarm_tools.wait_until(lambda: frozen.peer_id in trio[1].dht.nodes | trio[0].dht.nodes)
    os.kill(frozen.p2pd_pid, signal.SIGSTOP)
    try:
        for node in trio * 2:
            assert nodes.do(node.dht.get(run, "peer")).keys() == {frozen.peer_id}
        assert all(frozen.peer_id not in node.dht.nodes for node in trio)
        started_s = time.monotonic()
        assert nodes.do(trio[1].dht.get(run, "peer")).keys() == {frozen.peer_id}
        assert time.monotonic() - started_s < 0.4
    finally:
        os.kill(frozen.p2pd_pid, signal.SIGCONT)
        nodes.do(frozen.stop())


def test_calls_have_a_deadline_also_while_another_is_under_way(nodes, trio, monkeypatch):
    monkeypatch.setattr("peer.swarm.dht._CALL_TIMEOUT_S", 0.2)

    async def scene():
        async with trio[1].dht._lock:
            await trio[1].dht.get(RUN, "peer")

    started_s = time.monotonic()
    with pytest.raises(UnreachableError):
        nodes.do(scene())
    assert time.monotonic() - started_s < 5.0


def test_many_calls_at_once_all_come_through(nodes, trio, swarm_tools):
    run = "many-" + "0" * 32

    async def scene():
        puts = (trio[1].dht.put(run, "peer", swarm_tools.peer_body(epoch=i), 60) for i in range(20))
        gets = (trio[1].dht.get(run, "peer") for _ in range(20))
        return await asyncio.gather(*puts, *gets)

    results = nodes.do(scene())
    assert all(results[:20])
    (envelope,) = nodes.do(trio[2].dht.get(run, "peer")).values()
    assert envelope.body.epoch == 19


def test_one_bad_record_in_a_dictionary_leaves_the_others(nodes, trio, make, checker):
    protocol = trio[0].dht._protocol
    dictionary = DictionaryDHTValue(maxsize=1)
    good = make()
    with dictionary.freeze():
        dictionary.store("Qm", b"junk", 1e18)
        dictionary.store(msgpack.unpackb(good.subkey), good.value, good.expiration_time)
    before = trio[0].validator.refused.total()
    assert protocol._validate_dictionary(good.key, dictionary)
    assert list(dictionary.data) == [msgpack.unpackb(good.subkey)]
    assert trio[0].validator.refused.total() == before + 1
