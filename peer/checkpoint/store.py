"""The checkpoints of one run on this machine: written whole or not at all, verified on load."""

import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from peer.checkpoint.format import HEAD, STATE, Checkpoint, read_files, write_files
from peer.errors import ConfigurationError, DamagedError
from peer.training.state import Schema, Slot

log = logging.getLogger(__name__)

_STAGING = ".staging-"
_DAMAGED = "damaged-"


class Stored(NamedTuple):
    """What the head of a checkpoint on the disk says of it."""

    epoch: int
    state_root: str
    generation: int


class CheckpointStore:
    """A folder of checkpoints.

    One thread saves and loads; any thread may ask what there is and hold it back from deletion.

    Args:
        folder: Made if it is not there.
        manifest_hash: The run whose checkpoints these are.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, manifest_hash: str, keep: int) -> None:
        self._folder = folder
        self.manifest_hash = manifest_hash
        self._keep = keep
        self._heads: dict[str, Stored] = {}
        self._held: list[str] = []
        self._doomed: set[str] = set()
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def names(self) -> list[str]:
        """Return the names of the checkpoints, newest epoch first."""
        names = (path.name for path in self._folder.iterdir() if path.is_dir())
        mine = (name for name in names if name.partition("-")[0].isdigit())
        return sorted(mine, key=lambda name: (int(name.partition("-")[0]), name), reverse=True)

    def save(self, checkpoint: Checkpoint) -> int:
        """Write `checkpoint` and drop those that are too many; return the bytes written.

        A state that is already there is not written again.

        The directory appears by one rename after all its bytes are on the disk: a crash at any
        moment leaves the previous checkpoints as they were.

        Raises:
            OSError: The disk is full or fails; nothing was changed.
        """
        target = self._folder / checkpoint.name
        if target.exists():
            return 0
        staging = self._folder / f"{_STAGING}{checkpoint.name}"
        try:
            staging.mkdir(parents=True)
            write_files(checkpoint, self.manifest_hash, staging)
            size = sum(_sync(path) for path in staging.iterdir())
            _sync(staging)
            staging.rename(target)
            _sync(self._folder)
        except BaseException:
            for path in (staging, target):
                shutil.rmtree(path, ignore_errors=True)
            raise
        self._drop_old()
        return size

    def leave(self, epoch: int) -> None:
        """Drop the checkpoints beyond `epoch`: they are of a branch that was left.

        Otherwise they would be the newest ones for ever, and the next start would go back there.
        """
        with self._lock:
            left = {n for n in self.names() if int(n.partition("-")[0]) > epoch}
            left -= set(self._held)
            self._doomed |= left
        for name in left:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        with self._lock:
            self._doomed -= left

    def load_newest(
        self, schema: Schema, slots: dict[str, Slot], on_damaged: Callable[[str, str], None]
    ) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, or None where there never was one.

        A damaged one is set aside under another name, and `on_damaged(name, reason)` is told.

        Raises:
            DamagedError: There are checkpoints, and every one is damaged.
            ConfigurationError: The disk fails, or reading is not allowed.
        """
        names = self.names()
        for name in names:
            try:
                return read_files(self._folder / name, self.manifest_hash, schema, slots)
            except DamagedError as error:
                reason = str(error)
                log.warning("checkpoint %s is damaged and set aside: %s", name, reason)
                self._set_aside(name)
                on_damaged(name, reason)
            except OSError as error:
                raise ConfigurationError(
                    f"the checkpoint {self._folder / name} cannot be read: {error.strerror}; mend "
                    "the disk or the permissions"
                ) from error
        if names or any(self._folder.glob(f"{_DAMAGED}*")):
            raise DamagedError(
                f"every checkpoint in {self._folder} is damaged; restore one from a backup, or "
                "delete that folder to begin the run from its initial state"
            )
        return None

    def roots(self) -> list[Stored]:
        """Return what checkpoints there are, newest epoch first; cheap enough to ask often.

        A head that cannot be read is left out.
        """
        names = self.names()
        found = {name: self._heads.get(name) or self._read_head(name) for name in names}
        self._heads = {name: head for name, head in found.items() if head is not None}
        return list(self._heads.values())

    @contextlib.contextmanager
    def hold(self, state_root: str) -> Iterator[tuple[int, Path]]:
        """Keep a checkpoint from being dropped while the context lasts; give epoch and state file.

        Raises:
            LookupError: There is none of that root, or it is being dropped.
        """
        self.roots()
        heads = self._heads.items()
        found = next(((n, head) for n, head in heads if head.state_root == state_root), None)
        with self._lock:
            if found is None or found[0] in self._doomed:
                raise LookupError(f"there is no checkpoint of the state {state_root}")
            name, head = found
            self._held.append(name)
        try:
            yield head.epoch, self._folder / name / STATE
        finally:
            with self._lock:
                self._held.remove(name)

    def written_s(self, checkpoint: Checkpoint) -> float:
        """Return when `checkpoint`, which is in the store, was written, in Unix seconds."""
        return (self._folder / checkpoint.name).stat().st_mtime

    def _read_head(self, name: str) -> Stored | None:
        epoch, _, root = name.partition("-")
        try:
            head = json.loads((self._folder / name / HEAD).read_text())
            stored = Stored(head["epoch"], head["state_root"], head["generation"])
            named = stored.epoch == int(epoch) and stored.state_root.startswith(root)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        return stored if named else None

    def _drop_old(self) -> None:
        with self._lock:
            old = set(self.names()[self._keep :]) - set(self._held)
            self._doomed |= old
        for name in old:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        with self._lock:
            self._doomed -= old

    def _set_aside(self, name: str) -> None:
        target = self._folder / f"{_DAMAGED}{name}"
        shutil.rmtree(target, ignore_errors=True)
        (self._folder / name).rename(target)


def _sync(path: Path) -> int:
    """Force `path` onto the disk; return its size in bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
