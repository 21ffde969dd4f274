"""What the machine does beside us: power, load, whether somebody sits there, time, disk.

It measures and decides nothing; what cannot be measured is None. Linux only, as the daemon.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.manners import Seen

_LOGIND = ("loginctl", "show-seat", "seat0", "-p", "IdleHint", "-p", "IdleSinceHint")
_LOGIND_TIMEOUT_S = 2.0
_POWER = Path("/sys/class/power_supply")
_TERMINALS = (Path("/dev"), Path("/dev/pts"))
_LEAST_S = 1.0
"""Shorter stretches of time say nothing about the load: the kernel counts in hundredths."""


class Senses:
    """Looks at the machine, at what the settings ask for.

    Args:
        home: Whose disk is looked at.
        settings: What is to be looked at.
    """

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self._pause = settings.pause
        self._disk_bytes = settings.limits.disk_bytes
        self._load = OthersLoad()

    @property
    def needed(self) -> bool:
        """Whether anything may ever follow from what is seen."""
        pause = self._pause
        asked = pause.on_battery or pause.when_busy or pause.when_in_use or bool(pause.schedule)
        return asked or self._disk_bytes is not None

    def look(self) -> Seen:
        """Return what is there now; takes up to two seconds where logind does not answer."""
        pause, disk_bytes = self._pause, self._disk_bytes
        local = time.localtime()
        return Seen(
            weekday=local.tm_wday,
            minute=60 * local.tm_hour + local.tm_min,
            on_battery=on_battery() if pause.on_battery else None,
            others_share=self._load.share() if pause.when_busy else None,
            idle_s=idle_s() if pause.when_in_use else None,
            disk_share=None if disk_bytes is None else self._home.used_bytes() / disk_bytes,
        )


class OthersLoad:
    """How much of the machine programs use that are not ours, and not as polite as ours.

    Time that the kernel gave to niced processes counts as free: whoever is that polite waits for
    nobody, another peer of this machine least of all.
    """

    def __init__(self) -> None:
        self._before: tuple[float, float, float] | None = None

    def share(self) -> float | None:
        """Return their share of all cores since the last call, 0.0 to 1.0; None at first."""
        now_s, busy_s, ours_s = time.monotonic(), _busy_s(), _ours_s()
        before = self._before
        if before is not None and now_s - before[0] < _LEAST_S:
            return None
        self._before = now_s, busy_s, ours_s
        if before is None:
            return None
        cores_s = (now_s - before[0]) * (psutil.cpu_count() or 1)
        # Of a process of ours that ended meanwhile the parent's count may come late.
        others_s = (busy_s - before[1]) - max(0.0, ours_s - before[2])
        return min(1.0, max(0.0, others_s / cores_s))


def on_battery(folder: Path = _POWER) -> bool | None:
    """Return whether the machine runs on its battery; None where it has none, or says nothing.

    Source: Documentation/ABI/testing/sysfs-class-power of the kernel.
    """
    mains, batteries = [], []
    for supply in folder.glob("*"):
        kind = _read(supply / "type")
        if kind in ("Mains", "USB") and (online := _read(supply / "online")):
            mains.append(online != "0")
        elif kind == "Battery" and _read(supply / "scope") != "Device":  # a mouse's is a device's
            batteries.append(_read(supply / "status") == "Discharging")
    if not batteries:
        return None
    return any(batteries) and not any(mains)


def idle_s() -> float | None:
    """Return how long nobody has touched the machine; None where nothing tells.

    logind's idle hint, which a desktop sets after its own time, and the last input at any terminal
    (its access time moves when somebody types, not when a program writes).
    """
    now_s = time.time()
    last_s = [seconds for seconds in (_logind_active_s(now_s), *_typed_s()) if seconds is not None]
    return max(0.0, now_s - max(last_s)) if last_s else None


def _logind_active_s(now_s: float) -> float | None:
    """Return when somebody was active by logind's word, in Unix seconds."""
    try:
        done = subprocess.run(
            _LOGIND, capture_output=True, timeout=_LOGIND_TIMEOUT_S, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if done.returncode or "IdleHint" not in said:
        return None
    if said["IdleHint"] == "no":
        return now_s
    with contextlib.suppress(ValueError, LookupError):
        return int(said["IdleSinceHint"]) / 1e6
    return None


def _typed_s() -> Iterator[float]:
    for folder in _TERMINALS:
        pattern = "[0-9]*" if folder.name == "pts" else "tty[1-9]*"
        for terminal in folder.glob(pattern):
            with contextlib.suppress(OSError):
                yield terminal.stat().st_atime


def _busy_s() -> float:
    """Return the time that all cores worked for processes that are not niced, in seconds."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.irq + times.softirq)


def _ours_s() -> float:
    """Return the part of it that this process and all that it started took."""
    total_s = 0.0
    with contextlib.suppress(psutil.Error):
        ours = psutil.Process()
        for process in (ours, *ours.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total_s += times.system + times.children_system
                if process.nice() <= 0:
                    total_s += times.user + times.children_user
    return total_s


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
