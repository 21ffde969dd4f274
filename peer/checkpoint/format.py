"""A checkpoint on the disk: a directory named by epoch and state root.

    state.safetensors   parameters by name, the outer optimizer's buffers as `optimizer.<name>`
    local.safetensors   this peer's random generators
    checkpoint.json     root, manifest, generation, this peer's place in the data, certificate

The state is proven by its root; the two small files by a digest inside checkpoint.json. There is
no pickle anywhere. Nothing here chooses which checkpoint to load.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from peer.data.stream import Cursor
from peer.errors import ConfigurationError, DamagedError
from peer.run.canonical import canonical
from peer.training.state import Flat, GlobalState, Schema, Slot
from peer.training.trainer import Place

SCHEMA_VERSION = 1
_UNREADABLE = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    KeyError,
    TypeError,
    ValueError,
    RecursionError,
    safetensors.SafetensorError,
)
"""What reading damaged files raises; a disk that fails or a refused read says nothing of them."""

STATE, _LOCAL, HEAD = "state.safetensors", "local.safetensors", "checkpoint.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A global state with what stands beside it.

    Attributes:
        state: The global state.
        state_root: Its root.
        generation: How many rollbacks the run had seen.
        place: Where this peer's training stood.
        certificate: The certificate that led to the state, as JSON text; None at epoch 0.
        code_version: The ctpeer that wrote it.
    """

    state: GlobalState
    state_root: str
    generation: int
    place: Place
    certificate: str | None
    code_version: str

    @property
    def name(self) -> str:
        """The directory's name; sorts by epoch."""
        return f"{self.state.epoch:010d}-{self.state_root[:16]}"


def write_files(checkpoint: Checkpoint, manifest_hash: str, folder: Path) -> None:
    """Write the files of `checkpoint` into the existing, empty `folder`.

    Raises:
        OSError: The disk is full or fails.
    """
    state, place = checkpoint.state, checkpoint.place
    tensors: dict[str, Slot] = dict(state.schema.named(state.parameters))
    tensors |= {f"optimizer.{name}": slot for name, slot in state.optimizer.items()}
    local = safetensors.numpy.save(dict(place.rng))
    head: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "manifest": manifest_hash,
        "epoch": state.epoch,
        "generation": checkpoint.generation,
        "state_root": checkpoint.state_root,
        "code_version": checkpoint.code_version,
        "certificate": checkpoint.certificate,
        "local": {
            "cursor": place.cursor.to_json(),
            "samples_total": place.samples_total,
            "tokens_total": place.tokens_total,
            "contributions": place.contributions,
            "micro_batch": place.micro_batch,
            "loss_scale": place.loss_scale,
            "files": {_LOCAL: hashlib.sha256(local).hexdigest()},
        },
    }
    head["digest"] = hashlib.sha256(canonical(head)).hexdigest()
    _save(tensors, folder / STATE)
    (folder / _LOCAL).write_bytes(local)
    (folder / HEAD).write_text(json.dumps(head, indent=1))


def read_files(
    folder: Path, manifest_hash: str, schema: Schema, slots: dict[str, Slot]
) -> Checkpoint:
    """Return the checkpoint in `folder`, every byte of it verified.

    Args:
        folder: The checkpoint's directory.
        manifest_hash: The run's; a checkpoint of another run is refused.
        schema: The model's tensors.
        slots: A fresh outer optimizer state: which buffers there must be, of what form.

    Raises:
        DamagedError: Something is missing, cut short, changed or of another run.
    """
    try:
        head = _read_head(folder / HEAD, manifest_hash)
        state = GlobalState(head["epoch"], schema, *_read_state(folder / STATE, schema, slots))
        if state.root(manifest_hash) != head["state_root"]:
            raise DamagedError("the state does not have the root that names it")
        local = head["local"]
        data = (folder / _LOCAL).read_bytes()
        if hashlib.sha256(data).hexdigest() != local["files"][_LOCAL]:
            raise DamagedError(f"{_LOCAL} was changed")
        place = Place(
            cursor=Cursor.from_json(local["cursor"]),
            samples_total=local["samples_total"],
            tokens_total=local["tokens_total"],
            contributions=local["contributions"],
            micro_batch=local["micro_batch"],
            loss_scale=local["loss_scale"],
            rng=safetensors.numpy.load(data),
        )
    except ConfigurationError as error:
        raise DamagedError(str(error)) from error
    except _UNREADABLE as error:
        raise DamagedError(f"it cannot be read: {error}") from error
    return Checkpoint(
        state=state,
        state_root=head["state_root"],
        generation=head["generation"],
        place=place,
        certificate=head["certificate"],
        code_version=head["code_version"],
    )


def _read_head(path: Path, manifest_hash: str) -> dict[str, Any]:
    head = json.loads(path.read_text())
    if not isinstance(head, dict):
        raise DamagedError(f"{HEAD} is not a JSON object")
    digest = head.pop("digest")
    if hashlib.sha256(canonical(head)).hexdigest() != digest:
        raise DamagedError(f"{HEAD} was changed")
    if head["schema_version"] != SCHEMA_VERSION:
        raise DamagedError(f"it is of format {head['schema_version']}, not {SCHEMA_VERSION}")
    if head["manifest"] != manifest_hash:
        raise DamagedError("it belongs to another run")
    return head


def _read_state(path: Path, schema: Schema, slots: dict[str, Slot]) -> tuple[Flat, dict[str, Slot]]:
    tensors = _load(path)
    optimizer: dict[str, Slot] = {}
    for name, fresh in slots.items():
        slot = tensors.pop(f"optimizer.{name}")
        if slot.shape != fresh.shape or slot.dtype != fresh.dtype:
            raise DamagedError(f"the optimizer's {name} is {slot.dtype} {list(slot.shape)}")
        optimizer[name] = slot
    return schema.flatten(tensors, STATE), optimizer


def _save(tensors: dict[str, Slot], path: Path) -> None:
    try:
        safetensors.numpy.save_file(tensors, path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error


def _load(path: Path) -> dict[str, Slot]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    loaded: dict[str, Slot] = safetensors.numpy.load_file(path)
    return {name: np.array(tensor, copy=True) for name, tensor in loaded.items()}
