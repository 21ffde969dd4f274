"""The log of certified averages: what a peer that joins replays on top of its snapshot.

Each average stands under the root of the state that it extends, so a reader follows one line of
states and no other. The newest averages stay in memory, older ones go to files, which are lost
at the next start on purpose: everything here can be had from another peer. What is older than
the snapshots that peers offer is of no use and goes. Nothing here checks a certificate.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from peer.swarm.wire import Body

log = logging.getLogger(__name__)

_KEPT_CERTIFICATES = 4096
_CERTIFICATE_BYTES = 64 << 20
_SUFFIX = ".average"


@dataclasses.dataclass(frozen=True)
class Kept:
    """A certified average.

    Attributes:
        epoch: The epoch of the state that it extends.
        certificate: The proof, as JSON text.
        parts: The encoded parts in their order; one that lies on the disk is read when asked for,
            which raises OSError if the disk fails.
        sizes: Their bytes.
    """

    epoch: int
    certificate: str
    parts: Sequence[Body]
    sizes: tuple[int, ...]

    def piece(self, index: int, start: int, size: int) -> Body:
        """Return up to `size` bytes of a part; OSError if the disk fails."""
        if isinstance(self.parts, _Spilled):
            return self.parts.piece(index, start, min(size, self.sizes[index] - start))
        return memoryview(self.parts[index])[start : start + size]


@dataclasses.dataclass(eq=False)
class _Entry:
    """An average with its place: in memory, or in a file."""

    epoch: int
    certificate: str
    sizes: tuple[int, ...]
    parts: tuple[Body, ...] | None
    path: Path
    condemned: bool = False

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


class AverageLog:
    """Certified averages by the state that they extend; every method may be called by any thread.

    Args:
        folder: For files of its own; those that an earlier process left are removed.
        memory_bytes: How much of the newest averages stays in memory.
        total_bytes: How much is kept altogether, on the disk and in memory; beyond it the oldest
            go, whoever needs them.
    """

    def __init__(self, folder: Path, memory_bytes: int, total_bytes: int = 8 << 30) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._total_bytes = total_bytes
        self._entries: dict[str, _Entry] = {}  # oldest first
        self._certificates: dict[str, str] = {}  # oldest first
        self._pins: list[int] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # held for moments: the network's thread waits for it
        self._spilling = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{_SUFFIX}"):
            leftover.unlink(missing_ok=True)

    @property
    def total_bytes(self) -> int:
        """How many bytes of averages there are, in memory and on the disk."""
        with self._lock:
            return self._total()

    def add(self, base_root: str, epoch: int, certificate_json: str, parts: Sequence[Body]) -> None:
        """Keep the average that extends the state `base_root` at `epoch`, in memory at first.

        Another average on the same base takes the place of the one before.
        """
        path = self._folder / f"{next(self._numbers)}{_SUFFIX}"
        sizes = tuple(len(part) for part in parts)
        entry = _Entry(epoch, certificate_json, sizes, tuple(parts), path)
        with self._lock:
            self._forget(base_root)
            self._entries[base_root] = entry
            self._certificates.pop(base_root, None)
            self._certificates[base_root] = certificate_json
            self._trim()

    @property
    def too_much_in_memory(self) -> bool:
        """Whether `spill` has something to do."""
        return self._next_to_spill() is not None

    def spill(self) -> None:
        """Write to the disk what is too much in memory, the oldest averages first."""
        with self._spilling:
            while (old := self._next_to_spill()) is not None:
                self._spill(*old)

    def get(self, base_root: str) -> Kept | None:
        """Return the average that extends `base_root`, or None.

        What was returned stays readable when the log drops the average.
        """
        with self._lock:
            entry = self._entries.get(base_root)
            if entry is None:
                return None
            parts: Sequence[Body] | None = entry.parts
            if parts is None:
                try:
                    parts = _Spilled(entry.path, entry.sizes)
                except OSError as error:
                    log.warning("a kept average cannot be read: %s", error)
                    self._forget(base_root)
                    return None
        return Kept(entry.epoch, entry.certificate, parts, entry.sizes)

    def certificate(self, base_root: str) -> str | None:
        """Return the certificate of the average on `base_root`; it outlasts the average."""
        with self._lock:
            return self._certificates.get(base_root)

    def drop_before(self, epoch: int) -> None:
        """Drop the averages that extend a state before `epoch`; pinned ones when they are let go.

        Call it with the oldest epoch of which this peer has a snapshot.
        """
        with self._lock:
            for entry in self._entries.values():
                entry.condemned |= entry.epoch < epoch
            self._drop_condemned()

    def drop_all(self) -> None:
        """Drop every average, and forget the certificates."""
        with self._lock:
            self._certificates.clear()
            for base_root in list(self._entries):
                self._forget(base_root)

    @contextlib.contextmanager
    def pin(self, epoch: int) -> Iterator[None]:
        """Keep the averages that extend states from `epoch` on while the context lasts."""
        with self._lock:
            self._pins.append(epoch)
        try:
            yield
        finally:
            with self._lock:
                self._pins.remove(epoch)
                self._drop_condemned()

    def _total(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def _trim(self) -> None:
        total = self._total()
        while total > self._total_bytes:
            total -= self._forget(next(iter(self._entries)))
        size = sum(len(text) for text in self._certificates.values())
        while len(self._certificates) > _KEPT_CERTIFICATES or size > _CERTIFICATE_BYTES:
            size -= len(self._certificates.pop(next(iter(self._certificates))))

    def _drop_condemned(self) -> None:
        pinned = min(self._pins, default=None)
        for base_root, entry in list(self._entries.items()):
            if entry.condemned and (pinned is None or entry.epoch < pinned):
                self._forget(base_root)

    def _forget(self, base_root: str) -> int:
        """Drop an average and its file; return its size."""
        entry = self._entries.pop(base_root, None)
        if entry is None:
            return 0
        if entry.parts is None:
            with contextlib.suppress(OSError):
                entry.path.unlink()
        return entry.bytes

    def _next_to_spill(self) -> tuple[str, _Entry] | None:
        with self._lock:
            inside = [item for item in self._entries.items() if item[1].parts is not None]
            over = sum(entry.bytes for _, entry in inside) > self._memory_bytes
            return inside[0] if over else None

    def _spill(self, base_root: str, entry: _Entry) -> None:
        """Move an average to its file; readers are served from memory meanwhile."""
        assert entry.parts is not None
        try:
            with entry.path.open("wb") as file:
                file.writelines(entry.parts)
        except OSError as error:
            log.warning("an average for joiners is dropped, it cannot be written: %s", error)
            with contextlib.suppress(OSError):
                entry.path.unlink()
            with self._lock:
                if self._entries.get(base_root) is entry:
                    self._forget(base_root)
            return
        with self._lock:
            if self._entries.get(base_root) is entry:
                entry.parts = None
                return
        entry.path.unlink(missing_ok=True)


class _Spilled(Sequence[bytes]):
    """Parts in a file, which may be removed meanwhile.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, sizes: tuple[int, ...]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._sizes = sizes
        self._starts = (0, *itertools.accumulate(sizes))

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.piece(index, 0, self._sizes[index])

    def piece(self, index: int, start: int, size: int) -> bytes:
        """Return `size` bytes of a part from `start` on."""
        start += self._starts[range(len(self))[index]]
        data = os.pread(self._descriptor, size, start)
        while len(data) < size:  # one call reads at most 2 GiB
            more = os.pread(self._descriptor, size - len(data), start + len(data))
            if not more:
                raise OSError(f"{size} bytes of a part end after {len(data)}")
            data += more
        return data
