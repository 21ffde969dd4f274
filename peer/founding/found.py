"""What `ctpeer run init` does: from a founder's wishes to a run that others can join."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from peer.data.demo import PREFIX, data_folder
from peer.data.folder import read_index
from peer.data.index import DataIndex, Shard
from peer.data.reader import read_examples
from peer.data.source import ShardSources
from peer.data.stream import Examples
from peer.data.tokens import TokenCache
from peer.errors import ConfigurationError
from peer.founding.architecture import ModelChoice, make_model
from peer.identity import Identity
from peer.run.directory import SIGNATURES, RunDirectory, add_blob, write_atomically
from peer.run.manifest import (
    AveragingSection,
    BatchSection,
    DataSection,
    EvaluationSection,
    Manifest,
    ModelSection,
    Optimizer,
    ScheduleSection,
    TaskSection,
    TokenizerSection,
    ValidationSection,
)
from peer.run.signature import sign_manifest
from peer.tasks import registry
from peer.tasks.task import Task
from peer.tasks.text import find_tokenizer, train_tokenizer
from peer.training.state import initial_state_bytes

_FITTED_BYTES = 256 << 20
"""The most training text that a tokenizer and the baselines are fitted on."""

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the founder asks for.

    Attributes:
        name: The run's name.
        task: The task and its options.
        data: A folder with an index.json, or `demo:NAME`.
        tokenizer: A tokenizer.json, a pretrained directory or a hub name; None trains one.
        vocabulary: How many tokens a trained tokenizer has.
        model: The model.
        seed: For weights that start from scratch; it does not enter the manifest.
        optimizer: The outer optimizer.
        schedule: Its learning rate by epoch.
        batch: The target batch.
        averaging: How contributions become one.
        max_rows: Rows that a score takes.
        validation: How checkpoints are judged.
    """

    name: str
    task: TaskSection
    data: str
    tokenizer: str | None
    vocabulary: int
    model: ModelChoice
    seed: int
    optimizer: Optimizer
    schedule: ScheduleSection
    batch: BatchSection
    averaging: AveragingSection
    max_rows: int
    validation: ValidationSection


def found(target: Path, wishes: Wishes, founder: Identity, say: Say) -> RunDirectory:
    """Write the run that `wishes` describes to the new directory `target`, signed by `founder`.

    The directory appears whole or not at all.

    Args:
        target: Must not exist, or be an empty directory.
        wishes: What the run shall be.
        founder: Who signs it.
        say: Told of each step.

    Raises:
        ConfigurationError: Something asked for cannot be had or does not fit.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} is there already; give the name of a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        manifest = _write(staging, wishes, founder, say)
        staging.chmod(0o755)
        staging.replace(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return RunDirectory(target, manifest)


def _write(folder: Path, wishes: Wishes, founder: Identity, say: Say) -> Manifest:
    data = data_folder(wishes.data)
    index = read_index(data)
    sources = ShardSources((data,))
    files = {"tokenizer.json": _tokenizer(wishes, index, sources, say)}
    task = registry.create(wishes.task, files)
    say("building the model")
    model, config = make_model(wishes.model, task, wishes.seed)
    say("measuring what a unigram and a bigram model reach on the held-out text")
    baselines = _baselines(task, index, sources, wishes.max_rows)
    manifest = Manifest(
        name=wishes.name,
        founders=(founder.peer_id,),
        initial_state=add_blob(folder, initial_state_bytes(model)),
        task=wishes.task,
        model=ModelSection(config=add_blob(folder, _json(config))),
        tokenizer=TokenizerSection(
            files={name: add_blob(folder, content) for name, content in files.items()}
        ),
        data=DataSection(index=add_blob(folder, index.to_bytes())),
        optimizer=wishes.optimizer,
        schedule=wishes.schedule,
        batch=wishes.batch,
        averaging=wishes.averaging,
        evaluation=EvaluationSection(max_rows=wishes.max_rows, baselines=baselines),
        validation=wishes.validation,
    )
    run = RunDirectory.create(folder, manifest)
    write_atomically(folder / SIGNATURES, sign_manifest(manifest, founder).encode())
    if not wishes.data.startswith(PREFIX):
        run.set_sources((data,))
    return manifest


def _tokenizer(wishes: Wishes, index: DataIndex, sources: ShardSources, say: Say) -> bytes:
    if wishes.tokenizer is not None:
        return find_tokenizer(wishes.tokenizer)
    if wishes.model.weights_of is not None:
        return find_tokenizer(wishes.model.weights_of)
    say(f"training a tokenizer of {wishes.vocabulary} tokens")
    texts = [text for shard in _fitted(index) for text in read_examples(shard, sources.read(shard))]
    return train_tokenizer(texts, wishes.vocabulary)


def _fitted(index: DataIndex) -> Iterator[Shard]:
    """Yield training shards, as many as fitting needs."""
    left_bytes = _FITTED_BYTES
    for shard in index.split("train"):
        yield shard
        left_bytes -= shard.bytes
        if left_bytes <= 0:
            return


def _baselines(
    task: Task, index: DataIndex, sources: ShardSources, max_rows: int
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="ctpeer-") as scratch:
        cache = TokenCache(Path(scratch))

        def rows(shard: Shard) -> Examples:
            return task.examples(shard, read_examples(shard, sources.read(shard)), cache)

        train = [rows(shard) for shard in _fitted(index)]
        heldout = [(shard, rows(shard)) for shard in index.split("heldout")]
        values = task.baselines(train, task.heldout_rows(heldout, max_rows))
    return {name: round(value, 4) for name, value in values.items()}


def _json(config: Mapping[str, object]) -> bytes:
    return json.dumps(config, indent=1, sort_keys=True).encode() + b"\n"
