"""`ctpeer-monitor`: a process of its own before a real DHT, in calm and in a flood of junk."""

import itertools
import json
import shutil
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue

from monitoring.findings import MAX_NEWCOMERS
from peer.identity import Identity
from peer.swarm.records import key_of, seal
from peer.swarm.validator import pack

# Tests are no package: what several modules of them need is found beside this file.
sys.path.append(str(Path(__file__).parent))

from monitored import EPOCHS, METRICS, start_monitor, status, swarm

__all__ = ["start_monitor", "swarm"]

LIGHT = """
import json, sys
import monitoring.main
started = "hivemind" in sys.modules
import monitoring.service, torch
print(json.dumps([started, "transformers" in sys.modules, torch.cuda.is_initialized()]))
"""
JUNK = 1000
PAGES = ("/metrics", "/sd", "/swarm", "/leaderboard", "/verdicts", "/healthz")

pytestmark = pytest.mark.timeout(300)


def flood(swarm, attacker):
    """Put records of a thousand fresh keys, and keep a thousand more that are forged."""
    identities = list(itertools.islice(fresh_identities(), JUNK))
    for kind in ("peer", "status"):
        good, bad = [], DictionaryDHTValue()
        key, expires_s = DHTID.generate(key_of(swarm.run_id, kind)), time.time() + 110
        for identity in identities:
            body = (
                swarm.here(swarm.one, epoch=10**9, version="6.6.6")
                if kind == "peer"
                else status(
                    tokens_per_s=1e12,
                    loss_nats=-1e6,
                    epoch=EPOCHS - 1,
                    root="6" * 16,
                    metrics=METRICS,
                )
            )
            data = seal(identity, swarm.run_id, kind, 2**52, expires_s, body)
            good.append((identity.peer_id, pack(data)))
            forged = data.replace(b'"client":false', b'"client":true')
            forged = forged.replace(b'"failed":1', b'"failed":2')
            bad.store(identity.peer_id, pack(forged), expires_s)
            if len(good) % 2:
                bad.store(swarm.one.peer_id + str(len(good)), pack(data), expires_s)
        bad.maxsize = 10_000
        attacker.protocol.storage.store(key, bad, expires_s)
        for node in swarm.peers:
            target = attacker.p2p.peer_id.from_base58(node.peer_id)
            for batch in batches(good, 50):
                subkeys, values = map(list, zip(*batch, strict=True))
                store = attacker.protocol.call_store(
                    target, [key] * len(batch), values, [expires_s] * len(batch), subkeys
                )
                assert all(swarm.nodes.do(store)), "honest nodes take what is signed"


def batches(items, size):
    return [items[at : at + size] for at in range(0, len(items), size)]


def fresh_identities():
    """Yield new keys by the hundred: of 46 primes, any two make one."""
    primes = []
    for _ in range(23):
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        primes += [numbers.p, numbers.q]
    for p, q in itertools.combinations(primes, 2):
        if (p * q).bit_length() != 2048:
            continue
        d = pow(65537, -1, (p - 1) * (q - 1))
        private = rsa.RSAPrivateNumbers(
            p=p,
            q=q,
            d=d,
            dmp1=rsa.rsa_crt_dmp1(d, p),
            dmq1=rsa.rsa_crt_dmq1(d, q),
            iqmp=rsa.rsa_crt_iqmp(p, q),
            public_numbers=rsa.RSAPublicNumbers(65537, p * q),
        )
        yield Identity(private.private_key(unsafe_skip_rsa_key_validation=True))


@pytest.fixture(scope="module")
def monitor(start_monitor, swarm, swarm_tools):
    """Return a monitor that has seen all; private targets are allowed."""
    monitor = start_monitor("--allow-private")
    swarm.speak()
    swarm_tools.wait_until(lambda: monitor.scrape().get("claims") == 10, 60)
    return monitor


@pytest.fixture(scope="module")
def strict(start_monitor, swarm, swarm_tools):
    """Return a monitor as it is by default."""
    strict = start_monitor()
    swarm.speak()
    swarm_tools.wait_until(lambda: strict.scrape()['records{kind="status"}'] >= 2, 60)
    return strict


def test_it_sees_peers_certificates_and_shards(monitor, swarm):
    seen = monitor.scrape()
    assert seen["peers"] == 2
    assert (seen["epoch"], seen["certificates"], seen["generation"]) == (EPOCHS, EPOCHS, 0)
    assert (seen["branches"], seen["group_peers"], seen["epoch_spread"]) == (1, 2, 0)
    assert seen['peers_by_state{state="training"}'] == 2
    assert (seen["shards_claimed"], seen["claims"]) == (5, 10)
    assert seen["self_reported_tokens_per_second"] == 2000
    baselines = json.loads(monitor.get("/swarm"))["heldout_baselines"]
    assert baselines == swarm.run.manifest.evaluation.baselines
    board = json.loads(monitor.get("/leaderboard"))
    assert {p["peer_id"]: p["loss_terms"] for p in board["peers"]} == {
        node.peer_id: 100 * EPOCHS for node in swarm.peers
    }
    assert json.loads(monitor.get("/verdicts"))["verdicts"] == []
    assert json.loads(monitor.get("/healthz"))["ok"]


def test_only_the_peer_that_opted_in_is_a_target(monitor, swarm):
    assert json.loads(monitor.get("/sd")) == [
        {"targets": [METRICS], "labels": {"run": swarm.run_id, "peer_id": swarm.one.peer_id}}
    ]


def test_by_default_no_private_address_is_a_target(strict):
    assert json.loads(strict.get("/sd")) == []
    assert strict.scrape()['targets_refused{reason="private"}'] == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about(monitor):
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=monitor.get("/metrics"),
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_foreign_host_is_refused(monitor):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        monitor.get("/metrics", Host="evil.example")


def test_it_stays_light(monitor):
    (p2pd,) = monitor.p2pd
    rss = psutil.Process(monitor.process.pid).memory_info().rss
    assert rss < 400e6
    assert p2pd.memory_info().rss < 100e6
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert json.loads(done.stdout) == [False, False, False]


@pytest.mark.slow
def test_in_a_flood_of_junk_it_answers_at_once_with_the_real_peers_right(
    monitor, start_monitor, swarm, nodes, swarm_tools
):
    swarm.speak()
    swarm_tools.wait_until(lambda: monitor.scrape()["self_reported_tokens_per_second"] == 2000, 30)
    calm = monitor.scrape()
    attacker = nodes.raw(swarm.one)
    flood(swarm, attacker)
    swarm.speak()
    longest_s, newcomers, refused, dropped = 0.0, 0.0, 0.0, 0.0
    deadline_s = time.monotonic() + 30
    # The first crawl may find a part of the flood.
    while time.monotonic() < deadline_s and not (
        dropped >= JUNK - MAX_NEWCOMERS and refused >= JUNK
    ):
        for page in PAGES:
            began_s = time.monotonic()
            monitor.get(page)
            longest_s = max(longest_s, time.monotonic() - began_s)
        seen = monitor.scrape()
        newcomers = seen["newcomers"]
        refused = sum(v for k, v in seen.items() if k.startswith("records_refused"))
        dropped = seen['records_dropped_total{kind="status"}']
        for name in ("peers", "epoch", "branches", "self_reported_tokens_per_second", "targets"):
            assert seen[name] == calm[name], name
        assert seen["self_reported_loss_nats"] == 4.0
        assert seen["epoch_spread"] == 0
        assert 'peers_by_version{version="6.6.6"}' not in seen
    assert newcomers == MAX_NEWCOMERS
    assert refused >= JUNK
    assert seen['records_refused_total{reason="signature"}'] >= 1
    assert dropped >= JUNK - MAX_NEWCOMERS
    assert longest_s < 1.0
    late = start_monitor("--allow-private")  # who knows nobody but one peer's address
    swarm_tools.wait_until(lambda: late.scrape()['crawls_total{result="complete"}'] > 0, 60)
    assert late.scrape()["peers"] == 2
    assert late.scrape()["epoch"] == EPOCHS
    assert json.loads(monitor.get("/healthz"))["ok"]


@pytest.mark.slow
def test_its_p2pd_is_replaced_and_a_signal_ends_all(strict, swarm_tools):
    monitor = strict
    (old,) = monitor.p2pd
    old.kill()
    swarm_tools.wait_until(lambda: monitor.scrape()["node_restarts_total"] == 1, 30)
    swarm_tools.wait_until(lambda: monitor.scrape()["node_up"] == 1, 60)
    (new,) = monitor.p2pd
    assert new.pid != old.pid
    monitor.process.terminate()
    assert monitor.process.wait(20) == 0
    assert not swarm_tools.alive(new.pid)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nonsense",), 2, "is neither an invite"),
        (("tiny-" + "0" * 32,), 78, "give an invite in place of the run"),
        (("tiny-" + "0" * 32, "--peers", "nonsense"), 78, "is no address of a peer"),
        (("--interval", "0", "x"), 2, "not in the range"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, code, words):
    command = [sys.executable, "-m", "monitoring", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_taken_port_is_one_clear_sentence(monitor, swarm):
    address = monitor.url.removeprefix("http://")
    command = [sys.executable, "-m", "monitoring", swarm.run_id, "--listen", address]
    peers = ["--peers", swarm.one.addresses[0]]
    done = subprocess.run([*command, *peers], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].endswith("choose another address with --listen")
