"""The state root of a run's initial state, from which everything begins."""

import dataclasses
import hashlib
import math

from peer.checkpoint.flatfile import FlatFile
from peer.errors import DamagedError
from peer.run.directory import RunDirectory
from peer.training.outer import initial_slots
from peer.training.state import chunk_hashes, root_of


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
    elements = sum(math.prod(shape) for _, shape in header.tensors)
    slots = initial_slots(run.manifest.optimizer, elements)
    optimizer = tuple(
        (f"optimizer.{name}", slots[name].dtype.str, tuple(chunk_hashes(slots[name])))
        for name in sorted(slots)
    )
    return root_of(dataclasses.replace(header, buffers=header.buffers + optimizer))
