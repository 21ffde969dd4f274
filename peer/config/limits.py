"""The sections of peer.toml about what a peer takes of its machine, and when it rests.

A MB is a million bytes. What is not given is not bounded.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from peer.config.schedule import Window, parse_window
from peer.config.section import Section

MB = 1_000_000

Rate = Annotated[float, Field(ge=0.1, le=1e6, allow_inf_nan=False)]


def _window(text: str) -> str:
    parse_window(text)
    return text


class LimitSettings(Section):
    """The most that this peer takes; `compute.threads` bounds its cores.

    Attributes:
        memory_mb: What the worker and all that it starts take of the memory; mapped files, which
            the kernel takes back when it needs the room, do not count on Linux.
        disk_mb: What lies in the home.
        upload_mb_per_s: All that goes to other peers, measured on the wire.
        download_mb_per_s: All that comes from them.
        nice: How far the worker stands back behind other programs, as nice(1) counts it.
        batch: Whether the kernel may take the worker for a long computation that nobody waits for
            (SCHED_BATCH, sched(7)).
    """

    memory_mb: float | None = Field(default=None, ge=100.0, le=1e9, allow_inf_nan=False)
    disk_mb: float | None = Field(default=None, ge=10.0, le=1e12, allow_inf_nan=False)
    upload_mb_per_s: Rate | None = None
    download_mb_per_s: Rate | None = None
    nice: int = Field(default=10, ge=0, le=19)
    batch: bool = True

    @property
    def memory_bytes(self) -> float | None:
        """`memory_mb` in bytes."""
        return _bytes(self.memory_mb)

    @property
    def disk_bytes(self) -> float | None:
        """`disk_mb` in bytes."""
        return _bytes(self.disk_mb)

    @property
    def upload_bytes_per_s(self) -> float | None:
        """`upload_mb_per_s` in bytes."""
        return _bytes(self.upload_mb_per_s)

    @property
    def download_bytes_per_s(self) -> float | None:
        """`download_mb_per_s` in bytes."""
        return _bytes(self.download_mb_per_s)


class PauseSettings(Section):
    """When training rests by itself.

    Attributes:
        on_battery: Whether it rests while the machine runs on its battery.
        when_busy: Whether it rests while other programs need the machine.
        busy_percent: From which share of all cores on they do.
        when_in_use: Whether it rests while somebody sits at the machine.
        idle_s: How long nobody must have touched it.
        calm_s: How long a battery, or other programs, must have given no reason before it goes on.
        schedule: When it may train, in local time; always if empty.
    """

    on_battery: bool = True
    when_busy: bool = False
    busy_percent: float = Field(default=50.0, ge=5.0, le=100.0, allow_inf_nan=False)
    when_in_use: bool = False
    idle_s: float = Field(default=180.0, ge=10.0, le=86_400.0, allow_inf_nan=False)
    calm_s: float = Field(default=60.0, ge=1.0, le=86_400.0, allow_inf_nan=False)
    schedule: tuple[Annotated[str, AfterValidator(_window)], ...] = Field(default=(), max_length=64)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The schedule, parsed."""
        return tuple(map(parse_window, self.schedule))


def _bytes(megabytes: float | None) -> float | None:
    return None if megabytes is None else megabytes * MB
