"""Examines a peer: every check beside the others, bounded in time, and failing alone."""

import contextlib
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from peer.config.address import parse_address
from peer.config.home import Home
from peer.config.layers import load_settings
from peer.config.settings import Settings
from peer.daemon.client import get_status
from peer.doctor import facts, measure
from peer.doctor.facts import Facts, Unknown
from peer.doctor.measure import Patient
from peer.errors import ConfigurationError, CtpeerError, NotRunningError
from peer.run.directory import RunDirectory
from peer.run.invite import looks_like_invite, parse_invite
from peer.swarm.membership import load_known_peers

_LIGHT_TIMEOUT_S = 10.0
_TORCH_TIMEOUT_S = 90.0
_SWARM_TIMEOUT_S = 120.0
"""Loading hivemind may take most of a minute on a busy machine; the look itself has 40 s."""
_MOST_ADDRESSES = 12
_LAST_WORDS = 200

Measure = Callable[[], object]
_LIGHT: dict[str, Callable[[Patient], object]] = {
    "settings": measure.settings,
    "home": measure.home,
    "key": measure.key,
    "python": measure.python,
    "memory": measure.memory,
    "disk": measure.disk,
    "shm": measure.shm,
    "ports": measure.ports,
    "line": measure.line,
    "version": measure.version,
    "daemon": measure.daemon,
}
_NETWORK = ("peers", "clock", "dht", "dial_back", "bandwidth")


def admit(home: Home, run: str | None, peers: Iterable[str], now_s: float) -> Patient:
    """Return whom to look at; nothing in it is so broken that this fails.

    Args:
        home: The home.
        run: An invite, if one was given; else the run that ran last.
        peers: Addresses that were given.
        now_s: The wall clock.

    Raises:
        UsageError: The invite is none.
        ConfigurationError: The invite has expired.
    """
    settings, settings_problem = Settings(), None
    try:
        settings = load_settings(home.settings_path, {}).settings
    except ConfigurationError as error:
        settings_problem = str(error)
    status = None
    with contextlib.suppress(NotRunningError, CtpeerError):
        status = get_status(home)
    told, run_id = tuple(peers), None
    if run is not None and looks_like_invite(run):
        invite = parse_invite(run, now_s)
        told, run_id = (*told, *invite.addresses), invite.run_id
    elif status is not None:
        run_id = str(status["run_id"])
    else:
        with contextlib.suppress(OSError):
            run_id = home.last_run_path.read_text(errors="replace").strip() or None
    opened, run_problem = None, None
    if run_id is not None and run_id in home.run_ids():
        try:
            opened = RunDirectory.open(home.run_path(run_id))
        except ConfigurationError as error:
            run_problem = str(error)
    return Patient(
        home=home,
        settings=settings,
        settings_problem=settings_problem,
        run_id=run_id,
        run=opened,
        run_problem=run_problem,
        status=status,
        peers=told,
    )


def examine(patient: Patient) -> Facts:
    """Return what was measured, by check; takes as long as the slowest of them."""
    probes: dict[str, tuple[Measure, float]] = {
        name: (functools.partial(look, patient), _LIGHT_TIMEOUT_S) for name, look in _LIGHT.items()
    }
    probes["torch"] = (functools.partial(_torch, patient), _TORCH_TIMEOUT_S + 5.0)
    probes["network"] = (functools.partial(_network, patient), _SWARM_TIMEOUT_S + 5.0)
    found = _together(probes)
    network = found.pop("network")
    if not isinstance(network, Mapping):
        network = dict.fromkeys(_NETWORK, network)
    return {**found, **network}


def _together(probes: Mapping[str, tuple[Measure, float]]) -> dict[str, object]:
    """Run all at once, each in a thread that nobody waits for beyond its time."""
    answers: dict[str, queue.SimpleQueue[object]] = {}
    for name, (look, _) in probes.items():
        answers[name] = queue.SimpleQueue()
        arguments = (look, answers[name])
        threading.Thread(target=_guarded, args=arguments, name=name, daemon=True).start()
    found: dict[str, object] = {}
    for name, (_, timeout_s) in probes.items():
        try:
            found[name] = answers[name].get(timeout=timeout_s)
        except queue.Empty:
            found[name] = Unknown(f"this took over {timeout_s:.0f} s", failed=True)
    return found


def _guarded(look: Measure, answer: "queue.SimpleQueue[object]") -> None:
    try:
        answer.put(look())
    except Exception as error:  # noqa: BLE001 one check that fails is a finding, not the end
        answer.put(Unknown(f"this failed: {error!r}", failed=True))


def _torch(patient: Patient) -> object:
    device = patient.settings.compute.device
    found = _ask("peer.doctor.torch_probe", (device,), "", _TORCH_TIMEOUT_S)
    return found if isinstance(found, Unknown) else facts.Torch(**found)


def _network(patient: Patient) -> Mapping[str, object]:
    """Return the facts about other peers, from one short look at them."""
    addresses, named = _addresses(patient)
    if not patient.settings.swarm.enabled:
        return dict.fromkeys(_NETWORK, Unknown("it trains alone (swarm.enabled = false)"))
    if not addresses:
        return dict.fromkeys(_NETWORK, Unknown("no peer is known; give one with --peers"))
    port, listens = _port(patient)
    task = {
        "addresses": addresses,
        "run_id": patient.run_id,
        "port": port,
        "listens": listens,
    }
    found = _ask("peer.doctor.swarm_probe", (), json.dumps(task), _SWARM_TIMEOUT_S)
    if isinstance(found, Unknown):
        return dict.fromkeys(_NETWORK, found)
    if "problem" in found:
        return dict.fromkeys(_NETWORK, Unknown(str(found["problem"]), failed=True))
    return read_network(found, patient, named, port)


def read_network(
    found: Mapping[str, Any], patient: Patient, named: frozenset[str], port: int | None
) -> Mapping[str, object]:
    """Return the facts in what `peer.doctor.swarm_probe` found."""
    nobody = Unknown("no peer could be reached")
    no_run = Unknown("no run ran on this home yet") if found["ahead_s"] else nobody
    dht: object = no_run
    if "records" in found or "dht_problem" in found:
        dht = facts.Dht(peers=found.get("records", 0), problem=found.get("dht_problem"))
    back = found.get("dial_back") or {}
    up, down = found.get("up_bytes_per_s"), found.get("down_bytes_per_s")
    dial_back: object = no_run if patient.run_id is None or not found["ahead_s"] else None
    bandwidth: object = dial_back
    return {
        "peers": facts.Peers(problems=found["peers"], named=named),
        "clock": facts.Clocks(ahead_s=found["ahead_s"]) if found["ahead_s"] else nobody,
        "dht": dht,
        "dial_back": dial_back
        or facts.DialBack(
            reached=back.get("reached"),
            ip=str(back.get("ip", "")),
            port=int(back.get("port", port or 0)),
            client=patient.settings.swarm.client,
            problem="no peer that was reached could try",
        ),
        "bandwidth": bandwidth
        or facts.Bandwidth(
            up_bytes_per_s=up,
            down_bytes_per_s=down,
            parameter_bytes=patient.parameter_bytes,
        ),
    }


def _addresses(patient: Patient) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the addresses to try, and which of them a person named."""
    named = (*patient.peers, *patient.settings.swarm.peers)
    known = load_known_peers(patient.home.known_peers_path)
    met = [where[0] for where in known.values() if where]
    for peer in (patient.status or {}).get("swarm_peers", []):
        if peer.get("address") and peer.get("state") != "unreachable":
            met.insert(0, peer["address"])
    every = tuple(dict.fromkeys((*named, *met)))[:_MOST_ADDRESSES]
    return every, frozenset(named)


def _port(patient: Patient) -> tuple[int | None, bool]:
    """Return the port at which others should reach this peer, and whether the daemon has it."""
    swarm = patient.settings.swarm
    if swarm.client:
        return None, False
    if patient.status is not None:
        own = [parse_address(address) for address in patient.status["addresses"]]
        return next((a.port for a in own if a is not None and not a.relayed), None), True
    at = [parse_address(a) for a in measure.listened(patient)]
    return next((a.port for a in at if a is not None and a.port), 0), False


def _ask(module: str, arguments: tuple[str, ...], told: str, timeout_s: float) -> Any:
    """Run a probe to its end in a session of its own; nothing of it outlives this."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, words = process.communicate(told, timeout=timeout_s)
        return json.loads(out)
    except subprocess.TimeoutExpired:
        return Unknown(f"this took over {timeout_s:.0f} s", failed=True)
    except ValueError:
        last = " ".join(words.split())[-_LAST_WORDS:]
        return Unknown(f"this failed with code {process.returncode}: {last}", failed=True)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
