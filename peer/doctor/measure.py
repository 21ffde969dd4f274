"""Measures what needs neither torch nor the network. Every function may fail alone."""

import dataclasses
import os
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil

from peer import __version__
from peer.config.address import parse_address
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.control import DEFAULT_METRICS_PORT
from peer.daemon.port import same_port
from peer.doctor import facts
from peer.doctor.facts import Unknown
from peer.errors import ConfigurationError
from peer.run.directory import MANIFEST, RunDirectory
from peer.swarm.listening import check_listened
from peer.swarm.throttle import Line
from peer.swarm.wire import PROTOCOL
from peer.training.haste import serving_bytes_per_s, serving_complaint
from peer.training.muster import Limits

_SHM = Path("/dev/shm")  # noqa: S108 it is looked at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """Whom the doctor looks at.

    Attributes:
        home: Where it keeps everything.
        settings: The volunteer's; the defaults where peer.toml makes no sense.
        settings_problem: What is wrong in peer.toml.
        run_id: The run that ran last, if one did.
        run: It, if it can be opened.
        run_problem: Why it cannot.
        status: What the daemon on the home says; None if none runs.
        peers: Addresses that were given beside those of the settings.
    """

    home: Home
    settings: Settings
    settings_problem: str | None = None
    run_id: str | None = None
    run: RunDirectory | None = None
    run_problem: str | None = None
    status: dict[str, Any] | None = None
    peers: tuple[str, ...] = ()

    @property
    def parameter_bytes(self) -> int | None:
        """The size of the run's parameters in fp32; None if it is not known."""
        found = self.run.find_blob(self.run.manifest.initial_state) if self.run else None
        return found.stat().st_size if found is not None else None


def settings(patient: Patient) -> facts.Settings:
    """Return whether peer.toml makes sense."""
    path = patient.home.settings_path
    return facts.Settings(path=str(path), there=path.exists(), problem=patient.settings_problem)


def python(_patient: Patient) -> facts.Python:
    """Return what interpreter runs."""
    return facts.Python(version=sys.version_info[:3])


def memory(patient: Patient) -> facts.Memory:
    """Return the machine's memory, and what a daemon of ours holds of it."""
    machine = psutil.virtual_memory()
    return facts.Memory(
        total_bytes=machine.total,
        available_bytes=machine.available,
        parameter_bytes=patient.parameter_bytes,
        limit_bytes=patient.settings.limits.memory_bytes,
        used_by_us_bytes=int(patient.status["rss_bytes"]) if patient.status else 0,
    )


def disk(patient: Patient) -> facts.Disk:
    """Return the room on the home's disk."""
    policy = patient.settings.checkpoint
    return facts.Disk(
        free_bytes=shutil.disk_usage(_existing(patient.home.path)).free,
        home_bytes=patient.home.used_bytes(),
        parameter_bytes=patient.parameter_bytes,
        kept=policy.keep + policy.keep_accepted,
        limit_bytes=patient.settings.limits.disk_bytes,
    )


def line(patient: Patient) -> facts.Line:
    """Return what the limits on the line keep the run from."""
    limits, size = patient.settings.limits, patient.parameter_bytes
    up, down = limits.upload_bytes_per_s, limits.download_bytes_per_s
    found = None
    if patient.run is not None and size is not None:
        bounds = Line.of(up, down)
        given = bounds.given(patient.settings.swarm.upload_bytes_per_s)
        codec = patient.run.manifest.averaging.codec
        needed = serving_bytes_per_s(Limits.frame_timeout_s, size // 4, codec)
        found = serving_complaint(bounds.up.bytes_per_s, given.bytes_per_s, needed)
    felt = patient.status["limits"]["felt"] if patient.status else {}
    serving = found[1] if found else None
    return facts.Line(
        upload_bytes_per_s=up,
        download_bytes_per_s=down,
        known=size is not None,
        serving=None if any(serving and serving in words for words in felt.values()) else serving,
        felt=tuple(felt.values()),
    )


def home(patient: Patient) -> facts.Home:
    """Return whether the home can be written; one that is not there is not made."""
    path = patient.home.path
    below = _existing(path)
    problem = None
    if path.exists() and not path.is_dir():
        problem = f"the home {path} is no folder"
    elif not os.access(below, os.W_OK | os.X_OK):
        problem = f"the home {path} cannot be written: {below} does not allow it"
    elif path.exists():
        try:
            patient.home.prepare()
        except ConfigurationError as error:
            problem = str(error)
    mode = path.stat().st_mode if path.exists() else None
    return facts.Home(path=str(path), mode=mode, problem=problem)


def key(patient: Patient) -> facts.Key:
    """Return who may read the private key, and whether it is one."""
    path = patient.home.identity_path
    try:
        status = path.stat()
    except FileNotFoundError:
        return facts.Key(path=str(path), mode=None, ours=True, problem=None)
    from peer.identity import Identity

    problem = None
    try:
        Identity.load_or_create(path)
    except ConfigurationError as error:
        problem = str(error)
    ours = status.st_uid == os.getuid()
    return facts.Key(path=str(path), mode=status.st_mode, ours=ours, problem=problem)


def shm(_patient: Patient) -> facts.SharedMemory:
    """Return the room in /dev/shm."""
    if not _SHM.is_dir():
        return facts.SharedMemory(free_bytes=None, writable=False)
    free_bytes = shutil.disk_usage(_SHM).free
    return facts.SharedMemory(free_bytes=free_bytes, writable=os.access(_SHM, os.W_OK))


def ports(patient: Patient) -> facts.Ports:
    """Return which of the addresses to listen at can be had."""
    metrics, at = patient.settings.metrics, listened(patient)
    # Without a port of its own any will do.
    host = metrics.host if parse_address(f"/ip4/{metrics.host}/tcp/1") else "127.0.0.1"
    if metrics.port:
        at = (*at, f"/ip4/{host}/tcp/{metrics.port}")
    running = patient.status is not None
    problems = {address: None if running else _listening_problem(address) for address in at}
    problems = problems or {f"metrics at port {DEFAULT_METRICS_PORT} or any other": None}
    return facts.Ports(problems=problems, daemon_runs=running)


def listened(patient: Patient) -> tuple[str, ...]:
    """Return the addresses that the next start listens at; none for a client."""
    swarm = patient.settings.swarm
    if not swarm.enabled or swarm.client:
        return ()
    return same_port(swarm.listen, patient.home.port_path)


def _listening_problem(address: str) -> str | None:
    try:
        check_listened([address])
    except ConfigurationError as error:
        return str(error)
    return None


def version(patient: Patient) -> facts.Version | Unknown:
    """Return what this peer speaks, and what the run asks for."""
    if patient.run_id is None:
        return Unknown("no run ran on this home yet")
    asked = PROTOCOL
    problem = patient.run_problem
    try:
        text = (patient.home.run_path(patient.run_id) / MANIFEST).read_text()
        asked = int(tomllib.loads(text)["protocol"])
    except FileNotFoundError:
        return Unknown("the run is not here yet; its peers give it at the first start")
    except (OSError, ValueError, KeyError, TypeError):
        problem = problem or "the run's manifest names no protocol"
    if asked != PROTOCOL:
        problem = None  # that is why it cannot be read
    return facts.Version(
        ctpeer=__version__,
        protocol=PROTOCOL,
        run=patient.run_id,
        run_protocol=asked,
        problem=problem,
    )


def daemon(patient: Patient) -> facts.Daemon:
    """Return what the daemon says of itself."""
    status = patient.status
    if status is None:
        return facts.Daemon(state=None, reason="", restarts=0)
    return facts.Daemon(
        state=str(status["state"]),
        reason=str(status["reason"]),
        restarts=int(status["restarts"]),
    )


def _existing(path: Path) -> Path:
    """Return the nearest folder above `path` that is there, or it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
