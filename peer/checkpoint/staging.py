"""Where a state grows on the disk while it is fetched, so that a fetch can go on after a crash.

One file a flat buffer, at its full size from the beginning, and the header that proves them. What
lies there is believed only after it was hashed again.
"""

import dataclasses
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from peer.errors import ConfigurationError, DamagedError, MisbehavedError
from peer.training.state import CHUNK_BYTES, GlobalState, Schema, Slot, StateHeader, root_of

Place = tuple[int, int]
"""A chunk: its buffer's number in the header, and its own in the buffer."""

_HEADER = "header.json"
_LARGEST_EPOCH = 10**15
_NO_HASH = "0" * 64


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A state by its root, and what this peer knows of it by itself.

    Attributes:
        root: The state root.
        manifest_hash: The run's.
        schema: The model's tensors.
        slots: A fresh outer optimizer state: which buffers there must be, of what form.
        epoch: What the state must be of; None where that is not known.
    """

    root: str
    manifest_hash: str
    schema: Schema
    slots: Mapping[str, Slot]
    epoch: int | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of each buffer, in the header's order."""
        slots = (self.slots[name].nbytes for name in sorted(self.slots))
        return (self.schema.elements * np.dtype(np.float32).itemsize, *slots)

    @property
    def elements(self) -> int:
        """About how many numbers that is."""
        return sum(self.sizes) // np.dtype(np.float32).itemsize

    @property
    def max_header_bytes(self) -> int:
        """No header of such a state is longer."""
        return len(dataclasses.replace(self._outline(), epoch=_LARGEST_EPOCH).to_bytes())

    def check(self, header: StateHeader) -> None:
        """Check that `header`, which has the root, is of a state that this peer can use.

        Raises:
            MisbehavedError: It is of another run, shape or epoch: the root itself is a hostile one.
        """
        blank = tuple((name, dtype, (_NO_HASH,) * len(h)) for name, dtype, h in header.buffers)
        outline = dataclasses.replace(header, epoch=0, buffers=blank)
        if outline != self._outline() or not 0 <= header.epoch <= _LARGEST_EPOCH:
            raise MisbehavedError(f"the state {self.root[:12]} is none of this run's model")
        if self.epoch not in (None, header.epoch):
            raise MisbehavedError(
                f"the state {self.root[:12]} is of epoch {header.epoch}, not of {self.epoch}"
            )

    def _outline(self) -> StateHeader:
        """Return the header with nothing in it that differs from state to state."""
        names = ["parameters", *(f"optimizer.{name}" for name in sorted(self.slots))]
        dtypes = ["<f4", *(self.slots[name].dtype.str for name in sorted(self.slots))]
        counts = [_chunk_count(size) for size in self.sizes]
        return StateHeader(
            manifest=self.manifest_hash,
            epoch=0,
            tensors=self.schema.shapes(),
            chunk_bytes=CHUNK_BYTES,
            buffers=tuple(
                (name, dtype, (_NO_HASH,) * count)
                for name, dtype, count in zip(names, dtypes, counts, strict=True)
            ),
        )


class Staging:
    """The files of one state, once its header is known. Making one changes nothing.

    Args:
        parent: A directory for nothing else.
        wanted: The state, whose sizes bound what is ever written.
    """

    def __init__(self, parent: Path, wanted: Wanted) -> None:
        self._parent = parent
        self._folder = parent / wanted.root
        self._wanted = wanted
        self._begun = self._folder.is_dir()

    def header(self) -> StateHeader | None:
        """Return the header that an earlier fetch left, if it has the root."""
        try:
            header = StateHeader.from_bytes((self._folder / _HEADER).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return header if root_of(header) == self._wanted.root else None

    def begin(self, header: StateHeader) -> None:
        """Take the room for the state, and remember its `header`; what is of other states goes.

        Raises:
            ConfigurationError: The disk has no room for it.
            OSError: The disk fails.
        """
        self._parent.mkdir(parents=True, exist_ok=True)
        for other in self._parent.iterdir():
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        sizes = self._wanted.sizes
        try:
            for number, size in enumerate(sizes):
                _allocate(self._folder / str(number), size)
        except OSError as error:
            self.remove()
            raise ConfigurationError(
                f"there is no room in {self._parent} for the {sum(sizes)} bytes of a snapshot "
                f"({error.strerror or error}); free some space, or choose another --home"
            ) from error
        (self._folder / _HEADER).write_bytes(header.to_bytes())

    def missing(self, header: StateHeader) -> list[Place]:
        """Return the chunks that are not there yet. Reads what an earlier fetch left."""
        return [
            (buffer, index)
            for buffer, (_, _, hashes) in enumerate(header.buffers)
            for index, there in enumerate(self._hashes(buffer))
            if there != hashes[index]
        ]

    def size_of(self, place: Place) -> int:
        """Return how many bytes a chunk has."""
        buffer, index = place
        return min(CHUNK_BYTES, self._wanted.sizes[buffer] - index * CHUNK_BYTES)

    def keep(self, place: Place, data: bytes | bytearray, hash_: str) -> bool:
        """Write a chunk to its place if it has its hash; return whether it has."""
        if hashlib.sha256(data).hexdigest() != hash_:
            return False
        buffer, index = place
        # Opened each time: a thread that outlives its fetch must not write to another file.
        with (self._folder / str(buffer)).open("r+b") as file:
            file.seek(index * CHUNK_BYTES)
            file.write(data)
        return True

    def load(self, epoch: int) -> GlobalState:
        """Return the state, every byte of it verified.

        Raises:
            DamagedError: The disk does not hold what was written to it.
            MisbehavedError: A number in it is not finite: the root is a hostile one.
        """
        wanted = self._wanted
        optimizer: dict[str, Slot] = {}
        for number, name in enumerate(sorted(wanted.slots), 1):
            fresh = wanted.slots[name]
            slot = np.fromfile(self._folder / str(number), fresh.dtype)
            optimizer[name] = slot.reshape(fresh.shape)
        parameters = np.fromfile(self._folder / "0", np.float32)
        state = GlobalState(epoch, wanted.schema, parameters, optimizer)
        if state.root(wanted.manifest_hash) != wanted.root:
            raise DamagedError(
                f"the disk does not hold what was written to {self._folder}; check the disk"
            )
        for name, buffer in state.buffers():
            if not np.isfinite(buffer).all():
                raise MisbehavedError(
                    f"the state {wanted.root[:12]} is poisoned: not every number of its {name} is "
                    "finite"
                )
        return state

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hashes(self, buffer: int) -> Iterator[str | None]:
        """Yield the hash of each chunk in a buffer's file, or None if nothing was written yet."""
        size = self._wanted.sizes[buffer]
        if not self._begun:
            yield from [None] * _chunk_count(size)
            return
        with (self._folder / str(buffer)).open("rb") as file:
            for _ in range(_chunk_count(size)):
                yield hashlib.sha256(file.read(CHUNK_BYTES)).hexdigest()


def _chunk_count(size: int) -> int:
    return -(-size // CHUNK_BYTES)


def _allocate(path: Path, size: int) -> None:
    """Make `path` a file of `size` bytes whose room on the disk is sure; keep what is in it.

    Where the file system cannot promise room, writing may fail later.
    """
    with path.open("ab") as file:
        if file.tell() != size:
            file.truncate(size)
        if size:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
