"""The flat buffers of a saved state, read piece by piece from its file on the disk.

A checkpoint's state.safetensors holds the parameters tensor by tensor; a transfer speaks of flat
buffers cut into chunks. This finds where a chunk lies, without ever loading the whole.
"""

import dataclasses
import hashlib
import json
import math
import os
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from peer.errors import DamagedError
from peer.training.state import CHUNK_BYTES, StateHeader

_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000
"""As safetensors itself has it."""
_OPTIMIZER = "optimizer."
_Span = tuple[int, int]
OnChunk = Callable[[str, bytes], None]
_DTYPES = {"F32": "<f4", "F64": "<f8"}


@dataclasses.dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    data_offsets: _Span

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(_DTYPES[self.dtype]).itemsize


_TENSORS = TypeAdapter(dict[str, _Tensor])


@dataclasses.dataclass(frozen=True)
class _Buffer:
    """A flat buffer: its name, numpy's word for its dtype, and its pieces of the file in order."""

    name: str
    dtype: str
    spans: tuple[_Span, ...]

    @property
    def chunks(self) -> int:
        return -(-sum(stop - start for start, stop in self.spans) // CHUNK_BYTES)


class FlatFile:
    """An open state.safetensors; stays readable when the file is removed.

    Raises:
        DamagedError: It is not the file of a state.
        OSError: It cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        # Closed with the last reader: closing earlier could give a reader another file's bytes.
        weakref.finalize(self, os.close, self._descriptor)
        tensors, start = self._read_tensors()
        parameters = {n: t for n, t in tensors.items() if not n.startswith(_OPTIMIZER)}
        self._tensors = tuple((name, parameters[name].shape) for name in sorted(parameters))
        spans = _joined([parameters[name].data_offsets for name in sorted(parameters)], start)
        buffers = [_Buffer("parameters", _DTYPES["F32"], spans)]
        for name in sorted(set(tensors) - set(parameters)):
            spans = _joined([tensors[name].data_offsets], start)
            buffers.append(_Buffer(name, _DTYPES[tensors[name].dtype], spans))
        self._buffers = tuple(buffers)
        self.size_bytes = os.fstat(self._descriptor).st_size

    def chunk(self, buffer: int, index: int) -> bytes:
        """Return a chunk of the `buffer`-th buffer, in the order in which the root has them.

        Raises:
            IndexError: There is no such chunk.
            DamagedError: The file is shorter than it says.
            OSError: The disk fails.
        """
        if not (0 <= buffer < len(self._buffers) and 0 <= index < self._buffers[buffer].chunks):
            raise IndexError(f"there is no chunk {index} of buffer {buffer}")
        begin, pieces = index * CHUNK_BYTES, []
        end = begin + CHUNK_BYTES
        for start, stop in self._buffers[buffer].spans:
            size = stop - start
            if begin < size and end > 0:
                first = max(begin, 0)
                pieces.append(self._read(start + first, min(end, size) - first))
            begin, end = begin - size, end - size
        return b"".join(pieces)

    def header(
        self, manifest_hash: str, epoch: int, on_chunk: OnChunk = lambda _dtype, _chunk: None
    ) -> StateHeader:
        """Return what the state root is made of. Reads every byte once.

        Args:
            manifest_hash: The run's.
            epoch: The state's.
            on_chunk: Is given numpy's word for the dtype and the bytes of each chunk, for whoever
                looks at the numbers, too.

        Raises:
            DamagedError: The file is shorter than it says.
            OSError: The disk fails.
        """
        return StateHeader(
            manifest=manifest_hash,
            epoch=epoch,
            tensors=self._tensors,
            chunk_bytes=CHUNK_BYTES,
            buffers=tuple(
                (buffer.name, buffer.dtype, tuple(self._chunk_hashes(number, on_chunk)))
                for number, buffer in enumerate(self._buffers)
            ),
        )

    def _chunk_hashes(self, buffer: int, on_chunk: OnChunk) -> Iterator[str]:
        for index in range(self._buffers[buffer].chunks):
            chunk = self.chunk(buffer, index)
            on_chunk(self._buffers[buffer].dtype, chunk)
            yield hashlib.sha256(chunk).hexdigest()

    def _read_tensors(self) -> tuple[dict[str, _Tensor], int]:
        """Return the file's tensors by name, and where their data begins."""
        (length,) = _LENGTH.unpack(self._read(0, _LENGTH.size))
        if length > min(_MAX_HEADER_BYTES, os.fstat(self._descriptor).st_size):
            raise DamagedError(f"{self._path} is no safetensors file")
        try:
            body = json.loads(self._read(_LENGTH.size, length))
            if isinstance(body, dict):
                body.pop("__metadata__", None)
            tensors = _TENSORS.validate_python(body)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{self._path} is no safetensors file") from error
        for name, tensor in tensors.items():
            known = _DTYPES if name.startswith(_OPTIMIZER) else ("F32",)
            start, stop = tensor.data_offsets
            if tensor.dtype not in known or start < 0 or stop - start != tensor.bytes:
                raise DamagedError(f"{self._path} holds {name!r} as no state does")
        return tensors, _LENGTH.size + length

    def _read(self, start: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, start)
        if len(data) != size:
            raise DamagedError(f"{self._path} is cut short")
        return data


def _joined(spans: Sequence[_Span], start: int) -> tuple[_Span, ...]:
    """Return `spans`, moved by `start`, with those that touch made one."""
    joined: list[_Span] = []
    for begin, end in spans:
        if joined and joined[-1][1] == start + begin:
            joined[-1] = (joined[-1][0], start + end)
        else:
            joined.append((start + begin, start + end))
    return tuple(joined)
