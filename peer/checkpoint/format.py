"""A checkpoint on the disk: a directory named by epoch and state root.

    state.safetensors   parameters by name, the outer optimizer's buffers as `optimizer.<name>`
    local.safetensors   this peer's random generators; not beside a state that was fetched by hand
    checkpoint.json     root, manifest, generation, this peer's place in the data, certificate
    annotation.json     what the writer says of the state, signed; see `peer.checkpoint.annotation`

The state is proven by its root; local.safetensors and checkpoint.json by a digest in the latter.
Loading looks at no annotation: training goes on without it, and checkpoints of before there were
any have none. There is no pickle anywhere. Nothing here chooses which checkpoint to load. Only
reading a place needs torch.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import TypeAdapter

from peer.checkpoint.annotation import Annotation, Author, Heritage, Notes
from peer.data.stream import Cursor
from peer.errors import ConfigurationError, DamagedError
from peer.run.canonical import canonical
from peer.training.certificate import Count, Name, PeerName
from peer.training.state import Flat, GlobalState, Schema, Slot

if TYPE_CHECKING:
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

STATE, LOCAL, HEAD = "state.safetensors", "local.safetensors", "checkpoint.json"
ANNOTATION = "annotation.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A global state with what stands beside it.

    Attributes:
        state: The global state.
        state_root: Its root.
        generation: How many rollbacks the run had seen.
        place: Where this peer's training stood; None if a person fetched the state.
        certificate: The certificate that led to the state, as JSON text; None at epoch 0.
        code_version: The ctpeer that wrote it.
        heritage: What its annotation will say; loading does not bring it back.
    """

    state: GlobalState
    state_root: str
    generation: int
    place: "Place | None"
    certificate: str | None
    code_version: str
    heritage: Heritage = dataclasses.field(default_factory=Heritage)

    @property
    def name(self) -> str:
        """The directory's name; sorts by epoch."""
        return name_of(self.state.epoch, self.state_root)


def name_of(epoch: int, state_root: str) -> str:
    """Return the name of the directory that holds the checkpoint of a state."""
    return f"{epoch:010d}-{state_root[:16]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """What checkpoint.json says, its digest checked.

    Attributes:
        epoch: The state's.
        generation: How many rollbacks the run had seen.
        state_root: The state's root, which is yet to be recomputed.
        code_version: The ctpeer that wrote it.
        certificate: The certificate that led to the state, as JSON text.
        writer: The peer id whose annotation lies beside it; None where there never was one.
        local: This peer's place in the data; None if a person fetched the state.
    """

    epoch: Count
    generation: Count
    state_root: Name
    code_version: str
    certificate: str | None
    writer: PeerName | None = None
    local: dict[str, Any] | None


_HEAD_ADAPTER = TypeAdapter(Head)


def read_head(folder: Path, manifest_hash: str) -> Head:
    """Return the head of the checkpoint in `folder`.

    Raises:
        DamagedError: It is missing, cut short, changed, of another run or format.
        OSError: The disk fails, or reading is not allowed.
    """
    try:
        body = json.dumps(_read_head(folder / HEAD, manifest_hash))
        return _HEAD_ADAPTER.validate_json(body, strict=True)
    except FileNotFoundError as error:
        raise DamagedError(f"{HEAD} is missing") from error
    except KeyError as error:
        raise DamagedError(f"{HEAD} lacks its {error.args[0]}") from error
    except _UNREADABLE as error:
        raise DamagedError(f"{HEAD} is not what one holds") from error


def is_fetched(folder: Path, manifest_hash: str) -> bool:
    """Return whether a person fetched the checkpoint in `folder`, also where its head is damaged.

    Raises:
        OSError: The disk fails, or reading is not allowed.
    """
    try:
        return read_head(folder, manifest_hash).local is None
    except DamagedError:
        # Training writes both, so one that is left without them is no loss to it.
        return folder.is_dir() and not (folder / LOCAL).exists()


def write_files(
    checkpoint: Checkpoint, manifest_hash: str, folder: Path, annotation: Annotation | None = None
) -> None:
    """Write the files of `checkpoint` into the existing, empty `folder`.

    Args:
        checkpoint: What is written.
        manifest_hash: The run's.
        folder: Where to.
        annotation: What its writer says of it.

    Raises:
        OSError: The disk is full or fails.
    """
    state, place = checkpoint.state, checkpoint.place
    tensors: dict[str, Slot] = dict(state.schema.named(state.parameters))
    tensors |= {f"optimizer.{name}": slot for name, slot in state.optimizer.items()}
    head: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "manifest": manifest_hash,
        "epoch": state.epoch,
        "generation": checkpoint.generation,
        "state_root": checkpoint.state_root,
        "code_version": checkpoint.code_version,
        "certificate": checkpoint.certificate,
        "writer": annotation.writer if annotation else None,
        "local": None,
    }
    _save(tensors, folder / STATE)
    if place is not None:
        local = safetensors.numpy.save(dict(place.rng))
        head["local"] = _local(place, hashlib.sha256(local).hexdigest())
        (folder / LOCAL).write_bytes(local)
    head["digest"] = hashlib.sha256(canonical(head)).hexdigest()
    (folder / HEAD).write_text(json.dumps(head, indent=1))
    if annotation is not None:
        (folder / ANNOTATION).write_bytes(annotation.to_bytes())


def annotate(checkpoint: Checkpoint, manifest_hash: str, author: Author) -> Annotation:
    """Return what `author`, whose training made `checkpoint`, has to say of it."""
    heritage, place = checkpoint.heritage, checkpoint.place
    assert place is not None
    notes = Notes(
        manifest=manifest_hash,
        state_root=checkpoint.state_root,
        epoch=checkpoint.state.epoch,
        generation=checkpoint.generation,
        parent=heritage.parent,
        code_version=checkpoint.code_version,
        loss_terms=heritage.loss_terms,
        own_samples=place.samples_total,
        own_tokens=place.tokens_total,
        scores=dict(heritage.scores),
        accepted_by=None,
        written_s=author.now_s(),
    )
    return author.sign(notes)


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
        place = None if head["local"] is None else _read_place(folder / LOCAL, head["local"])
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


def _local(place: "Place", digest: str) -> dict[str, Any]:
    return {
        "cursor": place.cursor.to_json(),
        "samples_total": place.samples_total,
        "tokens_total": place.tokens_total,
        "contributions": place.contributions,
        "micro_batch": place.micro_batch,
        "loss_scale": place.loss_scale,
        "files": {LOCAL: digest},
    }


def _read_place(path: Path, local: dict[str, Any]) -> "Place":
    from peer.training.trainer import Place  # brings torch

    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != local["files"][LOCAL]:
        raise DamagedError(f"{LOCAL} was changed")
    return Place(
        cursor=Cursor.from_json(local["cursor"]),
        samples_total=local["samples_total"],
        tokens_total=local["tokens_total"],
        contributions=local["contributions"],
        micro_batch=local["micro_batch"],
        loss_scale=local["loss_scale"],
        rng=safetensors.numpy.load(data),
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
