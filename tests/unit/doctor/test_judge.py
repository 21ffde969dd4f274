"""What follows from what was measured."""

import dataclasses

import pytest

from peer.doctor import facts
from peer.doctor.facts import Unknown
from peer.doctor.judge import CHECKS, Level, is_good, judge

GB, MB = 10**9, 10**6

GOOD = {
    "settings": facts.Settings(path="/h/peer.toml", there=True, problem=None),
    "home": facts.Home(path="/h", mode=0o40700, problem=None),
    "key": facts.Key(path="/h/identity.key", mode=0o100600, ours=True, problem=None),
    "python": facts.Python(version=(3, 11, 7)),
    "torch": facts.Torch(
        version="2.6", device="cuda:0", name="A100", free_bytes=40 * GB, problem=None
    ),
    "memory": facts.Memory(
        total_bytes=16 * GB,
        available_bytes=8 * GB,
        parameter_bytes=500 * MB,
        limit_bytes=None,
        used_by_us_bytes=0,
    ),
    "disk": facts.Disk(
        free_bytes=100 * GB, home_bytes=GB, parameter_bytes=500 * MB, kept=8, limit_bytes=None
    ),
    "shm": facts.SharedMemory(free_bytes=64 * MB, writable=True),
    "ports": facts.Ports(problems={"/ip4/0.0.0.0/tcp/31337": None}, daemon_runs=False),
    "line": facts.Line(
        upload_bytes_per_s=1e6, download_bytes_per_s=None, known=True, serving=None, felt=()
    ),
    "version": facts.Version(ctpeer="1", protocol=1, run="r", run_protocol=1, problem=None),
    "daemon": facts.Daemon(state="training", reason="gathering", restarts=0),
    "peers": facts.Peers(problems={"a": None, "b": None}, named=frozenset("a")),
    "clock": facts.Clocks(ahead_s={"A": 0.1, "B": -0.2}),
    "dht": facts.Dht(peers=2, problem=None),
    "dial_back": facts.DialBack(
        reached=True, ip="203.0.113.7", port=31337, client=False, problem=None
    ),
    "bandwidth": facts.Bandwidth(
        up_bytes_per_s=2e6, down_bytes_per_s=9e6, parameter_bytes=500 * MB
    ),
}


def finding(check, **changes):
    """Return what follows when one fact is otherwise."""
    facts_ = GOOD | {check: dataclasses.replace(GOOD[check], **changes)}
    return next(f for f in judge(facts_) if f.check == check)


def test_a_peer_in_good_order_has_nothing_to_mend():
    findings = judge(GOOD)
    assert [f.check for f in findings] == list(CHECKS)
    assert {f.level for f in findings} == {Level.OK}
    assert all(f.found and f.fix is None for f in findings)
    assert is_good(findings)


def test_what_was_not_measured_is_skipped_with_its_reason_and_is_not_bad():
    findings = judge({"peers": Unknown("no peer is known")})
    assert {f.level for f in findings} == {Level.SKIPPED}
    assert next(f for f in findings if f.check == "peers").found == "no peer is known"
    assert is_good(findings)


def test_what_could_not_be_measured_is_a_warning():
    findings = judge(GOOD | {"torch": Unknown("this took over 90 s", failed=True)})
    (torch,) = (f for f in findings if f.check == "torch")
    assert (torch.level, torch.found) == (Level.WARN, "this took over 90 s")
    assert torch.fix
    assert is_good(findings)


BAD = [
    ("settings", {"problem": "the field thread is unknown"}, "unknown", "/h/peer.toml"),
    ("home", {"problem": "no"}, "no", "another --home"),
    ("home", {"mode": 0o40777}, "anybody", "chmod 700"),
    ("key", {"mode": 0o100644}, "mode 644", "chmod 600"),
    ("key", {"ours": False}, "another user", "chown"),
    ("key", {"problem": "no key"}, "no key", "restore"),
    ("python", {"version": (3, 10, 1)}, "3.10.1", "3.11"),
    ("python", {"version": (3, 14, 0)}, "3.14.0", "3.13"),
    ("torch", {"problem": "no CUDA"}, "no CUDA", "--device"),
    ("memory", {"total_bytes": 4 * GB}, "needs about 4,500 MB", "smaller model"),
    ("memory", {"limit_bytes": 2e9}, "allows 2,000 MB", "limits.memory_mb"),
    ("disk", {"free_bytes": 2 * GB}, "3,200 MB is the least", "free some space"),
    ("disk", {"limit_bytes": 5e8}, "allows 500 MB", "gc"),
    ("ports", {"problems": {"a": "another program uses that port"}}, "another", "--listen"),
    ("version", {"run_protocol": 2}, "asks for 2", "a newer ctpeer"),
    ("version", {"protocol": 2}, "asks for 1", "an older ctpeer"),
    ("version", {"problem": "the manifest is damaged"}, "damaged", "fresh invite"),
    ("peers", {"problems": {"a": "refused", "b": "refused"}}, "0 of 2", "fresh invite"),
    ("clock", {"ahead_s": {"A": 60.0, "B": 61.0}}, "61 s behind", "timedatectl"),
    ("clock", {"ahead_s": {"A": -3600.0}}, "3,600 s ahead of", "timedatectl"),
    ("dht", {"problem": "no node answered"}, "no node", "--peers"),
]
WORRYING = [
    ("memory", {"available_bytes": 2 * GB}, "2,000 MB of", "end other programs"),
    ("disk", {"free_bytes": 5 * GB}, "are to be kept|to be kept", "checkpoint.keep"),
    ("shm", {"free_bytes": None}, "not there", "shm-size"),
    ("shm", {"free_bytes": MB}, "1 MB", "shm-size"),
    ("line", {"serving": "an upload limit is too low"}, "too low", "raise that limit"),
    ("line", {"felt": ("too low for a group of 4",)}, "group of 4", "needs less"),
    ("daemon", {"state": "restarting"}, "restarting", "logs"),
    ("daemon", {"restarts": 3}, "3 restarts", "logs"),
    ("peers", {"problems": {"a": "refused", "b": None}}, "1 of 2", "swarm.peers"),
    ("dht", {"peers": 0}, "no peer", "the run you want"),
    ("dial_back", {"reached": False}, "could not dial 203.0.113.7", "--client"),
    ("bandwidth", {"up_bytes_per_s": 1e5}, "0.1 MB/s up", "--client"),
]


@pytest.mark.parametrize(("check", "changes", "words", "fix"), BAD)
def test_what_must_be_mended_is_bad_and_says_how(check, changes, words, fix):
    found = finding(check, **changes)
    assert found.level is Level.BAD
    assert words in found.found
    assert fix in found.fix
    assert not is_good([found])


@pytest.mark.parametrize(("check", "changes", "words", "fix"), WORRYING)
def test_what_may_be_mended_is_a_warning_and_says_how(check, changes, words, fix):
    found = finding(check, **changes)
    assert found.level is Level.WARN
    assert any(part in found.found for part in words.split("|"))
    assert fix in found.fix


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("key", {"mode": None}),
        ("settings", {"there": False}),
        ("memory", {"available_bytes": 2 * GB, "used_by_us_bytes": 4 * GB}),
        ("memory", {"parameter_bytes": None, "total_bytes": GB}),
        ("peers", {"problems": {"a": None, "b": "refused"}}),  # b was met before, and went
        ("clock", {"ahead_s": {"A": 0.0, "B": 0.1, "C": 3600.0}}),  # theirs is wrong
        ("line", {"known": False}),
        ("line", {"upload_bytes_per_s": None}),
        ("daemon", {"state": None}),
        ("dial_back", {"client": True, "reached": None}),
        ("bandwidth", {"up_bytes_per_s": None}),
    ],
)
def test_what_only_looks_wrong_is_in_order(check, changes):
    assert finding(check, **changes).level is Level.OK


def test_a_port_that_is_any_free_one_is_said_to_be():
    found = finding("ports", problems={"/ip4/0.0.0.0/tcp/0": None})
    assert found.found == "/ip4/0.0.0.0/tcp/0 (any port): free"


def test_every_check_is_judged_by_a_fact_of_these_tests():
    assert set(GOOD) == set(CHECKS)
