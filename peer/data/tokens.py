"""A cache of tokenised shards, so that a shard is tokenised once in the life of a run."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

_DIGEST_BYTES = 32

Ids = npt.NDArray[np.uint32]


class TokenCache:
    """Arrays of token ids in a folder, memory-mapped.

    A file is named by the hash of what made it, so it never goes stale. It begins with the SHA-256
    of the rest: one that is damaged is made anew, never trained on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, make: Callable[[], Ids]) -> Ids:
        """Return the token ids uint32 [n] under `key`, calling `make` where they are not kept."""
        path = self._folder / f"{key}.ids"
        kept = _read(path)
        if kept is not None:
            return kept
        made = make()
        # A full disk costs only the time to tokenise again.
        with contextlib.suppress(OSError):
            self._keep(path, made)
        return made

    def _keep(self, path: Path, ids: Ids) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        data = ids.astype("<u4", copy=False).data.cast("B")
        descriptor, fresh = tempfile.mkstemp(prefix=".tokens-", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            Path(fresh).replace(path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise


def _read(path: Path) -> Ids | None:
    """Return the ids that the file at `path` holds, or None if they are not the ones it names."""
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError):  # not there, or empty
        return None
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if len(body) % 4 or hashlib.sha256(body.data).digest() != digest.tobytes():
        return None
    return body.view("<u4")
