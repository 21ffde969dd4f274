"""`ctpeer-bootstrap`: a process of its own that serves any run and mends itself."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from hivemind.dht.routing import DHTID

from peer.errors import UnreachableError
from peer.swarm.records import key_of
from peer.swarm.wire import call

LIGHT = """
import json, sys
import dht_bootstrap.main
started = "hivemind" in sys.modules
import dht_bootstrap.service, torch
print(json.dumps([started, "transformers" in sys.modules, torch.cuda.is_initialized()]))
"""
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dht_bootstrap", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def scrape(entry):
    with urllib.request.urlopen(entry.told["metrics_url"], timeout=10) as answer:
        return {
            name: float(value)
            for name, value in re.findall(
                r"^([a-z0-9_]+(?:{[^}]*})?) (\S+)$", answer.read().decode(), re.MULTILINE
            )
        }


def p2pd_of(entry):
    return [c for c in psutil.Process(entry.process.pid).children() if c.name() == "p2pd"]


def test_two_runs_meet_through_it_and_do_not_meet_each_other(entry, nodes, swarm_tools):
    runs = [f"{name}-" + "0" * 32 for name in ("red", "blue")]
    before = scrape(entry)
    pairs = [[nodes.start(f"{run}{i}", entry) for i in range(2)] for run in runs]
    for run, pair in zip(runs, pairs, strict=True):
        for node in pair:
            assert nodes.do(node.dht.put(run, "peer", swarm_tools.peer_body(), 60.0))
    for run, pair in zip(runs, pairs, strict=True):
        for node in pair:
            assert nodes.do(node.dht.get(run, "peer")).keys() == {n.peer_id for n in pair}
    found = scrape(entry)
    more = {name: value - before[name] for name, value in found.items()}
    assert more["ctpeer_bootstrap_records"] == 4
    assert more["ctpeer_bootstrap_record_keys"] == 2
    assert more["ctpeer_bootstrap_routing_table_peers"] == 4
    assert found["ctpeer_bootstrap_p2pd_up"] == 1
    assert not sum(value for name, value in more.items() if "refused" in name)
    for node in (*pairs[0], *pairs[1]):
        nodes.do(node.stop())


def test_it_counts_what_a_hostile_node_stores_and_serves_the_honest(entry, nodes, swarm_tools):
    run = "calm-" + "0" * 32
    honest, reader = nodes.start("honest", entry), nodes.start("reader", entry)
    hostile = nodes.raw(entry)
    assert nodes.do(honest.dht.put(run, "peer", swarm_tools.peer_body(epoch=3), 60.0))
    far_s = time.time() + 1e9
    target = hostile.p2p.peer_id.from_base58(entry.told["peer_id"])
    key = DHTID.generate(key_of(run, "peer"))

    def attack(value, subkey):
        store = hostile.protocol.call_store(target, [key], [value], [far_s], [subkey])
        assert nodes.do(store) == [False]

    attack(b"\xc0", None)
    attack(b"\xc4\x05forge", honest.peer_id)
    attack(b"x" * 50_000, honest.peer_id)
    found = scrape(entry)
    refused = {r: found[f'ctpeer_records_refused_total{{reason="{r}"}}'] for r in ("plain", "size")}
    assert refused == {"plain": 1, "size": 1}
    assert found['ctpeer_records_refused_total{reason="schema"}'] == 1
    (envelope,) = nodes.do(reader.dht.get(run, "peer")).values()
    assert envelope.body.epoch == 3
    for node in (honest, reader):
        nodes.do(node.stop())


@pytest.mark.parametrize(
    ("number", "longest_s"),
    [(signal.SIGKILL, 10), pytest.param(signal.SIGSTOP, 40, marks=pytest.mark.slow)],
)
def test_a_p2pd_that_dies_or_freezes_is_replaced_in_its_place(
    start_entry_point, nodes, swarm_tools, number, longest_s
):
    entry = start_entry_point()
    run = f"mend{number}-" + "0" * 32
    node = nodes.start(f"mend{number}", entry)
    assert nodes.do(node.dht.put(run, "peer", swarm_tools.peer_body(addresses=node.addresses), 99))
    (old,) = p2pd_of(entry)
    old.send_signal(number)
    swarm_tools.wait_until(lambda: scrape(entry)["ctpeer_p2pd_restarts_total"] == 1, longest_s)
    swarm_tools.wait_until(lambda: scrape(entry)["ctpeer_bootstrap_p2pd_up"] == 1)
    assert not swarm_tools.alive(old.pid)
    assert "it is started again" in entry.log_path.read_text()
    assert scrape(entry)["ctpeer_bootstrap_routing_table_peers"] == 1  # it looked for its peer
    later = nodes.start(f"later{number}", entry)  # at the address as it was
    assert not later.unreachable
    assert nodes.do(later.dht.get(run, "peer")).keys() == {node.peer_id}
    for each in (node, later):
        nodes.do(each.stop())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_nothing_left(start_entry_point, number, swarm_tools):
    entry = start_entry_point()
    (p2pd,) = p2pd_of(entry)
    listen = next(a for a in p2pd.cmdline() if a.startswith("-listen=/unix"))
    folder = Path(listen.removeprefix("-listen=/unix")).parent
    assert folder.is_dir()
    entry.process.send_signal(number)
    assert entry.process.wait(10) == 0
    assert not swarm_tools.alive(p2pd.pid)
    assert not folder.exists()
    assert "Traceback" not in entry.log_path.read_text()


def test_p2pd_does_not_outlive_it(start_entry_point, swarm_tools):
    entry = start_entry_point()
    (p2pd,) = p2pd_of(entry)
    entry.process.kill()
    swarm_tools.wait_until(lambda: not swarm_tools.alive(p2pd.pid), 5.0)


def test_its_peer_id_and_port_are_the_same_after_a_restart(start_entry_point, tmp_path):
    first = start_entry_point(tmp_path)
    first.process.terminate()
    first.process.wait(10)
    again = start_entry_point(tmp_path, first.addresses[0].split("/p2p/")[0])
    assert again.addresses == first.addresses


def test_it_stays_light(entry):
    (p2pd,) = p2pd_of(entry)
    rss = psutil.Process(entry.process.pid).memory_info().rss + p2pd.memory_info().rss
    assert rss < 400e6
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert json.loads(done.stdout) == [False, False, False]


def test_an_occupied_port_is_one_clear_sentence(entry, tmp_path):
    address = entry.addresses[0].split("/p2p/")[0]
    done = run("--listen", address, "--identity", tmp_path / "b.key", "--metrics-port", 0)
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr == (
        f"ctpeer-bootstrap: {address} cannot be listened at: another program uses that port; "
        "end it, or listen at another\n"
    )
    port = entry.told["metrics_url"].split(":")[2].split("/")[0]
    done = run("--listen", LOOPBACK, "--identity", tmp_path / "b.key", "--metrics-port", port)
    assert done.returncode == 78
    assert "choose another address with --metrics-port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--listen", "nonsense"), 78, "is no address to listen at"),
        (("--peers", "nonsense"), 78, "is no address of a peer; write it like"),
        (("--announce", "/ip4/1.2.3.4/tcp/0"), 78, "is no address that others could dial"),
        (("--identity", "/proc/nothing/here.key"), 78, "choose another place with --identity"),
        (("--metrics-port", "99999"), 2, "not in the range"),
    ],
)
def test_bad_input_is_one_clear_sentence(tmp_path, arguments, code, words):
    good = ("--listen", LOOPBACK, "--identity", tmp_path / "a.key", "--metrics-port", 0)
    done = run(*good, *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_people_are_told_where_it_is(tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dht_bootstrap", "--listen", LOOPBACK),
            *("--identity", str(tmp_path / "a.key"), "--metrics-port", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            lines = [process.stdout.readline() for _ in range(3)]
        finally:
            process.terminate()
    assert re.fullmatch(r"Qm\w+ is an entry point \(loopback only\):\n", lines[0])
    assert re.fullmatch(r"  /ip4/127.0.0.1/tcp/\d+/p2p/Qm\w+\n", lines[1])
    assert lines[2].startswith("metrics: http://127.0.0.1:")


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_peers_that_nobody_can_dial_meet_over_a_relay(nodes):
    """libp2p asks for a place at a relay three minutes after its start."""
    relay = nodes.start("relay", relay=True, public=True)
    hidden = nodes.start("hidden", relay, client=True, auto_relay=True)
    other = nodes.start("other", client=True)
    way = f"{relay.addresses[0]}/p2p-circuit/p2p/{hidden.peer_id}"
    deadline_s = time.monotonic() + 250
    while True:
        try:
            nodes.do(other.connect(way))
            break
        except UnreachableError:
            assert time.monotonic() < deadline_s
            time.sleep(5)

    async def greet(channel):
        await channel.send({"from": channel.remote})

    nodes.do(hidden.transport.serve("/t/greet", greet))
    frame = nodes.do(call(other.transport, hidden.peer_id, "/t/greet", {}, timeout_s=10.0))
    assert frame.header == {"from": other.peer_id}
    assert hidden.peer_id not in relay.dht.nodes
    for node in (relay, hidden, other):
        nodes.do(node.stop())
