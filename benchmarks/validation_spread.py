"""By how much honest validators' losses differ: over threads, batches and instruction sets.

Each set of instructions is a process of its own, which scores the same chunks of rows with several
numbers of threads and of rows at once. The spread of a chunk is the largest of its losses less the
smallest; what counts is the largest of all chunks, in points of 1e-4 nats. A manifest's tolerance
is five times that. The models are the demo's after some training, and a larger one that starts. To
see where scores cease to compare, the demo's parameters are multiplied, too: a state that has
diverged, or that somebody made to look different to everybody.

    python -m benchmarks.validation_spread
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import machine
from peer.data.demo import data_folder
from peer.data.index import Shard, parse_index
from peer.data.reader import read_examples
from peer.data.source import ShardSources
from peer.data.stream import Examples, Stream
from peer.data.tokens import TokenCache
from peer.founding.architecture import Size, preset_config
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.tasks import registry
from peer.tasks.task import HeldOutRows, ModelConfig
from peer.training.evaluation import Evaluator
from peer.training.state import Schema, initial_state_bytes, read_initial_state
from peer.validation.rules import CHUNKS, POINTS_A_NAT

SAFETY = 5
"""The tolerance is so many times the spread: other machines differ by more than this one can."""
THREADS = (1, 2, 4)
BATCH_ROWS = (1, 2, 4, 8)
INSTRUCTIONS = {
    "all": {},
    "torch without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "MKL for any processor": {"MKL_CBWR": "COMPATIBLE"},
    "MKL with AVX": {"MKL_CBWR": "AVX"},
    "oneDNN with SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "none of them": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}
"""The environment that keeps the libraries from instructions that other processors may lack."""

_LARGER = Size(layers=6, hidden=512, heads=8)
_TRAINING_ROWS = 16
_TIMEOUT_S = 3600.0

Losses = Mapping[str, list[float]]
"""By setting: instructions, threads, rows at once."""


class Bench:
    """The demo's task and rows, and its model or the larger one.

    Args:
        model: `demo` or `larger`.
        folder: Where tokens are kept for the next process.
    """

    def __init__(self, model: str, folder: Path) -> None:
        run = RunDirectory.open(demo_run_path())
        files = {name: run.read_blob(hash_) for name, hash_ in run.manifest.tokenizer.files.items()}
        self.task = registry.create(run.manifest.task, files)
        self.config: ModelConfig = json.loads(run.read_blob(run.manifest.model.config))
        if model == "larger":
            shape = preset_config("gpt2", _LARGER, self.task.sequence_length)
            self.config = shape | self.task.token_fields()
        self._index = parse_index(run.read_blob(run.manifest.data.index), "the demo's index")
        self._sources = ShardSources((data_folder("demo:shakespeare"),))
        self._cache = TokenCache(folder / "tokens")

    def heldout(self, max_rows: int) -> HeldOutRows:
        """Return at most `max_rows` rows to score."""
        shards = [(shard, self._open(shard)) for shard in self._index.split("heldout")]
        return self.task.heldout_rows(shards, max_rows)

    def model(self, steps: int) -> torch.nn.Module:
        """Return a model after so many steps of training."""
        torch.manual_seed(0)
        model = self.task.build_model(self.config).train()
        stream = Stream(self._index.split("train"), self._open, b"spread")
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for _ in range(steps):
            batch = self.task.collate(stream.take(_TRAINING_ROWS))
            optimizer.zero_grad()
            (self.task.loss(model, batch) / batch.loss_terms).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return model

    def _open(self, shard: Shard) -> Examples:
        texts = read_examples(shard, self._sources.read(shard))
        return self.task.examples(shard, texts, self._cache)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of training (default 1000)")
    parser.add_argument("--rows", type=int, default=128, help="demo's; half as many for the other")
    parser.add_argument("--times", type=float, nargs="*", default=[2.0, 4.0, 8.0, 16.0, 64.0])
    parser.add_argument("--score", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score is not None:
        model, rows, folder = options.score
        print(json.dumps(scored(model, int(rows), Path(folder))))
        return
    cases = [
        *measured("demo", options.rows, options.steps, options.times),
        *measured("larger", options.rows // 2, 0, []),
    ]
    worst = max(case["spread_points"]["all"] for case in cases if case["times"] == 1.0)
    result = {
        "name": "validation_spread",
        "unit": "points of 1e-4 nats",
        "cases": cases,
        "spread_points": worst,
        "tolerance_points": tolerance_points(worst),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))


def measured(model: str, rows: int, steps: int, times: Iterable[float]) -> list[dict[str, Any]]:
    """Return the spread of a model's state, and of its state `times` over."""
    with tempfile.TemporaryDirectory(prefix="ctpeer-") as folder:
        trained = Bench(model, Path(folder)).model(steps)
        flat = read_initial_state(initial_state_bytes(trained), Schema.of(trained))
        factors = (1.0, *times)
        np.save(Path(folder) / "states.npy", np.stack([flat * np.float32(f) for f in factors]))
        found: list[dict[str, list[float]]] = [{} for _ in factors]
        for name, environment in INSTRUCTIONS.items():
            for losses, more in zip(found, _child(model, rows, folder, environment), strict=True):
                losses |= {f"{name}|{rest}": each for rest, each in more.items()}
    return [
        {
            "model": model,
            "parameters": len(flat),
            "rows": rows,
            "steps": steps,
            "times": factor,
            "loss_nats": float(np.mean(losses["all|1|8"])),
            "spread_points": spread_by_cause(losses),
        }
        for factor, losses in zip(factors, found, strict=True)
    ]


def _child(
    model: str, rows: int, folder: str, environment: Mapping[str, str]
) -> list[dict[str, list[float]]]:
    command = [sys.executable, "-m", "benchmarks.validation_spread"]
    done = subprocess.run(
        [*command, "--score", model, str(rows), folder],
        # Where a machine has fewer cores than we ask for threads, waiting must not burn them.
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    states: list[dict[str, list[float]]] = json.loads(done.stdout)
    return states


def scored(model: str, max_rows: int, folder: Path) -> list[dict[str, list[float]]]:
    """Return the losses by chunk of each state in `folder`, by `threads|rows at once`."""
    bench = Bench(model, folder)
    rows = bench.heldout(max_rows)
    schema = Schema.of(bench.model(0))
    size = len(rows.rows) // CHUNKS or 1
    chunks = [range(start, start + size) for start in range(0, len(rows.rows), size)]
    states = np.load(folder / "states.npy")
    found: list[dict[str, list[float]]] = [{} for _ in states]
    for at_once in BATCH_ROWS:
        evaluator = Evaluator(
            bench.task, bench.config, schema, torch.device("cpu"), 1.0, batch_rows=at_once
        )
        for threads, (losses, state) in itertools.product(THREADS, zip(found, states, strict=True)):
            torch.set_num_threads(threads)
            losses[f"{threads}|{at_once}"] = evaluator.losses(state, rows, chunks)
    return found


def spread_by_cause(losses: Losses) -> dict[str, float]:
    """Return the largest spread of any chunk, in points: by what alone differs, and by all."""

    def over(*fixed: int) -> float:
        groups: dict[tuple[str, ...], list[list[float]]] = {}
        for setting, by_chunk in losses.items():
            parts = setting.split("|")
            groups.setdefault(tuple(parts[i] for i in fixed), []).append(by_chunk)
        points = max(float(np.ptp(np.array(group), axis=0).max()) for group in groups.values())
        return round(points * POINTS_A_NAT, 5)

    return {
        "instructions": over(1, 2),
        "threads": over(0, 2),
        "rows at once": over(0, 1),
        "all": over(),
    }


def tolerance_points(spread_points: float) -> int:
    """Return the tolerance for a spread; points are whole, and scores are rounded to them."""
    return max(1, math.ceil(SAFETY * spread_points))


if __name__ == "__main__":
    main()
