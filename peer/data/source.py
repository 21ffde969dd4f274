"""Where shards come from, and which of them others may have.

Whatever the source, bytes that do not have their hash are refused, and none leave this machine that
the run's index does not name by their hash.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import lzma
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO

from peer.data.demo import DEMO_PATH
from peer.data.index import DataIndex, Shard
from peer.errors import DamagedError, UnavailableError

_SLICE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class PeerShards:
    """Shards from other peers.

    Attributes:
        index: The run's. Only its shards are asked for: not even the hash of a private file leaves.
        folder: Where they are kept, each under its hash; looked into before anything else.
        fetch: Asks for a shard and returns where it lies then, or None if nobody gave it.
    """

    index: DataIndex
    folder: Path
    fetch: Callable[[Shard], Path | None]

    def get(self, shard: Shard) -> Path | None:
        """Ask for `shard`, if it is one of the run's."""
        public = any(shard.sha256 == one.sha256 for one in self.index.shards)
        return self.fetch(shard) if public else None


class ShardSources:
    """The folders of this machine in which shards may lie, the vendored demo data last.

    Args:
        folders: They hold shards by name.
        peers: Whom to ask for what no folder has.
    """

    def __init__(self, folders: Sequence[Path], peers: PeerShards | None = None) -> None:
        self._folders = (*folders, *_demo_folders())
        self._peers = peers

    def read(self, shard: Shard) -> bytes:
        """Return the bytes of `shard`, verified.

        Raises:
            DamagedError: No source has it, or every source that has it has other bytes.
        """
        places = [folder / shard.name for folder in self._folders]
        if self._peers is not None:
            places.insert(0, self._peers.folder / shard.sha256)
        seen = []
        for place in places:
            data = _read(place, shard.bytes)
            if data is None:
                continue
            if _is(shard, data):
                return data
            seen.append(place)
        if self._peers is not None and (path := self._peers.get(shard)) is not None:
            data = _read(path, shard.bytes)
            if data is not None and _is(shard, data):
                return data
        if seen:
            raise DamagedError(f"{seen[0]} is not the file that the data index names by hash")
        where = f"{shard.name} is in none of the run's data folders"
        if self._peers is not None:
            raise UnavailableError(f"{where}, and no peer gave it")
        raise DamagedError(where)


class PublicShards:
    """What other peers may have of a run's data on this machine.

    A file is given only after its bytes were found to be what the run's index names by hash: what
    was changed since, or never was the run's, stays here.

    Args:
        index: The run's.
        folders: They hold shards by name. Never a private folder.
        kept: Where shards lie under their hash; what is packed is unpacked to there.
    """

    def __init__(self, index: DataIndex, folders: Sequence[Path], kept: Path) -> None:
        self._shards = {shard.sha256: shard for shard in index.shards}
        self._folders = (*folders, *_demo_folders())
        self._kept = kept
        self._verified: dict[Path, tuple[int, int]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def find(self, sha256: str) -> Path | None:
        """Return the file whose SHA-256 is `sha256`, or None if it is not here or not the run's."""
        shard = self._shards.get(sha256)
        if shard is None:
            return None
        kept = self._kept / sha256
        async with self._one_at_a_time:
            if await self._is_shard(kept, shard):
                return kept
            for folder in self._folders:
                if await self._is_shard(folder / shard.name, shard):
                    return folder / shard.name
                if await _unpack(folder / f"{shard.name}.xz", shard, kept):
                    return kept
        return None

    async def _is_shard(self, path: Path, shard: Shard) -> bool:
        """Return whether `path` holds `shard`; what it holds is read once, until it changes."""
        seen = _state(path)
        if seen is None or seen[0] != shard.bytes:
            return False
        if self._verified.get(path) == seen:
            return True
        try:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                async for piece in _slices(file):
                    digest.update(piece)
        except OSError:
            return False
        if digest.hexdigest() != shard.sha256:
            return False
        self._verified[path] = seen
        return True


def _state(path: Path) -> tuple[int, int] | None:
    """Return the size of a file and when it was changed, in nanoseconds; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


async def _unpack(packed: Path, shard: Shard, target: Path) -> bool:
    """Write what `packed` holds to `target`, if it is `shard`."""
    fresh = target.with_name(f"{target.name}.unpacked")
    digest, left_bytes = hashlib.sha256(), shard.bytes
    try:
        with lzma.open(packed) as source:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                async for piece in _slices(source):
                    left_bytes -= len(piece)
                    if left_bytes < 0:
                        return False
                    digest.update(piece)
                    file.write(piece)
        if digest.hexdigest() == shard.sha256:
            fresh.replace(target)
            return True
    except (OSError, lzma.LZMAError, EOFError):
        return False
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    return False


async def _slices(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield what is in `file` piece by piece, giving others their turn."""
    while piece := file.read(_SLICE_BYTES):
        yield piece
        await asyncio.sleep(0)


def _demo_folders() -> list[Path]:
    return sorted(path for path in DEMO_PATH.iterdir() if path.is_dir())


def _is(shard: Shard, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == shard.sha256


def _read(path: Path, size: int) -> bytes | None:
    """Return the file at `path`, or what `path`.xz holds, at most `size` bytes and one more."""
    try:
        with path.open("rb") as file:
            return file.read(size + 1)
    except OSError:
        pass
    try:
        with lzma.open(f"{path}.xz") as packed:
            return packed.read(size + 1)
    except (OSError, lzma.LZMAError, EOFError):
        return None
