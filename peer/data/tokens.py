"""A cache of tokenised shards, so that a shard is tokenised once in the life of a run."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt


class TokenCache:
    """Arrays of token ids in a folder, memory-mapped.

    A file is named by the hash of what made it, so it never goes stale; one that cannot be read
    is made anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, make: Callable[[], npt.NDArray[np.uint32]]) -> npt.NDArray[np.uint32]:
        """Return the token ids uint32 [n] under `key`, calling `make` where they are not kept."""
        path = self._folder / f"{key}.npy"
        try:
            cached: npt.NDArray[np.uint32] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return self._keep(path, make())
        return cached if cached.dtype == np.uint32 and cached.ndim == 1 else make()

    def _keep(self, path: Path, tokens: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, fresh = tempfile.mkstemp(prefix=".tokens-", dir=self._folder)
            with os.fdopen(descriptor, "wb") as file:
                np.save(file, tokens, allow_pickle=False)
            Path(fresh).replace(path)
        except OSError:
            # A full disk costs only the time to tokenise again.
            return tokens
        return tokens
