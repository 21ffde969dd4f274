"""What a doctor measures. A check that could not measure has no fact, but the reason for that."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Why something was not measured; `failed` if it should have been."""

    reason: str
    failed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """peer.toml; `problem` is the sentence about what is wrong in it."""

    path: str
    there: bool
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Python:
    """The interpreter's version."""

    version: tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Torch:
    """The device as the worker would take it; `problem` where it cannot."""

    version: str
    device: str
    name: str
    free_bytes: int | None
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The machine's memory, in bytes; `parameter_bytes` of the run's model in fp32."""

    total_bytes: int
    available_bytes: int
    parameter_bytes: int | None
    limit_bytes: float | None
    used_by_us_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk below the home; `kept` is how many checkpoints the policy keeps at most."""

    free_bytes: int
    home_bytes: int
    parameter_bytes: int | None
    kept: int
    limit_bytes: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Home:
    """The home; `problem` is why it cannot be used."""

    path: str
    mode: int | None
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """The private key; `mode` is None where there is none yet."""

    path: str
    mode: int | None
    ours: bool
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedMemory:
    """POSIX shared memory; `free_bytes` is None where it is not there."""

    free_bytes: int | None
    writable: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ports:
    """What is listened at: address -> why it cannot be had, or None; held by the daemon or free."""

    problems: Mapping[str, str | None]
    daemon_runs: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Why the limits on the line are too low for the run, in words.

    `felt` says so of the daemon's rounds, `serving` of what others fetch; `known` is whether the
    run's model is here.
    """

    upload_bytes_per_s: float | None
    download_bytes_per_s: float | None
    known: bool
    serving: str | None
    felt: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """What this peer speaks, and what the run's manifest asks for."""

    ctpeer: str
    protocol: int
    run: str
    run_protocol: int
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Daemon:
    """The daemon on this home, if one runs."""

    state: str | None
    reason: str
    restarts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peers:
    """Which of the addresses that are known answered: address -> why not, or None.

    `named` are those that a person gave; the others were met before.
    """

    problems: Mapping[str, str | None]
    named: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dht:
    """How many peers of the run have a record in the DHT; `problem` where it does not answer."""

    peers: int
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clocks:
    """By how many seconds the clock of each peer is ahead of ours."""

    ahead_s: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialBack:
    """Whether a peer could dial us, where it sees us, and at which port; a client has none."""

    reached: bool | None
    ip: str
    port: int
    client: bool
    problem: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """Bytes a second to and from one peer; None where it was not measured."""

    up_bytes_per_s: float | None
    down_bytes_per_s: float | None
    parameter_bytes: int | None


Facts = Mapping[str, object]
"""By the name of the check: its fact, or an `Unknown`."""
