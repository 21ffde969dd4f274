"""What the judging of checkpoints costs: CPU-seconds beside training, with it and without it.

Both train the demo run, as real workers in turn, each to its end; with validation at the manifest's
defaults the peer judges each hundredth epoch itself, as a swarm of one: candidates, records in the
DHT, the scoring of candidate and baseline, verdicts. None of that is in the training thread, whose
time differs more from run to run than it costs: so what other threads and p2pd take is compared,
over the same epochs. `share` is what validation adds to all CPU-seconds of the worker. In a swarm
each seat of a committee does as much, and who has none only verifies.

    python -m benchmarks.validation_cost --json
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import psutil

from benchmarks.overhead import prepare, worker_events
from benchmarks.report import report, show
from peer.events import RoundCommitted, VerdictAdopted
from peer.founding.vary import vary
from peer.identity import Identity
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory

_WARMUP_EPOCHS = 50
_LAST_EPOCHS = 5
"""At the end a worker waits for nothing: a verdict that is under way is not counted."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """CPU-seconds of a worker.

    Attributes:
        training_s: Its training thread's.
        beside_s: Those of its other threads and of p2pd.
    """

    training_s: float
    beside_s: float

    def __sub__(self, before: "Taken") -> "Taken":
        return Taken(self.training_s - before.training_s, self.beside_s - before.beside_s)


def main() -> None:
    """Run the pairs and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=3, help="pairs (default 3)")
    parser.add_argument("--epochs", type=int, default=360, help="epochs a run (default 360)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    options = parser.parse_args()
    ours: list[Taken] = []
    rival: list[Taken] = []
    verdicts: list[int] = []
    every = RunDirectory.open(demo_run_path()).manifest.validation.every_epochs
    for pair in range(options.runs):
        sides = [(every, ours), (0, rival)]
        for distance, results in sides if pair % 2 == 0 else reversed(sides):
            taken, found = train(distance, options.epochs, options.threads)
            results.append(taken)
            verdicts += [found] if distance else []
    result = report(
        "validation_cost",
        "CPU-s beside training",
        [taken.beside_s for taken in ours],
        [taken.beside_s for taken in rival],
        epochs=options.epochs - _WARMUP_EPOCHS - _LAST_EPOCHS,
        every_epochs=every,
        verdicts=verdicts,
    )
    whole_s = sum(taken.training_s + taken.beside_s for taken in rival)
    added_s = sum(taken.beside_s for taken in ours) - sum(taken.beside_s for taken in rival)
    result["share"] = added_s / whole_s
    show(result, as_json=options.json)


def train(every: int, epochs: int, threads: int) -> tuple[Taken, int]:
    """Return what a worker took, with candidates so far apart, and how many verdicts it found."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.open(demo_run_path())
        validation = run.manifest.validation.model_copy(update={"every_epochs": every})
        founder = Identity.load_or_create(Path(folder) / "founder.key")
        varied = vary(run, Path(folder) / "run", founder, validation=validation)
        before, after, verdicts = Taken(0.0, 0.0), Taken(0.0, 0.0), 0
        for event in worker_events(prepare(folder, varied, epochs, threads)):
            if isinstance(event, VerdictAdopted):
                verdicts += 1
            if isinstance(event, RoundCommitted) and event.epoch == _WARMUP_EPOCHS:
                before = _taken()
            if isinstance(event, RoundCommitted) and event.epoch == epochs - _LAST_EPOCHS:
                after = _taken()
        return after - before, verdicts


def _taken() -> Taken:
    """Return the CPU-seconds of the one worker that runs, so far."""
    (worker,) = psutil.Process().children()
    threads = {thread.id: thread.user_time + thread.system_time for thread in worker.threads()}
    training_s = threads.pop(worker.pid)
    times = [child.cpu_times() for child in worker.children(recursive=True)]
    return Taken(training_s, sum(threads.values()) + sum(t.user + t.system for t in times))


if __name__ == "__main__":
    main()
