"""What the judging of checkpoints costs: CPU-seconds of a lone peer with it and without it.

Both train the demo run, as real workers in turn, each to its end; with validation the peer judges
its own candidates, as a swarm of one: candidates, records in the DHT, the scoring of candidate and
baseline, verdicts. One verdict costs less than two runs differ by: so candidates are made far more
often than the manifest asks for, and what one verdict adds is set against the training between two
candidates of the manifest's; `share` is that. In a swarm each seat of a committee does as much.

    python -m benchmarks.validation_cost --json
"""

import argparse
import resource
import statistics
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
    parser.add_argument("--every", type=int, default=10, help="a candidate so often (default 10)")
    options = parser.parse_args()
    ours: list[dict[str, Any]] = []
    rival: list[dict[str, Any]] = []
    usual = RunDirectory.open(demo_run_path()).manifest.validation.every_epochs
    for pair in range(options.runs):
        sides = [(options.every, ours), (0, rival)]
        for distance, results in sides if pair % 2 == 0 else reversed(sides):
            results.append(train(distance, options.epochs, options.threads))
    result = report(
        "validation_cost",
        "CPU-s",
        [run["cpu_seconds"] for run in ours],
        [run["cpu_seconds"] for run in rival],
        epochs=options.epochs,
        every_epochs=options.every,
        verdicts=[run["verdicts"] for run in ours],
    )
    costs = [
        (with_it["cpu_seconds"] - without["cpu_seconds"]) / max(1, with_it["verdicts"])
        for with_it, without in zip(ours, rival, strict=True)
    ]
    result["verdict_cpu_seconds"] = statistics.median(costs)
    # The start is in it, too, which makes it look cheaper by a tenth or so.
    epoch_s = statistics.median(run["cpu_seconds"] for run in rival) / options.epochs
    result["share"] = result["verdict_cpu_seconds"] / (usual * epoch_s)
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
