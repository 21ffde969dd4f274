"""Exporting a checkpoint: a directory that transformers' `from_pretrained` opens.

It is verified first, built beside its place, and appears by one rename. torch loads when there is
something to export.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from peer.checkpoint.card import Subject, model_card, provenance
from peer.checkpoint.format import read_files
from peer.checkpoint.lineage import Entry
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.verify import verify_checkpoint
from peer.data.index import parse_index
from peer.errors import ConfigurationError, DamagedError
from peer.run.directory import RunDirectory
from peer.training.outer import initial_slots
from peer.training.state import Schema

if TYPE_CHECKING:
    import torch

PROVENANCE, CARD = "ctpeer.json", "README.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be exported.

    Attributes:
        run: The run.
        shelf: Its checkpoints here.
        lineage: The state and its ancestors, newest first.
        licence: What whoever exports states as the model's licence; None if nothing.
    """

    run: RunDirectory
    shelf: Shelf
    lineage: tuple[Entry, ...]
    licence: str | None = None


def export(order: Order, target: Path) -> dict[str, str]:
    """Write the export to the new directory `target`; return its files with their hashes.

    Raises:
        DamagedError: The checkpoint is damaged, or was dropped meanwhile.
        ConfigurationError: `target` is there and not empty, or cannot be written.
    """
    require_vacant(target)
    with built(order, target) as (staging, files):
        staging.chmod(0o755)
        staging.replace(target)
    return files


def require_vacant(target: Path) -> None:
    """Raise ConfigurationError if `target` is anything but absent or an empty directory."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"{target} is there already and not empty; give the name of a new directory"
        )


@contextlib.contextmanager
def built(order: Order, beside: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give a finished export in a directory beside `beside`, and its files with their hashes.

    What is left of the directory afterwards is removed.

    Raises:
        DamagedError: The checkpoint is damaged, or was dropped meanwhile.
        ConfigurationError: It cannot be written there.
    """
    parent = beside.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{beside.name}-", dir=parent))
    except OSError as error:
        raise ConfigurationError(f"nothing can be written to {parent}: {error.strerror}") from error
    try:
        yield staging, _write(order, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(order: Order, folder: Path) -> dict[str, str]:
    entry = order.lineage[0]
    assert entry.name is not None
    try:
        with order.shelf.hold(entry.name):
            return _write_held(order, entry.name, folder)
    except LookupError as error:
        raise DamagedError(
            f"the checkpoint {entry.state_root[:12]} was dropped meanwhile; `ctpeer checkpoint "
            "list` shows those that there are"
        ) from error


def _write_held(order: Order, name: str, folder: Path) -> dict[str, str]:
    from peer.tasks import registry

    run = order.run
    report = verify_checkpoint(order.shelf, name, run)
    if not report.good:
        raise DamagedError(f"the checkpoint {name} is damaged: {report.problems[0]}")
    files = {n: run.read_blob(hash_) for n, hash_ in run.manifest.tokenizer.files.items()}
    task = registry.create(run.manifest.task, files)
    config = json.loads(run.read_blob(run.manifest.model.config))
    task.check_model(config)
    model = task.build_model(config)
    _load(model, order, name)
    task.save_pretrained(model, folder)
    subject = Subject(
        run=run,
        index=parse_index(run.read_blob(run.manifest.data.index), "the run's data index"),
        lineage=order.lineage,
        pipeline=task.pipeline,
        licence=order.licence,
    )
    (folder / CARD).write_text(model_card(subject), encoding="utf-8")
    hashes = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / PROVENANCE).write_text(provenance(subject, hashes), encoding="utf-8")
    return hashes | {PROVENANCE: _sha256(folder / PROVENANCE)}


def _load(model: "torch.nn.Module", order: Order, name: str) -> None:
    """Give `model` the parameters of the checkpoint."""
    import torch

    schema = Schema.of(model)
    slots = initial_slots(order.run.manifest.optimizer, schema.elements)
    folder = order.shelf.path(name)
    state = read_files(folder, order.run.manifest_hash, schema, slots).state
    named = schema.named(state.parameters)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(named[key]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
