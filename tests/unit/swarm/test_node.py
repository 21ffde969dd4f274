import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from hivemind.p2p import PeerID

from peer.clock import SystemClock
from peer.errors import (
    ConfigurationError,
    CtpeerError,
    DeclinedError,
    MisbehavedError,
    UnreachableError,
)
from peer.swarm.dht import EnvelopeValidator
from peer.swarm.libp2p import _encoded
from peer.swarm.listening import check_listened, reachability_of
from peer.swarm.node import Node, NodeOptions
from peer.swarm.streams import MAX_STREAMS_PER_PEER
from peer.swarm.wire import call

ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.fixture(scope="module")
def pair(nodes):
    """Two nodes that know each other."""
    first = nodes.start("first")
    return first, nodes.start("second", first)


@pytest.mark.parametrize(
    ("addresses", "client", "words"),
    [
        ((f"/ip4/127.0.0.1/tcp/1/p2p/{ID}",), False, "loopback only"),
        ((f"/ip4/127.0.0.1/tcp/1/p2p/{ID}", f"/ip4/192.168.0.2/tcp/1/p2p/{ID}"), False, "local"),
        ((f"/ip4/10.0.0.1/tcp/1/p2p/{ID}", f"/ip4/8.8.8.8/tcp/1/p2p/{ID}"), False, "public"),
        ((f"/dns4/example.org/tcp/1/p2p/{ID}",), False, "public"),
        ((f"/ip4/8.8.8.8/tcp/1/p2p/{ID}/p2p-circuit/p2p/{ID}",), True, "relayed"),
        ((), True, "client"),
        ((), False, "unknown"),
        (("/nonsense",), False, "unknown"),
    ],
)
def test_reachability_is_the_farthest_address_s(addresses, client, words):
    assert reachability_of(addresses, client=client).startswith(words)


def test_an_occupied_port_is_refused_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="another program uses that port; end it, or"):
            check_listened([f"/ip4/127.0.0.1/tcp/{port}"])
    check_listened([f"/ip4/127.0.0.1/tcp/{port}"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="another program uses that port"):
            check_listened([f"/ip4/127.0.0.1/udp/{port}/quic-v1"])


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ConfigurationError, match="no such address"):
        check_listened(["/ip4/127.0.0.1/tcp/0", "/ip4/198.51.100.1/tcp/0"])


@pytest.mark.parametrize("text", ["nonsense", "/ip4/1/tcp/2", "/dns4/example.org/tcp/1", "/ip4/"])
def test_what_is_no_address_is_refused(nodes, text):
    with pytest.raises(ConfigurationError, match="no address to listen at"):
        nodes.start("refused", listen=(text,))


@pytest.mark.parametrize("text", ["nonsense", "/ip4/1.2.3.4/tcp/0", "/ip4/0.0.0.0/tcp/1"])
def test_what_nobody_could_dial_is_not_announced(nodes, text):
    with pytest.raises(ConfigurationError, match="no address that others could dial; write it"):
        nodes.start("refused", announce=(text,))


@pytest.mark.parametrize("text", ["nonsense", "/ip4/1.2.3.4/tcp/1", f"/ip4/1.2.3.4/tcp/0/p2p/{ID}"])
def test_an_initial_peer_without_a_name_or_a_port_is_refused(nodes, text):
    with pytest.raises(ConfigurationError, match="no address of a peer; write it like"):
        nodes.start("refused", initial_peers=(text,))


def test_what_is_announced_takes_the_place_of_what_the_machine_knows(nodes):
    node = nodes.start("famous", announce=("/ip4/203.0.113.7/tcp/31337",))
    assert node.addresses == (f"/ip4/203.0.113.7/tcp/31337/p2p/{node.peer_id}",)
    nodes.do(node.stop())


def test_another_p2pd_s_port_is_refused(nodes, pair):
    port = pair[0].addresses[0].split("/")[4]
    with pytest.raises(ConfigurationError, match="another program uses that port"):
        nodes.start("intruder", listen=(f"/ip4/127.0.0.1/tcp/{port}",))


def test_initial_peers_that_are_not_there_are_reported_and_no_error(nodes, pair):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = f"/ip4/127.0.0.1/tcp/{port}/p2p/{ID}"
    node = nodes.start("hopeful", initial_peers=(nowhere, pair[0].addresses[0]))
    assert node.unreachable.keys() == {nowhere}
    assert "cannot be reached" in node.unreachable[nowhere]
    assert pair[0].peer_id in node.dht.nodes
    alone = nodes.start("lonely", initial_peers=(nowhere,))
    assert alone.unreachable.keys() == {nowhere}
    for each in (node, alone):
        nodes.do(each.stop())


@pytest.mark.slow
def test_a_peer_that_comes_later_is_met_by_rejoining(nodes, swarm_tools):
    late = nodes.start("late")
    address = late.addresses[0]
    nodes.do(late.stop())
    node = nodes.start("early", known_peers=(address,))
    assert node.unreachable.keys() == {address}
    late = nodes.start("late", listen=(address.split("/p2p/")[0],))

    def met():  # libp2p leaves an address alone for some seconds after a failure
        nodes.do(node.rejoin())
        return node.dht.nodes == {late.peer_id}

    swarm_tools.wait_until(met)
    for each in (node, late):
        nodes.do(each.stop())


@pytest.fixture
def silent_address():
    """Return the address of somebody who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}/p2p/{ID}"


def test_a_silent_peer_holds_nobody_up_for_long(nodes, pair, silent_address, monkeypatch):
    monkeypatch.setattr("peer.swarm.node._QUICK_S", 0.5)
    for known in ((), pair[0].addresses):
        started_s = time.monotonic()
        node = nodes.start("patient", initial_peers=(silent_address, *known), connect_timeout_s=1.0)
        assert time.monotonic() - started_s < 10.0
        assert node.unreachable.keys() == {silent_address}
        nodes.do(node.stop())


def test_a_start_that_is_cancelled_leaves_nothing(nodes, silent_address, swarm_tools):
    before = set(psutil.Process().children())

    def new():
        return [p for p in psutil.Process().children() if p not in before and p.name() == "p2pd"]

    identity = nodes.identity("cancelled")
    options = NodeOptions(
        identity_path=nodes.folder / "cancelled.key",
        listen=("/ip4/127.0.0.1/tcp/0",),
        initial_peers=(silent_address,),
    )

    async def scene():
        task = asyncio.create_task(Node.start(options, identity, EnvelopeValidator()))
        while not new():  # noqa: ASYNC110 another process's doing
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return asyncio.all_tasks() - {asyncio.current_task()}

    left = nodes.do(scene())
    assert not new()
    assert not [task for task in left if "meet" in repr(task)]


class SkewedClock(SystemClock):
    def __init__(self, ahead_s):
        self._ahead_s = ahead_s

    def now_s(self):
        return super().now_s() + self._ahead_s


@pytest.mark.parametrize(("ahead_s", "words"), [(10.0, "ahead of"), (-10.0, "behind")])
def test_a_wrong_clock_is_refused_with_what_to_do(nodes, pair, ahead_s, words):
    with pytest.raises(ConfigurationError, match=f"clock is 10 s {words} .*timedatectl"):
        nodes.start("skewed", pair[0], clock=SkewedClock(ahead_s))


def test_a_clock_within_tolerance_is_none_of_our_business(nodes, pair):
    nodes.do(nodes.start("slow", pair[0], clock=SkewedClock(-2.0)).stop())


def test_strangers_remembered_cannot_refuse_us_our_clock(nodes, pair):
    node = nodes.start("sure", known_peers=pair[0].addresses, clock=SkewedClock(10.0))
    assert pair[0].peer_id in node.dht.nodes
    nodes.do(node.stop())


def test_a_p2pd_that_does_not_start_is_explained_and_reaped(nodes):
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(CtpeerError, match=r"did not start in 0 s; it was tried 3 times: check"):
        nodes.start("hurried", start_timeout_s=0.01)
    assert not [p for p in set(psutil.Process().children()) - before if p.status() != "zombie"]


def test_a_key_that_p2pd_cannot_read_is_explained(nodes):
    (nodes.folder / "broken.key").write_bytes(b"junk")
    with pytest.raises(CtpeerError, match="is not an identity key"):
        nodes.start("broken")


async def close(*channels):
    for channel in channels:
        channel.close()


async def echo(channel):
    frame = await channel.receive(1 << 26)
    await channel.send({"from": channel.remote}, frame.body)


def test_streams_carry_frames_both_ways_and_are_counted(nodes, pair):
    first, second = pair
    nodes.do(first.transport.serve("/t/echo", echo))
    body = os.urandom(8 << 20)

    async def scene():
        channel = await second.transport.open(first.peer_id, "/t/echo")
        await channel.send({"n": 1}, body)
        frame = await channel.receive(1 << 26)
        channel.close()
        return frame

    sent = second.transport.traffic.sent_bytes
    frame = nodes.do(scene())
    assert frame.header == {"from": second.peer_id}
    assert frame.body == body
    assert 0 < second.transport.traffic.sent_bytes - sent - len(body) < 100
    assert first.transport.traffic.received_bytes >= len(body)


def test_what_a_handler_throws_is_told_reported_or_kept(nodes, swarm_tools):
    reported = []
    first = nodes.start("strict", on_misbehaved=lambda *what: reported.append(what))
    second = nodes.start("sloppy", first)

    async def decline(channel):
        raise DeclinedError("not today")

    async def accuse(channel):
        raise MisbehavedError("what nonsense")

    async def fail(channel):
        raise RuntimeError("our own bug")

    for name, handler in (("decline", decline), ("accuse", accuse), ("fail", fail)):
        nodes.do(first.transport.serve(f"/t/{name}", handler))

    def ask(name):
        return nodes.do(call(second.transport, first.peer_id, f"/t/{name}", {}, timeout_s=5.0))

    with pytest.raises(DeclinedError, match="not today"):
        ask("decline")
    with pytest.raises(DeclinedError, match="what nonsense"):
        ask("accuse")
    with pytest.raises(UnreachableError, match=r"ended|broke"):
        ask("fail")
    swarm_tools.wait_until(lambda: reported)
    assert reported == [(second.peer_id, "/t/accuse", "what nonsense")]
    for node in (first, second):
        nodes.do(node.stop())


def test_an_answer_arrives_though_the_question_was_not_read_to_its_end(nodes, pair):
    first, second = pair

    async def decline(channel):
        await channel.receive()
        raise DeclinedError("enough")

    nodes.do(first.transport.serve("/t/enough", decline))

    async def scene():
        channel = await second.transport.open(first.peer_id, "/t/enough")
        await channel.send({})
        with contextlib.suppress(UnreachableError):
            await channel.send({}, b"x" * (4 << 20))
        with pytest.raises(DeclinedError, match="enough"):
            await channel.receive()
        channel.close()

    for _ in range(10):
        nodes.do(scene())


@pytest.mark.parametrize("peer_id", [ID, "", "Qm0OIl", "x" * 1000])
def test_a_peer_that_nobody_knows_is_unreachable(nodes, pair, peer_id):
    with pytest.raises(UnreachableError):
        nodes.do(pair[0].transport.open(peer_id, "/t/none"))


def test_a_handler_that_is_not_there_is_unreachable_and_leaves_no_connection(nodes, pair):
    with pytest.raises(UnreachableError, match="no way to"):
        nodes.do(pair[1].transport.open(pair[0].peer_id, "/t/none"))
    before = psutil.Process().num_fds()
    for _ in range(20):
        with pytest.raises(UnreachableError):
            nodes.do(pair[1].transport.open(pair[0].peer_id, "/t/none"))
    gc.collect()
    assert psutil.Process().num_fds() <= before + 2


@pytest.mark.parametrize(
    "address", ["nonsense", "/ip4/127.0.0.1/tcp/1", f"/ip4/127.0.0.1/tcp/1/p2p/{ID}"]
)
def test_an_address_where_nobody_is_cannot_be_connected_to(nodes, pair, address):
    with pytest.raises(UnreachableError):
        nodes.do(pair[0].connect(address))


def test_connecting_makes_a_way(nodes):
    first, second = nodes.start("near"), nodes.start("far")
    with pytest.raises(UnreachableError):
        nodes.do(second.transport.open(first.peer_id, "/t/echo"))
    nodes.do(first.transport.serve("/t/echo", echo))
    nodes.do(second.connect(first.addresses[0]))
    nodes.do(close(nodes.do(second.transport.open(first.peer_id, "/t/echo"))))
    assert first.peer_id in second.dht.nodes
    assert nodes.do(second.connected()) == {first.peer_id}
    for node in (first, second):
        nodes.do(node.stop())


def test_a_client_is_reached_over_connections_of_its_own(nodes, pair):
    client = nodes.start("client", pair[0], client=True)
    assert client.addresses == ()
    assert client.reachability() == "client"
    nodes.do(client.transport.serve("/t/echo", echo))
    nodes.do(close(nodes.do(pair[0].transport.open(client.peer_id, "/t/echo"))))
    nodes.do(client.stop())


def test_a_peer_that_opens_too_many_streams_is_cut_off_and_named(nodes, pair, swarm_tools):
    first, second = pair
    reported = []
    first.transport._on_misbehaved = lambda *what: reported.append(what)

    async def linger(channel):
        with pytest.raises(UnreachableError):
            await channel.receive()

    nodes.do(first.transport.serve("/t/linger", linger))

    async def open_many():
        return [
            await second.transport.open(first.peer_id, "/t/linger")
            for _ in range(MAX_STREAMS_PER_PEER + 1)
        ]

    channels = nodes.do(open_many())
    swarm_tools.wait_until(lambda: reported)
    assert reported == [(second.peer_id, "/t/linger", "it opens too many streams at once")]
    nodes.do(close(*channels))
    swarm_tools.wait_until(lambda: not first.transport._streams)


@pytest.mark.parametrize(
    ("number", "longest_s", "words"),
    [(signal.SIGKILL, 1.0, "ended with code -9"), (signal.SIGSTOP, 4.0, "did not answer")],
)
def test_a_p2pd_that_died_or_froze_is_noticed_and_reaped(
    nodes, swarm_tools, monkeypatch, number, longest_s, words
):
    monkeypatch.setattr("peer.swarm.node._ASK_TIMEOUT_S", 1.0)
    monkeypatch.setattr("peer.swarm.libp2p._END_TIMEOUT_S", 0.5)
    node = nodes.start("victim")
    nodes.do(node.probe())
    os.kill(node.p2pd_pid, number)
    if number == signal.SIGKILL:
        nodes.do(node.ended(), 5.0)
    else:
        p2pd = psutil.Process(node.p2pd_pid)
        swarm_tools.wait_until(lambda: p2pd.status() == psutil.STATUS_STOPPED)
    started_s = time.monotonic()
    with pytest.raises(UnreachableError, match=words):
        nodes.do(node.probe())
    assert time.monotonic() - started_s < longest_s
    nodes.do(node.stop())
    assert not psutil.pid_exists(node.p2pd_pid)


def test_a_broken_connection_to_p2pd_is_noticed(nodes):
    node = nodes.start("severed")
    nodes.do(node.probe())
    node._libp2p.p2p._client.control._read_task.cancel()
    with pytest.raises(UnreachableError, match="connection to p2pd broke"):
        nodes.do(node.probe())
    nodes.do(node.stop())


def test_a_stopped_node_leaves_nothing_and_stops_its_handlers(nodes, pair):
    node = nodes.start("brief", pair[0])
    begun, ended = threading.Event(), threading.Event()

    async def wait_for_ever(channel):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    nodes.do(node.transport.serve("/t/wait", wait_for_ever))
    nodes.do(pair[0].transport.open(node.peer_id, "/t/wait"))
    assert begun.wait(5.0)
    folder = node._libp2p._folder
    assert list(folder.glob("*.sock"))
    nodes.do(node.stop())
    assert not psutil.pid_exists(node.p2pd_pid)
    assert not folder.exists()
    assert ended.wait(5.0)
    nodes.do(node.stop())  # again is no error


CHILD = """
import asyncio, sys, threading, time
from pathlib import Path
from peer.identity import Identity
from peer.swarm.dht import EnvelopeValidator
from peer.swarm.node import Node, NodeOptions

async def main():
    path = Path(sys.argv[1])
    options = NodeOptions(identity_path=path, listen=("/ip4/127.0.0.1/tcp/0",))
    node = await Node.start(options, Identity.load_or_create(path), EnvelopeValidator())
    print(node.p2pd_pid, flush=True)
    await asyncio.sleep(60)

threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
time.sleep(60)
"""


def test_p2pd_dies_with_a_process_that_is_killed_even_while_it_is_frozen(tmp_path, swarm_tools):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "a.key")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with child:
        try:
            pid = int(child.stdout.readline())
            assert psutil.Process(pid).name() == "p2pd"
            os.kill(pid, signal.SIGSTOP)
        finally:
            child.kill()
    try:
        swarm_tools.wait_until(lambda: not swarm_tools.alive(pid), 5.0)
    finally:
        if swarm_tools.alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_sockets_of_killed_processes_are_cleared_away(nodes, monkeypatch):
    base = tempfile.TemporaryDirectory()  # a socket's path is short, unlike tmp_path
    monkeypatch.setattr("tempfile.tempdir", base.name)
    old, fresh = (Path(base.name) / f"ctpeer-p2pd-{name}" for name in ("old", "fresh"))
    held = nodes.start("holder")
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "p2pd.sock").touch()
    for folder in (old, held._libp2p._folder):
        os.utime(folder, (1.0, 1.0))
    node = nodes.start("cleaner")
    assert not old.exists()
    assert fresh.exists()
    assert Path(held._libp2p._folder).exists()
    for each in (held, node):
        nodes.do(each.stop())
    base.cleanup()


def test_an_address_over_a_relay_is_written_as_p2pd_reads_it():
    relayed = _encoded(f"/ip4/127.0.0.1/tcp/1/p2p/{ID}/p2p-circuit")
    multihash = PeerID.from_base58(ID).to_bytes()
    assert relayed == b"\x04\x7f\0\0\1\x06\0\1" + b"\xa5\x03\x22" + multihash + b"\xa2\x02"
    assert _encoded("/ip4/127.0.0.1/tcp/1") == b"\x04\x7f\0\0\1\x06\0\1"
