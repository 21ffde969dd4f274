"""What the daemon costs: tokens per second of a lone peer against a bare PyTorch loop.

Both run the demo model as processes of their own, in turn, with the same batch, micro-batch and
threads. Ours is the real worker, its DHT up and looking for peers, with rounds, certificates,
roots, evaluation and checkpoints;
it is timed from its first committed epoch to its last. The rival knows none of these: forward,
backward, clip, torch's AdamW, on token rows that lie in memory.

    python -m benchmarks.overhead --json
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import report, show
from peer.config.home import Home
from peer.config.settings import Settings
from peer.events import Begin, CheckpointWritten, Evaluated, Message, Progress, RoundCommitted
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory

MICRO_BATCH = 16
WARMUP_EPOCHS = 10
_RUN_TIMEOUT_S = 300.0
_INTERVAL_S = 8.0
"""Shorter than by default, so that the measure holds checkpoints and evaluations."""


def main() -> None:
    """Run the pairs and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=5, help="pairs (default 5)")
    parser.add_argument("--epochs", type=int, default=120, help="epochs a run (default 120)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    options = parser.parse_args()
    ours: list[dict[str, Any]] = []
    rival: list[dict[str, Any]] = []
    for pair in range(options.runs):
        sides = [(lone_peer, ours), (bare_loop, rival)]
        for measure, results in sides if pair % 2 == 0 else reversed(sides):
            results.append(measure(options.epochs, options.threads))
    result = report(
        "overhead",
        "tokens/s",
        [run["tokens_per_second"] for run in ours],
        [run["tokens_per_second"] for run in rival],
        epochs=options.epochs,
        threads=options.threads,
        milliseconds_per_epoch={"ours": _by_phase(ours), "rival": _by_phase(rival)},
        in_the_window={
            name: [run[name] for run in ours] for name in ("checkpoints", "evaluations")
        },
    )
    show(result, as_json=options.json)


def _by_phase(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median over `runs` of each phase's milliseconds."""
    phases = [run["milliseconds_per_epoch"] for run in runs]
    return {phase: round(statistics.median(run[phase] for run in phases), 3) for phase in phases[0]}


def lone_peer(epochs: int, threads: int) -> dict[str, Any]:
    """Return tokens per second of the real worker, and where an epoch's milliseconds go."""
    with tempfile.TemporaryDirectory() as folder:
        begin = prepare(folder, RunDirectory.open(demo_run_path()), epochs, threads)
        stamped = [(time.perf_counter(), event) for event in worker_events(begin)]
    return _measure(stamped)


def prepare(folder: str, run: RunDirectory, epochs: int, threads: int) -> Begin:
    """Return what a worker has to be told to train `run` for the warm-up and `epochs` more."""
    home = Home(Path(folder))
    home.prepare()
    settings = {
        "compute": {"threads": threads, "micro_batch": MICRO_BATCH, "device": "cpu"},
        "checkpoint": {"interval_s": _INTERVAL_S},
        "evaluation": {"interval_s": _INTERVAL_S},
        "swarm": {"listen": ["/ip4/127.0.0.1/tcp/0"]},
    }
    return Begin(
        home=folder,
        run_id=run.import_into(home.runs_path).run_id,
        paused=None,
        max_epochs=WARMUP_EPOCHS + epochs,
        hold=False,
        addresses=(),
        micro_batch_divisor=1,
        settings=Settings.model_validate(settings).model_dump(mode="json"),
    )


def _measure(stamped: list[tuple[float, Message]]) -> dict[str, Any]:
    commits = [(at, event) for at, event in stamped if isinstance(event, RoundCommitted)]
    first_s, last_s = commits[WARMUP_EPOCHS - 1][0], commits[-1][0]
    window = [event for at, event in stamped if first_s < at <= last_s]
    tokens = sum(event.tokens for event in window if isinstance(event, Progress))
    rounds = [event for event in window if isinstance(event, RoundCommitted)]
    evaluation_s = sum(event.seconds for event in window if isinstance(event, Evaluated))
    phases: dict[str, float] = {"evaluation": evaluation_s}
    for event in rounds:
        for phase, seconds in event.seconds_by_phase.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    phases["local_work_and_rest"] = last_s - first_s - sum(phases.values())
    return {
        "tokens_per_second": tokens / (last_s - first_s),
        "milliseconds_per_epoch": {k: 1000 * v / len(rounds) for k, v in phases.items()},
        "checkpoints": sum(isinstance(event, CheckpointWritten) for event in window),
        "evaluations": sum(isinstance(event, Evaluated) for event in window),
    }


def worker_events(begin: Begin) -> Iterator[Message]:
    """Run a worker to its end and yield its events as they come."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "peer.daemon.worker", "--fd", str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True) as process,
    ):
        theirs.close()
        ours.settimeout(_RUN_TIMEOUT_S)
        try:
            ours.sendall(begin.encode())
            for line in ours.makefile("rb"):
                yield Message.decode(line)
            if process.wait(_RUN_TIMEOUT_S) != 0:
                raise RuntimeError(f"the worker ended with {process.returncode}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def bare_loop(epochs: int, threads: int) -> dict[str, Any]:
    """Return what the bare loop, in a process of its own, measures of itself."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(epochs), str(threads)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=True
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


if __name__ == "__main__":
    main()
