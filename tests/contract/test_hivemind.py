"""What we take for granted of hivemind 1.1.12 that it does not promise.

When one of these fails after an upgrade, read `peer/swarm/{libp2p,rpc,validator}.py` again.
"""

import asyncio
import hashlib
import inspect
import json
import os
import subprocess
import sys
from importlib.metadata import version

import hivemind
import msgpack
import pytest
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID, RoutingTable
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import P2P, P2PDaemonError, PeerID, ServicerBase
from hivemind.p2p.p2p_daemon_bindings.control import ControlClient
from hivemind.p2p.p2p_daemon_bindings.utils import read_pbmsg_safe, write_pbmsg
from hivemind.proto import dht_pb2, p2pd_pb2
from hivemind.utils import logging as hivemind_logging
from hivemind.utils.multiaddr import Multiaddr

PEER_ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"

IMPORT_EFFECTS = """
import json, logging, multiprocessing, signal
import torch
before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
sharing = torch.multiprocessing.get_sharing_strategy()
import hivemind
after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
report = {
    "signals": before == after,
    "start_method": multiprocessing.get_start_method(allow_none=True),
    "level": logging.getLevelName(logging.WARNING),
    "propagates": logging.getLogger("hivemind").propagate,
    "sharing": [sharing, torch.multiprocessing.get_sharing_strategy()],
    "cuda": torch.cuda.is_initialized(),
    "threads": torch.get_num_threads() > 0,
}
import peer.swarm.libp2p
report["level now"] = logging.getLevelName(logging.WARNING)
report["propagates now"] = logging.getLogger("hivemind").propagate
report["handlers now"] = len(logging.getLogger("hivemind").handlers)
print(json.dumps(report))
"""


def parameters(function):
    return list(inspect.signature(function).parameters)


def source_of(function):
    return inspect.getsource(function)


def test_the_version_is_the_one_that_was_read():
    assert version("hivemind") == hivemind.__version__ == "1.1.12"


def test_importing_it_touches_logging_and_multiprocessing_and_nothing_else():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EFFECTS], capture_output=True, text=True, timeout=60
    )
    report = json.loads(done.stdout)
    assert report == {
        "signals": True,
        "start_method": "fork",  # it makes locks, and that settles the method
        "level": "WARN",
        "propagates": False,
        "sharing": ["file_descriptor", "file_system"],
        "cuda": False,
        "threads": True,
        "level now": "WARNING",
        "propagates now": True,
        "handlers now": 0,
    }


def test_p2pd_is_started_from_arguments_that_a_subclass_may_change():
    source = source_of(P2P.create)
    assert "self = cls()" in source
    assert "proc_args = self._make_process_args(\n            str(p2pd_path)," in source
    assert "cls._UNIX_SOCKET_PREFIX" in source
    assert "env = os.environ.copy()" in source
    assert P2P._UNIX_SOCKET_PREFIX == "/unix/tmp/hivemind-"
    assert P2P._make_process_args("p2pd", relay=True, id="x") == ["p2pd", "-relay=1", "-id=x"]


@pytest.mark.parametrize(
    "name",
    [
        "identity_path",
        "host_maddrs",
        "no_listen",
        "announce_maddrs",
        "dht_mode",
        "force_reachability",
        "nat_port_map",
        "use_auto_relay",
        "trusted_relays",
        "startup_timeout",
    ],
)
def test_p2pd_takes_our_options(name):
    assert name in parameters(P2P.create)


def test_a_client_of_p2pd_has_the_parts_that_we_watch():
    p2p = P2P()
    p2p._client_listen_maddr = None  # or its end complains
    for name in ("_child", "_client", "_listen_task", "_reader_task", "peer_id"):
        assert getattr(p2p, name, "missing") is None
    assert {"_read_task", "_write_task"} <= set(vars(make_control()))
    assert "daemon_listen_maddr" in dir(P2P)
    for end in ("self._child.terminate()", "_listen_task", "_reader_task", "self._client.close()"):
        assert end in source_of(P2P._terminate)


def make_control():
    return ControlClient(None, None, _initialized_with_create=True)


def test_the_messages_to_p2pd_are_spelled_as_we_spell_them():
    request = p2pd_pb2.Request
    connect = p2pd_pb2.ConnectRequest(peer=b"p", addrs=[b"a"])
    opening = p2pd_pb2.StreamOpenRequest(peer=b"p", proto=["n"])
    assert request(type=request.CONNECT, connect=connect).IsInitialized()
    assert request(type=request.STREAM_OPEN, streamOpen=opening).IsInitialized()
    assert request(type=request.IDENTIFY).IsInitialized()
    assert request(type=request.LIST_PEERS).IsInitialized()
    answer = p2pd_pb2.Response
    assert {"identify", "peers", "error", "type"} <= set(answer.DESCRIPTOR.fields_by_name)
    for call, kind in (("identify", "IDENTIFY"), ("list_peers", "LIST_PEERS")):
        assert f"p2pd_pb.Request.{kind}" in source_of(getattr(ControlClient, call))


def test_a_message_survives_its_framing():
    async def scene():
        reader = asyncio.StreamReader()

        class Writer:
            def write(self, data):
                reader.feed_data(data)

            async def drain(self):
                return

        await write_pbmsg(Writer(), p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS))
        got = p2pd_pb2.Request()
        await read_pbmsg_safe(reader, got)
        return got.type

    assert asyncio.run(scene()) == p2pd_pb2.Request.LIST_PEERS


def test_a_peer_id_within_a_multiaddr_is_written_as_p2pd_cannot_read_it():
    """Should this fail, `peer.swarm.libp2p._encoded` may go."""
    data = Multiaddr(f"/p2p/{PEER_ID}").to_bytes()
    assert data[:2] == b"\xa5\x03"
    assert data[3:] != PeerID.from_base58(PEER_ID).to_bytes()


def test_a_peer_id_is_base58_of_its_bytes():
    peer = PeerID.from_base58(PEER_ID)
    assert peer.to_base58() == str(peer) == PEER_ID
    assert PeerID(peer.to_bytes()) == peer
    assert len({peer, PeerID(peer.to_bytes())}) == 1
    for junk in ("0OIl", "é"):
        with pytest.raises(ValueError):  # noqa: PT011 the kind is what matters
            PeerID.from_base58(junk)


def test_a_failure_of_p2pd_is_a_daemon_error():
    assert issubclass(P2PDaemonError, Exception)
    assert not issubclass(P2PDaemonError, OSError)
    assert 'P2PDaemonError(f"Daemon failed to start: {last_line}")' in source_of(P2P._read_outputs)


def test_a_key_is_hashed_from_its_text():
    expected = hashlib.sha1(msgpack.packb("run/peer"), usedforsecurity=False).digest()
    assert DHTID.generate(source="run/peer").to_bytes() == expected


def test_a_validator_sees_hashed_keys_packed_subkeys_and_packed_values():
    fields = list(DHTRecord.__dataclass_fields__)
    assert fields == ["key", "subkey", "value", "expiration_time"]
    assert set(DHTProtocol.RESERVED_SUBKEYS) == {msgpack.packb(None), b""}
    assert DHTProtocol.serializer.dumps("Qm") == msgpack.packb("Qm")
    assert DHTProtocol.serializer.dumps(b"v") == msgpack.packb(b"v")
    seen = []

    class Spy(RecordValidatorBase):
        def validate(self, record):
            seen.append(record)
            return True

    protocol = DHTProtocol(_initialized_with_create=True)
    protocol.record_validator = Spy()
    dictionary = DictionaryDHTValue()
    dictionary.store("Qm", b"v", 9e9)
    assert protocol._validate_dictionary(b"key", dictionary)
    assert seen == [DHTRecord(b"key", msgpack.packb("Qm"), b"v", 9e9)]


def test_one_bad_record_of_a_dictionary_refuses_all_which_we_change():
    class Never(RecordValidatorBase):
        def validate(self, record):
            return record.value != b"bad"

    protocol = DHTProtocol(_initialized_with_create=True)
    protocol.record_validator = Never()
    dictionary = DictionaryDHTValue()
    dictionary.store("a", b"good", 9e9)
    dictionary.store("b", b"bad", 9e9)
    assert not protocol._validate_dictionary(b"key", dictionary)
    for caller in (DHTProtocol.rpc_store, DHTProtocol.call_find):
        assert "self._validate_dictionary(" in source_of(caller)


def test_a_dictionary_on_the_wire_is_an_extension_of_three_fields():
    dictionary = DictionaryDHTValue()
    dictionary.store("Qm", b"v", 9e9)
    extension = msgpack.unpackb(DHTProtocol.serializer.dumps(dictionary))
    assert extension.code == 0x50
    _, latest_s, items = msgpack.unpackb(extension.data)
    assert (latest_s, items) == (9e9, [["Qm", b"v", 9e9]])


def test_the_storage_has_the_methods_that_the_protocol_calls():
    assert parameters(DHTLocalStorage.store_subkey)[1:] == [
        *("key", "subkey", "value", "expiration_time")
    ]
    source = source_of(DHTProtocol.rpc_store)
    assert "storage = self.cache if in_cache else self.storage" in source
    assert "storage.store_subkey(key_id, subkey, value_bytes, expiration_time)" in source
    assert "await" not in source.split('"""', 2)[2]  # we count what one call had refused
    storage = DHTLocalStorage()
    assert not storage  # empty is false


def test_the_messages_of_the_dht_keep_their_names_in_a_subclass():
    from peer.swarm.rpc import RecordProtocol

    assert RecordProtocol._get_handle_name(None, "rpc_find") == "DHTProtocol.rpc_find"
    assert "self._get_handle_name(namespace, handler.method_name)" in source_of(
        ServicerBase.add_p2p_handlers
    )
    for name in ("rpc_store", "rpc_find", "rpc_ping"):
        assert parameters(getattr(DHTProtocol, name)) == ["self", "request", "context"]


def test_a_protocol_takes_what_we_give_and_keeps_what_we_use():
    assert {
        *("p2p", "node_id", "bucket_size", "depth_modulo", "num_replicas", "wait_timeout"),
        *("client_mode", "record_validator"),
    } <= set(parameters(DHTProtocol.create))
    source = source_of(DHTProtocol.create)
    for name in ("storage", "cache", "routing_table", "client_mode", "node_info", "p2p"):
        assert f"self.{name}" in source
    assert parameters(DHTProtocol.update_routing_table)[1:] == ["node_id", "peer_id", "responded"]
    for caller in (DHTProtocol.rpc_ping, DHTProtocol.call_ping, DHTProtocol.call_store):
        assert "self.update_routing_table(" in source_of(caller)
    assert parameters(DHTProtocol.call_store)[1:6] == [
        *("peer", "keys", "values", "expiration_time", "subkeys")
    ]


def test_the_answers_of_the_dht_have_the_fields_that_we_read():
    found = dht_pb2.FindResult(
        type=dht_pb2.FOUND_DICTIONARY,
        value=b"",
        expiration_time=1.0,
        nearest_node_ids=[b""],
        nearest_peer_ids=[b""],
    )
    assert dht_pb2.FindResponse(results=[found], peer=dht_pb2.NodeInfo(node_id=b"")).results
    assert {dht_pb2.NOT_FOUND, dht_pb2.FOUND_REGULAR} == {0, 1}
    assert dht_pb2.PingResponse(dht_time=1.0).dht_time == 1.0
    assert dht_pb2.FindRequest(keys=[b""], peer=dht_pb2.NodeInfo()).keys


def test_the_routing_table_maps_both_ways_and_finds_neighbours():
    table = RoutingTable(DHTID(0), bucket_size=20, depth_modulo=5)
    peer = PeerID.from_base58(PEER_ID)
    assert table.add_or_update_node(DHTID(7), peer) is None
    assert table.uid_to_peer_id == {DHTID(7): peer}
    assert table.peer_id_to_uid == {peer: DHTID(7)}
    assert table.get(peer_id=peer) == DHTID(7)
    assert peer in table
    assert table.get_nearest_neighbors(DHTID(1), 3) == [(DHTID(7), peer)]
    del table[DHTID(7)]
    assert peer not in table


def test_the_log_can_be_had_for_ourselves():
    assert hivemind_logging.HandlerMode["NOWHERE"]
    assert 'os.getenv("HIVEMIND_LOGLEVEL"' in source_of(hivemind_logging)


def test_p2pd_lies_in_the_package_and_runs():
    path = os.path.join(os.path.dirname(hivemind.__file__), "hivemind_cli", "p2pd")  # noqa: PTH118, PTH120
    done = subprocess.run([path, "-help"], capture_output=True, text=True, timeout=20)
    for flag in ("-relayService", "-noListenAddrs", "-id", "-idleTimeout"):
        assert f"  {flag}" in done.stderr + done.stdout
