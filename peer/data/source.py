"""Where shards come from. Whatever the source, bytes that do not have their hash are refused."""

import hashlib
import lzma
from collections.abc import Sequence
from pathlib import Path

from peer.data.demo import DEMO_PATH
from peer.data.index import Shard
from peer.errors import DamagedError


class ShardSources:
    """The folders of this machine in which shards may lie, the vendored demo data last."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = (*folders, *sorted(path for path in DEMO_PATH.iterdir() if path.is_dir()))

    def read(self, shard: Shard) -> bytes:
        """Return the bytes of `shard`, verified.

        Raises:
            DamagedError: No source has it, or every source that has it has other bytes.
        """
        seen = []
        for folder in self._folders:
            data = _read(folder / shard.name, shard.bytes)
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() == shard.sha256:
                return data
            seen.append(folder / shard.name)
        if seen:
            raise DamagedError(f"{seen[0]} is not the file that the data index names by hash")
        raise DamagedError(f"{shard.name} is in none of the run's data folders")


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
