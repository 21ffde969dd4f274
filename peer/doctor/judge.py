"""What follows from what was measured: findings, each with what mends it. Pure."""

import dataclasses
import stat
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from peer.doctor import facts
from peer.doctor.facts import Facts, Unknown
from peer.swarm.records import CLOCK_TOLERANCE_S

_BASE_BYTES = 500e6
_COPIES_IN_MEMORY = 8
"""Model, gradient, state, two optimizer slots, contribution, the coming and the last average."""
_COPIES_ON_DISK = 3
"""Parameters and two optimizer slots."""
_LEAST_FREE_BYTES = 200e6
_LEAST_SHM_BYTES = 16e6
_SLOWEST_BYTES_PER_S = 250e3
_SHOWN = 3


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: what was found, in words, and what mends it."""

    check: str
    level: Level
    found: str
    fix: str | None = None


_Judged = tuple[Level, str, str | None]


def judge(found: Facts) -> list[Finding]:
    """Return a finding for each check, in the order of `CHECKS`."""
    return [Finding(check, *_judge(check, found.get(check))) for check in CHECKS]


def is_good(findings: list[Finding]) -> bool:
    """Return whether nothing is bad; warnings may be there."""
    return all(finding.level is not Level.BAD for finding in findings)


def _judge(check: str, fact: object) -> _Judged:
    if fact is None:
        return Level.SKIPPED, "not measured", None
    if isinstance(fact, Unknown):
        level = Level.WARN if fact.failed else Level.SKIPPED
        fix = (
            "run it again; if it stays so, look whether the machine is overloaded"
            if fact.failed
            else None
        )
        return level, fact.reason, fix
    return CHECKS[check](fact)


def _settings(fact: facts.Settings) -> _Judged:
    if fact.problem is not None:
        return Level.BAD, fact.problem, f"mend it in {fact.path}, or in the environment"
    return _ok(f"{fact.path} makes sense" if fact.there else "the defaults; there is no peer.toml")


def _python(fact: facts.Python) -> _Judged:
    text = ".".join(map(str, fact.version))
    if not (3, 11) <= fact.version[:2] < (3, 14):
        return Level.BAD, f"Python {text}", "install ctpeer with Python 3.11, 3.12 or 3.13"
    return _ok(f"Python {text}")


def _torch(fact: facts.Torch) -> _Judged:
    if fact.problem is not None:
        fix = "choose another device with --device (compute.device), or mend torch's installation"
        return Level.BAD, fact.problem, fix
    text = f"torch {fact.version} on {fact.device}"
    text += f" ({fact.name})" if fact.name else ""
    return _ok(text + (f", {_mb(fact.free_bytes)} free on it" if fact.free_bytes else ""))


def _memory(fact: facts.Memory) -> _Judged:
    text = f"{_mb(fact.available_bytes)} of {_mb(fact.total_bytes)} available"
    if fact.parameter_bytes is None:
        return _ok(text)
    needed = _BASE_BYTES + _COPIES_IN_MEMORY * fact.parameter_bytes
    text += f"; the run needs about {_mb(needed)}"
    if fact.total_bytes < needed:
        return Level.BAD, text, "join a run with a smaller model, or use a machine with more memory"
    if fact.limit_bytes is not None and fact.limit_bytes < needed:
        fix = "raise limits.memory_mb, or join a run with a smaller model"
        return Level.BAD, f"{text}, limits.memory_mb allows {_mb(fact.limit_bytes)}", fix
    if fact.available_bytes + fact.used_by_us_bytes < needed:
        return Level.WARN, text, "end other programs, or set limits.memory_mb"
    return _ok(text)


def _disk(fact: facts.Disk) -> _Judged:
    text = f"{_mb(fact.free_bytes)} free, the home takes {_mb(fact.home_bytes)}"
    one = _COPIES_ON_DISK * (fact.parameter_bytes or 0)
    # A new checkpoint is written before an old one is dropped.
    least, wanted = _LEAST_FREE_BYTES + 2 * one, _LEAST_FREE_BYTES + (fact.kept + 1) * one
    if fact.limit_bytes is not None and fact.home_bytes > fact.limit_bytes:
        text += f", limits.disk_mb allows {_mb(fact.limit_bytes)}"
        return Level.BAD, text, "raise limits.disk_mb, or drop with `ctpeer checkpoint gc`"
    if fact.free_bytes < least:
        text += f"; {_mb(least)} is the least"
        return Level.BAD, text, "free some space, or choose another --home"
    if fact.free_bytes + fact.home_bytes < wanted:
        text += f"; all checkpoints to be kept take about {_mb(wanted)}"
        return Level.WARN, text, "free some space, or lower checkpoint.keep and keep_accepted"
    return _ok(text)


def _home(fact: facts.Home) -> _Judged:
    if fact.problem is not None:
        return Level.BAD, fact.problem, "mend its permissions, or choose another --home"
    if fact.mode is not None and fact.mode & stat.S_IWOTH:
        return Level.BAD, f"anybody may write to {fact.path}", f"chmod 700 {fact.path}"
    return _ok(f"{fact.path} can be written")


def _key(fact: facts.Key) -> _Judged:
    if fact.problem is not None:
        return Level.BAD, fact.problem, "restore it, or delete it to become another peer"
    if fact.mode is None:
        return _ok("none yet; the first start makes one")
    if fact.mode & 0o077:
        text = f"others may read or change {fact.path} (mode {fact.mode & 0o777:o})"
        return Level.BAD, text, f"chmod 600 {fact.path}; if it may have been copied, delete it"
    if not fact.ours:
        return Level.BAD, f"{fact.path} belongs to another user", "chown it, or start as that user"
    return _ok(f"{fact.path} is its owner's alone")


def _shm(fact: facts.SharedMemory) -> _Judged:
    fix = "mount a tmpfs at /dev/shm; in a container give it --shm-size"
    if fact.free_bytes is None or not fact.writable:
        return Level.WARN, "it is not there, or cannot be written", fix
    if fact.free_bytes < _LEAST_SHM_BYTES:
        return Level.WARN, f"{_mb(fact.free_bytes)} free in /dev/shm", fix
    return _ok(f"{_mb(fact.free_bytes)} free")


def _ports(fact: facts.Ports) -> _Judged:
    for problem in fact.problems.values():
        if problem is not None:
            fix = "end that program, or choose another with --listen or --metrics-port"
            return Level.BAD, problem, fix
    where = ", ".join(f"{at} (any port)" if at.endswith("/tcp/0") else at for at in fact.problems)
    return _ok(f"{where}: held by the daemon" if fact.daemon_runs else f"{where}: free")


def _line(fact: facts.Line) -> _Judged:
    if words := "; ".join((*filter(None, (fact.serving,)), *fact.felt)):
        return Level.WARN, words, "raise that limit, or join a run that needs less"
    rates = {"up": fact.upload_bytes_per_s, "down": fact.download_bytes_per_s}
    allowed = [f"{rate / 1e6:,.2f} MB/s {way}" for way, rate in rates.items() if rate is not None]
    text = f"limits allow {' and '.join(allowed)}" if allowed else "nothing limits it"
    return _ok(text if not allowed or fact.known else f"{text}; what the run needs is not known")


def _version(fact: facts.Version) -> _Judged:
    if fact.problem is not None:
        return Level.BAD, fact.problem, "get the run again with a fresh invite"
    text = f"ctpeer {fact.ctpeer} speaks protocol {fact.protocol}"
    if fact.run_protocol != fact.protocol:
        text += f", the run {fact.run} asks for {fact.run_protocol}"
        newer = fact.run_protocol > fact.protocol
        return Level.BAD, text, f"install {'a newer' if newer else 'an older'} ctpeer for this run"
    return _ok(f"{text}, as the run {fact.run} does")


def _daemon(fact: facts.Daemon) -> _Judged:
    if fact.state is None:
        return _ok("no daemon runs on this home")
    text = f"{fact.state}: {fact.reason}"
    if fact.state in ("failed", "restarting"):
        return Level.WARN, text, "see `ctpeer logs`"
    if fact.restarts:
        return Level.WARN, f"{text}; {fact.restarts} restarts of the worker", "see `ctpeer logs`"
    return _ok(text)


def _peers(fact: facts.Peers) -> _Judged:
    bad = {address: why for address, why in fact.problems.items() if why is not None}
    text = f"{len(fact.problems) - len(bad)} of {len(fact.problems)} known addresses answer"
    if not bad:
        return _ok(text)
    text += "; " + "; ".join(f"{bad[address]}" for address in sorted(bad)[:_SHOWN])
    if len(bad) == len(fact.problems):
        fix = "check the network and the firewall's outgoing rules, or ask for a fresh invite"
        return Level.BAD, text, fix
    if fact.named & set(bad):
        return Level.WARN, text, "take that address out of --peers or swarm.peers, or mend it there"
    return Level.OK, text, None  # peers come and go


def _dht(fact: facts.Dht) -> _Judged:
    if fact.problem is not None:
        return Level.BAD, fact.problem, "check the network; name another peer with --peers"
    if not fact.peers:
        return Level.WARN, "no peer of the run has a record", "check that this is the run you want"
    return _ok(
        f"{fact.peers} {'peer has' if fact.peers == 1 else 'peers have'} a record of the run"
    )


def _clock(fact: facts.Clocks) -> _Judged:
    far = sorted(abs(s) for s in fact.ahead_s.values() if abs(s) > CLOCK_TOLERANCE_S)
    if 2 * len(far) > len(fact.ahead_s):
        ahead_s = sorted(fact.ahead_s.values())[len(fact.ahead_s) // 2]
        where = "behind" if ahead_s > 0 else "ahead of"
        text = f"this machine's clock is {abs(ahead_s):,.0f} s {where} that of most peers"
        return Level.BAD, text, "set it, for instance with `timedatectl set-ntp true`"
    most_s = max(map(abs, fact.ahead_s.values()))
    text = f"at most {most_s:.1f} s from {len(fact.ahead_s)} peers"
    if far:
        return Level.OK, f"{text}; the clock of {len(far)} of them is wrong, ours is not", None
    return _ok(text)


def _dial_back(fact: facts.DialBack) -> _Judged:
    if fact.client:
        return _ok("a client listens nowhere (swarm.client), and is reached over others")
    if fact.reached is None:
        return Level.SKIPPED, fact.problem or "no peer could try", None
    at = f"{fact.ip} port {fact.port}"
    if fact.reached:
        return _ok(f"another peer dialled {at}")
    fix = (
        f"forward port {fact.port} in your router and firewall and give it with --announce, or "
        "start with --client"
    )
    return Level.WARN, f"another peer could not dial {at}", fix


def _bandwidth(fact: facts.Bandwidth) -> _Judged:
    rates = {"up": fact.up_bytes_per_s, "down": fact.down_bytes_per_s}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if not known:
        return Level.SKIPPED, "no peer could be measured with", None
    text = ", ".join(f"{rate / 1e6:,.1f} MB/s {name}" for name, rate in known.items())
    if fact.parameter_bytes:
        slowest_s = 2 * fact.parameter_bytes / min(known.values())
        text += f"; a round takes about {max(1, round(slowest_s)):,} s with an fp32 codec"
    if min(known.values()) < _SLOWEST_BYTES_PER_S:
        return Level.WARN, text, "start with --client; runs with a smaller codec need less"
    return _ok(text)


CHECKS: dict[str, Callable[[Any], _Judged]] = {
    "settings": _settings,
    "home": _home,
    "key": _key,
    "python": _python,
    "torch": _torch,
    "memory": _memory,
    "disk": _disk,
    "shm": _shm,
    "ports": _ports,
    "line": _line,
    "version": _version,
    "daemon": _daemon,
    "peers": _peers,
    "clock": _clock,
    "dht": _dht,
    "dial_back": _dial_back,
    "bandwidth": _bandwidth,
}
"""Name of a check -> what follows from its fact."""


def _ok(text: str) -> _Judged:
    return Level.OK, text, None


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
