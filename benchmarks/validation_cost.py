"""What the judging of checkpoints costs: CPU-seconds of a lone peer with it and without it.

Both train the demo run, as real workers in turn, each to its end; with validation at the manifest's
defaults the peer judges each hundredth epoch itself, as a swarm of one: candidates, records in the
DHT, the scoring of candidate and baseline, verdicts. CPU-seconds hold the start, which is the same
for both; `share` is what validation adds to those of the whole run.

    python -m benchmarks.validation_cost --json
"""

import argparse
import resource
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.overhead import prepare, worker_events
from benchmarks.report import report, show
from peer.events import VerdictAdopted
from peer.founding.vary import vary
from peer.identity import Identity
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory


def main() -> None:
    """Run the pairs and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=3, help="pairs (default 3)")
    parser.add_argument("--epochs", type=int, default=340, help="epochs a run (default 340)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    options = parser.parse_args()
    ours: list[dict[str, Any]] = []
    rival: list[dict[str, Any]] = []
    every = RunDirectory.open(demo_run_path()).manifest.validation.every_epochs
    for pair in range(options.runs):
        sides = [(every, ours), (0, rival)]
        for distance, results in sides if pair % 2 == 0 else reversed(sides):
            results.append(train(distance, options.epochs, options.threads))
    result = report(
        "validation_cost",
        "CPU-s",
        [run["cpu_seconds"] for run in ours],
        [run["cpu_seconds"] for run in rival],
        epochs=options.epochs,
        every_epochs=every,
        verdicts=[run["verdicts"] for run in ours],
    )
    result["share"] = result["ratio"] - 1.0
    show(result, as_json=options.json)


def train(every: int, epochs: int, threads: int) -> dict[str, Any]:
    """Return the CPU-seconds of a worker, and its verdicts, with candidates so far apart."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.open(demo_run_path())
        validation = run.manifest.validation.model_copy(update={"every_epochs": every})
        founder = Identity.load_or_create(Path(folder) / "founder.key")
        varied = vary(run, Path(folder) / "run", founder, validation=validation)
        begin = prepare(folder, varied, epochs, threads)
        before_s = _cpu_s()
        verdicts = sum(isinstance(event, VerdictAdopted) for event in worker_events(begin))
        return {"cpu_seconds": _cpu_s() - before_s, "verdicts": verdicts}


def _cpu_s() -> float:
    """Return the CPU-seconds of all that ended below us."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
