"""What hostile nodes, built on plain hivemind without validators, can do to records: nothing."""

import base64
import json
import time

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils import MSGPackSerializer

from peer.run.canonical import canonical
from peer.swarm.records import Refusal, key_of, seal

FAR_S = 30 * 365 * 86400.0


@pytest.fixture(scope="module")
def scene(nodes, swarm_tools):
    return Scene(nodes, swarm_tools)


class Scene:
    """An entry point, two honest peers, and an attacker whom everybody asks."""

    def __init__(self, nodes, tools):
        self.nodes, self.tools = nodes, tools
        self.entry = nodes.start("entry")
        self.one = nodes.start("one", self.entry)
        self.two = nodes.start("two", self.entry)
        self.attacker = nodes.raw(self.entry)
        self.attacker_identity = nodes.identity("attacker")  # what it signs records with
        attacker_id = self.attacker.peer_id.to_base58()
        for node in (self.entry, self.one, self.two):
            nodes.do(node.dht.get(tools.RUN, "peer"))
            tools.wait_until(lambda node=node: self._asks(node, attacker_id))

    def _asks(self, node, attacker_id):
        self.nodes.do(node.dht.get(self.tools.RUN, "peer"))
        return attacker_id in node.dht.nodes

    def put(self, run, epoch=1, node=None):
        body = self.tools.peer_body(epoch=epoch)
        assert self.nodes.do((node or self.one).dht.put(run, "peer", body, 60.0))

    def attack(self, run, value, expires_s, subkey=None):
        """Store a value wherever it is taken, the attacker's own node included."""
        store = self.attacker.store(key_of(run, "peer"), value, expires_s, subkey=subkey)
        return self.nodes.do(store)

    def epochs(self, run):
        """Return what everybody reads of a run."""
        return [
            {p: e.body.epoch for p, e in self.nodes.do(node.dht.get(run, "peer")).items()}
            for node in (self.entry, self.one, self.two)
        ]

    def refused(self, reason):
        return [node.validator.refused[reason] for node in (self.entry, self.one, self.two)]

    def forgiven(self):
        for node in (self.entry, self.one, self.two):
            node.dht._protocol._offences.clear()

    def assert_harmless(self, run, reason, epoch=1, attack=lambda: None):
        """Assert that the honest record is read everywhere and the junk counted everywhere."""
        self.forgiven()
        before = self.refused(reason)
        attack()
        assert self.epochs(run) == [{self.one.peer_id: epoch}] * 3
        after = self.refused(reason)
        assert all(b > a for a, b in zip(before, after, strict=True)), (before, after)

    def sealed(self, run, **changed):
        """Return a record of the attacker's own, signed, that says what `changed` says."""
        body = self.tools.peer_body().model_dump(mode="json") | changed.pop("body", {})
        fields = {
            "run_id": run,
            "kind": "peer",
            "key": key_of(run, "peer"),
            "seq": 1,
            "expires_s": time.time() + 60,
            "public_key": base64.b64encode(self.attacker_identity.public_key).decode(),
            "body": body,
        } | changed
        signed = b"ctpeer record\n" + spell(fields)
        signature = base64.b64encode(self.attacker_identity.sign(signed)).decode()
        return spell(fields | {"signature": signature}), fields["expires_s"]


def spell(value):
    try:
        return canonical(value)
    except ValueError:  # NaN and the like
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.fixture
def run(request):
    """Return a run of the test's own."""
    return f"r{abs(hash(request.node.name)) % 10**12}-" + "0" * 32


def test_a_plain_value_with_a_far_expiry_is_refused(scene, run):
    scene.put(run)
    far_s = time.time() + FAR_S
    scene.assert_harmless(run, Refusal.PLAIN, attack=lambda: scene.attack(run, "mine", far_s))


def test_a_plain_value_that_came_first_keeps_nobody_out(scene, run):
    scene.attack(run, "mine", time.time() + FAR_S)
    scene.put(run)
    scene.assert_harmless(run, Refusal.PLAIN)


def test_a_record_under_another_s_name_is_refused(scene, run):
    scene.put(run)
    forged, expires_s = scene.sealed(run)
    name = scene.one.peer_id
    attack = lambda: scene.attack(run, forged, expires_s, subkey=name)  # noqa: E731
    scene.assert_harmless(run, Refusal.OWNER, attack=attack)


def test_another_s_record_under_one_s_own_name_is_refused(scene, run):
    scene.put(run)
    (stolen,) = scene.entry.dht.storage.records(DHTID.generate(key_of(run, "peer")))
    data = seal(scene.one.identity, run, "peer", stolen.seq, stolen.expires_s, stolen.body)
    name = scene.attacker_identity.peer_id
    attack = lambda: scene.attack(run, data, stolen.expires_s, subkey=name)  # noqa: E731
    scene.assert_harmless(run, Refusal.OWNER, attack=attack)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"expires_s": 4e9}, Refusal.EXPIRY),
        ({"body": {"epoch": 10**9 + 1}}, Refusal.SCHEMA),
        ({"body": {"now_s": float("nan")}}, Refusal.SCHEMA),
        ({"body": {"now_s": float("inf")}}, Refusal.SCHEMA),
        ({"body": {"addresses": ["/" + "x" * 190] * 30}}, Refusal.SIZE),
        ({"kind": "gossip", "key": "x/gossip"}, Refusal.KIND),
        ({"key": "elsewhere/peer"}, Refusal.KEY),
        ({"signature": "AAAA"}, Refusal.SIGNATURE),
    ],
)
def test_a_signed_record_that_says_too_much_is_refused(scene, run, changed, reason):
    scene.put(run)
    record, expires_s = scene.sealed(run, **changed)
    name = scene.attacker_identity.peer_id
    attack = lambda: scene.attack(run, record, expires_s, subkey=name)  # noqa: E731
    scene.assert_harmless(run, reason, attack=attack)


def test_a_later_expiry_outside_the_envelope_is_refused(scene, run):
    scene.put(run)
    record, expires_s = scene.sealed(run)
    name = scene.attacker_identity.peer_id
    attack = lambda: scene.attack(run, record, expires_s + 50.0, subkey=name)  # noqa: E731
    scene.assert_harmless(run, Refusal.EXPIRY, attack=attack)


def test_an_older_record_replayed_is_refused_and_ignored(scene, run):
    scene.put(run, epoch=1)
    (old,) = scene.entry.dht.storage.records(DHTID.generate(key_of(run, "peer")))
    data = seal(scene.one.identity, run, "peer", old.seq, old.expires_s, old.body)
    scene.put(run, epoch=2)
    scene.forgiven()
    before = scene.entry.validator.refused[Refusal.REPLAY]
    scene.attack(run, data, old.expires_s, subkey=scene.one.peer_id)
    assert scene.epochs(run) == [{scene.one.peer_id: 2}] * 3
    assert scene.entry.validator.refused[Refusal.REPLAY] > before


def test_an_older_record_that_is_found_alone_is_not_believed_again(scene, run):
    """The attacker is the only one that answers, with what was true a while ago."""
    scene.put(run, epoch=1)
    (old,) = scene.entry.dht.storage.records(DHTID.generate(key_of(run, "peer")))
    scene.put(run, epoch=2)
    assert scene.epochs(run) == [{scene.one.peer_id: 2}] * 3
    newest = scene.two.dht._newest_of(old.key, [old])
    assert newest == {}


def test_an_empty_dictionary_that_never_ends_hides_nothing(scene, run):
    """hivemind's own search would end with it: nothing can be newer."""
    scene.put(run)
    scene.attacker.protocol.storage.store(
        DHTID.generate(key_of(run, "peer")), DictionaryDHTValue(), float("inf")
    )
    assert scene.epochs(run) == [{scene.one.peer_id: 1}] * 3


def test_one_bad_record_among_good_ones_hides_none(scene, run):
    scene.put(run)
    (good,) = scene.entry.dht.storage.records(DHTID.generate(key_of(run, "peer")))
    data = seal(scene.one.identity, run, "peer", good.seq, good.expires_s, good.body)
    dictionary = DictionaryDHTValue()
    dictionary.store("Qm", b"junk", time.time() + 60)
    dictionary.store(good.peer_id, MSGPackSerializer.dumps(data), good.expires_s)
    scene.attacker.protocol.storage.store(
        DHTID.generate(key_of(run, "peer")), dictionary, time.time() + 60
    )
    for node in (scene.entry, scene.one, scene.two):
        node.dht.storage.clear()  # only the attacker still has it
    before = scene.refused(Refusal.SCHEMA)
    assert scene.epochs(run) == [{scene.one.peer_id: 1}] * 3
    assert all(b > a for a, b in zip(before, scene.refused(Refusal.SCHEMA), strict=True))


def test_a_dictionary_whose_numbers_are_none_breaks_no_search(scene, run):
    """hivemind's own search would hang: it compares what it was sent."""
    scene.put(run)
    dictionary = DictionaryDHTValue()
    dictionary.store("Qm", b"junk", time.time() + 60)
    dictionary.maxsize = "many"
    dictionary.data["Qm"] = type(dictionary.data["Qm"])(b"junk", "soon")
    dictionary.frozen = True  # hivemind's own methods would stumble over it here, too
    assert b"soon" in dictionary.packb()
    scene.attacker.protocol.storage.store(
        DHTID.generate(key_of(run, "peer")), dictionary, time.time() + 60
    )
    assert scene.epochs(run) == [{scene.one.peer_id: 1}] * 3


def test_a_flood_of_junk_is_not_listened_to_for_long(scene, run):
    scene.forgiven()
    scene.put(run)
    far_s = time.time() + FAR_S

    async def flood():
        key = DHTID.generate(key_of(run, "peer"))
        for _ in range(10):
            await scene.attacker.protocol.call_store(
                scene.attacker.p2p.peer_id.from_base58(scene.entry.peer_id),
                [key] * 50,
                [b"junk"] * 50,
                [far_s] * 50,
            )

    before = scene.entry.validator.refused.total()
    scene.nodes.do(flood())
    assert 64 < scene.entry.validator.refused.total() - before <= 200
    assert scene.epochs(run) == [{scene.one.peer_id: 1}] * 3
    scene.put(run, epoch=2)
    scene.forgiven()


def test_a_request_for_many_keys_at_once_is_refused(scene, run):
    scene.put(run)
    peer = scene.attacker.p2p.peer_id.from_base58(scene.entry.peer_id)
    key = DHTID.generate(key_of(run, "peer"))
    assert scene.nodes.do(scene.attacker.protocol.call_find(peer, [key]))
    keys = [DHTID.generate(str(number)) for number in range(3)]
    assert scene.nodes.do(scene.attacker.protocol.call_find(peer, keys)) is None


def test_a_node_beside_a_key_of_its_choice_is_never_asked(scene, nodes, swarm_tools, run):
    chooser = nodes.raw(scene.entry, own_place=False)
    scene.put(run)
    scene.epochs(run)
    chooser_id = chooser.peer_id.to_base58()
    assert all(chooser_id not in node.dht.nodes for node in (scene.entry, scene.one, scene.two))


def test_a_reader_on_plain_hivemind_still_reads_us(scene, run):
    scene.put(run)
    found = scene.nodes.do(scene.attacker.get(key_of(run, "peer"), latest=True))
    assert scene.one.peer_id in found.value
