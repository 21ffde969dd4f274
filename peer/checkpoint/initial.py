"""What is known of every state of a run by its initial one: the tensors; and that one's root."""

import dataclasses
import hashlib

import safetensors

from peer.checkpoint.flatfile import FlatFile
from peer.errors import DamagedError
from peer.run.directory import RunDirectory
from peer.training.outer import initial_slots
from peer.training.state import Schema, TensorSpec, chunk_hashes, root_of


def initial_schema(run: RunDirectory) -> Schema:
    """Return the tensors of the run's model. Reads none of their numbers.

    Raises:
        DamagedError: The initial state is missing, or none.
    """
    path = run.blob_path(run.manifest.initial_state)
    try:
        with safetensors.safe_open(path, "numpy") as blob:
            shapes = {name: tuple(blob.get_slice(name).get_shape()) for name in blob.keys()}  # noqa: SIM118 no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise DamagedError(
            f"the initial state {path} cannot be read ({error}); copy the run's directory again "
            "from where you got it"
        ) from error
    return Schema(tuple(TensorSpec(name, shapes[name]) for name in sorted(shapes)))


def initial_root(run: RunDirectory) -> str:
    """Return the root of the state at epoch 0.

    Reads the blob twice, piece by piece. The outer optimizer's zeros take no memory: the system
    gives no page to an array that is only read.

    Raises:
        DamagedError: The blob is missing, or not what the manifest names.
    """
    path = run.blob_path(run.manifest.initial_state)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != run.manifest.initial_state:
            raise DamagedError(
                f"{path} was changed or cut short; copy it again from where you got the run"
            )
        header = FlatFile(path).header(run.manifest_hash, epoch=0)
    except OSError as error:
        raise DamagedError(
            f"the initial state {path} cannot be read ({error.strerror}); copy the run's "
            "directory again from where you got it"
        ) from error
    slots = initial_slots(run.manifest.optimizer, header.elements)
    optimizer = tuple(
        (f"optimizer.{name}", slots[name].dtype.str, tuple(chunk_hashes(slots[name])))
        for name in sorted(slots)
    )
    return root_of(dataclasses.replace(header, buffers=header.buffers + optimizer))
