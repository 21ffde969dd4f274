"""A folder of checkpoints, as any process sees it: the daemon's and a command's beside it.

What is read or given away is held by a lock of the kernel on its directory, which ends with its
holder; what is written appears by one rename; what is dropped disappears by one, and only if nobody
holds it. Such renames are one process's at a time, by a lock on the folder. Nothing here decides
what may go, and making a `Shelf` changes nothing.

    <epoch>-<root>/       a checkpoint; see `peer.checkpoint.format`
    lineage/<...>.json    the annotations of checkpoints that were dropped
    damaged-<...>/        what failed to load
    .staging-<...>/       what the daemon is writing, or what is being removed
    .fetching/            what `ctpeer checkpoint fetch` has so far of a state, and writes
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from peer.checkpoint.annotation import MAX_BYTES, Annotation
from peer.checkpoint.format import ANNOTATION
from peer.errors import ConfigurationError

STAGING, DAMAGED = ".staging-", "damaged-"
_FETCHING = ".fetching"
_LINEAGE = "lineage"
_RENAMING_TIMEOUT_S, _RENAMING_PAUSE_S = 20.0, 0.02
_KEPT_ANNOTATIONS = 8192
"""About 30 MB on the disk; at a checkpoint every 30 seconds the last three days."""


class Shelf:
    """The checkpoints below `folder`, which need not be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the names of the checkpoints, newest epoch first."""
        return sorted(self._directories(""), key=_age, reverse=True)

    def damaged(self) -> list[str]:
        """Return the names of what was set aside, newest epoch first."""
        found = self._directories(DAMAGED)
        return sorted(found, key=lambda name: _age(name.removeprefix(DAMAGED)), reverse=True)

    def path(self, name: str) -> Path:
        """Return the directory of a checkpoint."""
        return self.folder / name

    def size_bytes(self, name: str) -> int:
        """Return how much room a checkpoint takes; 0 if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            return sum(path.stat().st_size for path in self.path(name).iterdir())
        return 0

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Path]:
        """Keep a checkpoint from being dropped, by any process, while the context lasts.

        Raises:
            LookupError: There is none of that name, or it is being dropped.
        """
        path = self.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise LookupError(f"there is no checkpoint {name}") from error
        try:
            if not _lock(descriptor, fcntl.LOCK_SH) or not _is_at(descriptor, path):
                raise LookupError(f"the checkpoint {name} is being dropped")
            yield path
        finally:
            # A forked child may have the descriptor, too: closing alone would not let go.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextlib.contextmanager
    def fetching(self) -> Iterator[Path]:
        """Give the directory in which a state is gathered, to one process at a time.

        What is in it stays for the next one.

        Raises:
            ConfigurationError: Another process has it.
        """
        path = self.folder / _FETCHING
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not _lock(descriptor, fcntl.LOCK_EX):
                raise ConfigurationError(
                    f"another `ctpeer checkpoint fetch` is at work in {path}; wait until it has "
                    "ended, or end it: what it has so far is not lost"
                )
            yield path
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def add(
        self,
        name: str,
        write: Callable[[Path], None],
        staging: Path,
        may_replace: Callable[[], bool] = lambda: False,
    ) -> int:
        """Add a checkpoint after all its bytes are on the disk; return how many.

        A crash at any moment leaves the others as they were.

        Args:
            name: Its name.
            write: Writes its files into the new directory that it is given.
            staging: Where that one lies until it is whole; in the folder, and nobody else's.
            may_replace: Is asked, where one of that name is there at last, whether to take its
                place, also if it is held: whoever reads it finds the same state.

        Raises:
            OSError: The disk is full or fails, or one of that name is there; nothing was changed.
        """
        target, old = self.path(name), self._doomed(name)
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, staging, ignore_errors=True)
            staging.mkdir(parents=True)
            write(staging)
            size = sum(_sync(path) for path in staging.iterdir())
            _sync(staging)
            with self._renaming():
                if target.exists() and may_replace():
                    target.rename(old)
                    undo.callback(old.rename, target)
                staging.rename(target)
                undo.callback(shutil.rmtree, target, ignore_errors=True)
            _sync(self.folder)
            undo.pop_all()
        if old.exists():
            shutil.rmtree(old, ignore_errors=True)
        return size

    def set_aside(self, name: str) -> None:
        """Give a damaged checkpoint another name, under which nothing loads it."""
        target = self.folder / f"{DAMAGED}{name}"
        shutil.rmtree(target, ignore_errors=True)
        self.path(name).rename(target)

    def drop(self, name: str, *, remember: bool) -> bool:
        """Remove a checkpoint; return False if it or the folder is held, or if it is gone.

        Args:
            name: Its name.
            remember: Whether its annotation stays, for the lineage.
        """
        path = self.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            if not _lock(descriptor, fcntl.LOCK_EX):
                return False
            if remember:
                self._remember(name)
            doomed = self._doomed(name)
            try:
                with self._renaming():
                    if not _is_at(descriptor, path):
                        return False
                    path.rename(doomed)
            except TimeoutError:
                return False
            shutil.rmtree(doomed, ignore_errors=True)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        return True

    def annotation(self, name: str) -> Annotation | None:
        """Return what is said beside a checkpoint, with its signature yet to be checked.

        Raises:
            ValueError: The file is there and is no annotation.
            OSError: It cannot be read.
        """
        return _read(self.path(name) / ANNOTATION)

    def remembered(self) -> list[Annotation]:
        """Return the annotations of what was dropped, newest epoch first; junk is left out."""
        found = []
        for path in self._remembered_paths():
            with contextlib.suppress(OSError, ValueError):
                annotation = _read(path)
                if annotation is not None:
                    found.append(annotation)
        return found

    def _doomed(self, name: str) -> Path:
        """Return where a checkpoint lies while it is removed."""
        return self.folder / f"{STAGING}{os.getpid()}-{name}"

    @contextlib.contextmanager
    def _renaming(self) -> Iterator[None]:
        """Let no other process put a checkpoint in its place, or take one away.

        Raises:
            TimeoutError: Another one holds the folder, though it takes no more than two renames.
        """
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            until_s = time.monotonic() + _RENAMING_TIMEOUT_S
            while not _lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() >= until_s:
                    raise TimeoutError(errno.ETIMEDOUT, "another process holds the checkpoints")
                time.sleep(_RENAMING_PAUSE_S)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _remember(self, name: str) -> None:
        """Copy the annotation of a checkpoint to the lineage's; what is too old there goes."""
        source, folder = self.path(name) / ANNOTATION, self.folder / _LINEAGE
        with contextlib.suppress(OSError):
            if not source.is_file():
                return
            folder.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / f"{name}.json")
            for old in self._remembered_paths()[_KEPT_ANNOTATIONS:]:
                old.unlink(missing_ok=True)

    def _remembered_paths(self) -> list[Path]:
        paths = (self.folder / _LINEAGE).glob("*.json")
        return sorted((p for p in paths if _is_name(p.name)), key=lambda p: _age(p.stem))[::-1]

    def _directories(self, prefix: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
            return [n for n in names if n.startswith(prefix) and _is_name(n.removeprefix(prefix))]
        return []


def epoch_of(name: str) -> int:
    """Return the epoch in a checkpoint's name."""
    return int(name.partition("-")[0])


def _age(name: str) -> tuple[int, str]:
    return epoch_of(name), name


def _is_name(name: str) -> bool:
    first = name.partition("-")[0]
    return first.isascii() and first.isdigit()


def _sync(path: Path) -> int:
    """Force `path` onto the disk; return its size in bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open directory is still the one that lies at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> Annotation | None:
    try:
        with path.open("rb") as file:
            return Annotation.from_bytes(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        return None
