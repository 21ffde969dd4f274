"""The checkpoints of one run on this machine: written whole or not at all, verified on load."""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from peer.checkpoint.annotation import Author, finite_scores
from peer.checkpoint.format import (
    ANNOTATION,
    HEAD,
    STATE,
    Checkpoint,
    annotate,
    is_fetched,
    name_of,
    read_files,
    read_head,
    write_files,
)
from peer.checkpoint.keep import Candidate, Keep, decide
from peer.checkpoint.papers import Papers
from peer.checkpoint.room import Room
from peer.checkpoint.shelf import DAMAGED, STAGING, Shelf, epoch_of
from peer.errors import ConfigurationError, DamagedError
from peer.run.directory import write_atomically
from peer.training.state import Schema, Slot

log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """What the head of a checkpoint on the disk says of it.

    Attributes:
        epoch: The state's.
        state_root: The state's root.
        generation: How many rollbacks the run had seen.
        fetched: Whether a person fetched it: training neither goes on from it nor drops it.
    """

    epoch: int
    state_root: str
    generation: int
    fetched: bool


_Version = tuple[int, int] | None


class CheckpointStore:
    """A folder of checkpoints.

    One thread saves, annotates and loads; any thread may ask what there is and hold it back from
    deletion. There is one store a folder, the daemon's: others look at it, and add what they
    fetched, through a `Shelf`.

    Args:
        folder: Made if it is not there.
        manifest_hash: The run whose checkpoints these are.
        keep: How many of the newest stay, or a whole policy.
        author: Who annotates them; without one they have no annotations.
        room: How much of the disk may be taken.
    """

    def __init__(
        self,
        folder: Path,
        manifest_hash: str,
        keep: int | Keep,
        author: Author | None = None,
        room: Room | None = None,
    ) -> None:
        self._folder = folder
        self._shelf = Shelf(folder)
        self.manifest_hash = manifest_hash
        self._keep = keep if isinstance(keep, Keep) else Keep(last=keep)
        self._author = author
        self._room = room or Room()
        self._heads: dict[str, tuple[_Version, Stored | None]] = {}
        self._protected: frozenset[str] = frozenset()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def names(self) -> list[str]:
        """Return the names of the checkpoints, newest epoch first."""
        return self._shelf.names()

    def save(self, checkpoint: Checkpoint) -> int:
        """Write `checkpoint` and drop those that are too many; return the bytes written.

        A state that is already there is not written again, unless it was fetched: training could
        not go on from that.

        Raises:
            OSError: The disk is full or fails, or no more of it may be taken; nothing was changed.
        """
        if self._room.is_short:
            self._drop_old()
        self._room.check()
        name = checkpoint.name
        if self._shelf.path(name).exists() and not self._is_fetched(name):
            return 0
        author = self._author
        annotation = annotate(checkpoint, self.manifest_hash, author) if author else None

        def write(folder: Path) -> None:
            write_files(checkpoint, self.manifest_hash, folder, annotation)

        staging = self._folder / f"{STAGING}{name}"
        # Whatever came there while this was written a person fetched: nobody else trains here.
        size = self._shelf.add(name, write, staging, lambda: True)
        self._drop_old()
        return size

    def leave(self, epoch: int) -> None:
        """Drop our checkpoints beyond `epoch`: they are of a branch that was left.

        Otherwise they would be the newest ones for ever, and the next start would go back there.
        """
        for name in self.names():
            if epoch_of(name) > epoch and not self._is_fetched(name):
                self._shelf.drop(name, remember=False)

    def annotate(
        self,
        state_root: str,
        scores: Mapping[str, float] | None = None,
        accepted_by: str | None = None,
    ) -> bool:
        """Add to what is said beside a checkpoint of ours; return False if there is none.

        Args:
            state_root: The state.
            scores: On held-out data, by name; what is not finite is left out.
            accepted_by: The hash of the verdict that accepts the state.

        Raises:
            OSError: The disk is full or fails; what was said before stays.
        """
        found = self._find(state_root)
        if found is None or self._author is None:
            return False
        name = name_of(found.epoch, state_root)
        try:
            known = self._shelf.annotation(name)
        except ValueError:
            return False
        if known is None or known.writer != self._author.identity.peer_id:
            return False
        notes = dataclasses.replace(
            known.notes,
            scores=known.notes.scores | finite_scores(scores or {}),
            accepted_by=accepted_by or known.notes.accepted_by,
        )
        path = self._shelf.path(name) / ANNOTATION
        write_atomically(path, self._author.sign(notes).to_bytes())
        return True

    def load_newest(
        self, schema: Schema, slots: dict[str, Slot], on_damaged: Callable[[str, str], None]
    ) -> Checkpoint | None:
        """Return our newest checkpoint that is whole, or None where there never was one.

        Those that a person fetched are passed over: they do not say where our training stood. A
        damaged one is set aside under another name, and `on_damaged(name, reason)` is told.

        Raises:
            DamagedError: There are checkpoints, and every one is damaged.
            ConfigurationError: The disk fails, or reading is not allowed.
        """
        names = [name for name in self.names() if not self._is_fetched(name)]
        for name in names:
            try:
                return read_files(self._folder / name, self.manifest_hash, schema, slots)
            except DamagedError as error:
                reason = str(error)
                log.warning("checkpoint %s is damaged and set aside: %s", name, reason)
                self._shelf.set_aside(name)
                on_damaged(name, reason)
            except OSError as error:
                raise ConfigurationError(
                    f"the checkpoint {self._folder / name} cannot be read: {error.strerror}; mend "
                    "the disk or the permissions"
                ) from error
        if names or any(self._folder.glob(f"{DAMAGED}*")):
            raise DamagedError(
                f"every checkpoint in {self._folder} is damaged; restore one from a backup, or "
                "delete that folder to begin the run from its initial state"
            )
        return None

    def load(self, state_root: str, schema: Schema, slots: dict[str, Slot]) -> Checkpoint | None:
        """Return the checkpoint of a state, or None if there is no whole one; in any thread."""
        found = self._find(state_root)
        if found is None:
            return None
        try:
            with self._shelf.hold(name_of(found.epoch, state_root)) as path:
                return read_files(path, self.manifest_hash, schema, slots)
        except (LookupError, OSError, DamagedError) as error:
            log.warning("the checkpoint of epoch %d cannot be read: %s", found.epoch, error)
            return None

    def protect(self, roots: Collection[str]) -> None:
        """Keep the checkpoints of these states, and no longer those that were named before."""
        self._protected = frozenset(roots)

    def papers(self, state_root: str) -> Papers:
        """Return what lies beside the state of that root, not checked.

        Raises:
            LookupError: There is none of that root, or it is being dropped.
            DamagedError: It cannot be read.
            OSError: The disk fails.
        """
        found = self._find(state_root)
        if found is None:
            raise LookupError(f"there is no checkpoint of the state {state_root}")
        name = name_of(found.epoch, state_root)
        with self._shelf.hold(name) as folder:
            certificate = read_head(folder, self.manifest_hash).certificate
            try:
                return Papers.of(certificate, self._shelf.annotation(name))
            except ValueError as error:
                raise DamagedError(f"what lies beside {name} cannot be read") from error

    def roots(self) -> list[Stored]:
        """Return what checkpoints there are, newest epoch first; cheap enough to ask often.

        A head that cannot be read is left out.
        """
        known, heads = self._heads, dict[str, tuple[_Version, Stored | None]]()
        for name in self.names():
            version = self._version(name)
            before = known.get(name)
            if before is not None and before[0] == version:
                heads[name] = before
            else:
                heads[name] = version, self._read_head(name)
        self._heads = heads
        return [head for _, head in heads.values() if head is not None]

    @contextlib.contextmanager
    def hold(self, state_root: str) -> Iterator[tuple[int, Path]]:
        """Keep a checkpoint from being dropped while the context lasts; give epoch and state file.

        Raises:
            LookupError: There is none of that root, or it is being dropped.
        """
        found = self._find(state_root)
        if found is None:
            raise LookupError(f"there is no checkpoint of the state {state_root}")
        with self._shelf.hold(name_of(found.epoch, state_root)) as path:
            yield found.epoch, path / STATE

    def written_s(self, checkpoint: Checkpoint) -> float:
        """Return when `checkpoint`, which is in the store, was written, in Unix seconds."""
        return (self._folder / checkpoint.name / HEAD).stat().st_mtime

    def _find(self, state_root: str) -> Stored | None:
        return next((stored for stored in self.roots() if stored.state_root == state_root), None)

    def _version(self, name: str) -> _Version:
        """Return what tells a checkpoint from one that takes its place."""
        with contextlib.suppress(OSError):
            status = (self._folder / name).stat()
            return status.st_ino, status.st_mtime_ns
        return None

    def _read_head(self, name: str) -> Stored | None:
        epoch, _, root = name.partition("-")
        try:
            head = json.loads((self._folder / name / HEAD).read_text())
            fetched = head["local"] is None
            stored = Stored(head["epoch"], head["state_root"], head["generation"], fetched)
            named = stored.epoch == int(epoch) and stored.state_root.startswith(root)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        return stored if named else None

    def _drop_old(self) -> None:
        names = self.names()
        candidates = [
            Candidate(n, epoch_of(n), accepted=self._accepted(n), fetched=self._is_fetched(n))
            for n in names
        ]
        protected = {name for name in names if self._is_protected(name)}
        policy = self._room.policy(self._keep)
        for name, reason in decide(candidates, policy, protected).items():
            if reason is None:
                self._shelf.drop(name, remember=True)

    def _is_fetched(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            return is_fetched(self._folder / name, self.manifest_hash)
        return False

    def _is_protected(self, name: str) -> bool:
        return any(name_of(epoch_of(name), root) == name for root in self._protected)

    def _accepted(self, name: str) -> bool:
        with contextlib.suppress(OSError, ValueError):
            annotation = self._shelf.annotation(name)
            return annotation is not None and annotation.notes.accepted_by is not None
        return False
