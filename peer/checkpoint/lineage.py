"""The lineage of a state: from a checkpoint back through its parents, as far as it is known.

A checkpoint on the disk and the annotation of one that was dropped are the same here: what somebody
wrote of a state. Roots may be abbreviated as far as they stay unique.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from peer.checkpoint.annotation import Ancestor, Annotation
from peer.checkpoint.format import Head, is_fetched, read_head
from peer.checkpoint.shelf import Shelf, epoch_of
from peer.errors import DamagedError, UsageError
from peer.training.certificate import Certificate

NEWEST = "newest"
"""Stands for the root of the newest checkpoint; no root in hexadecimal is spelled so."""
ABBREVIATION = re.compile(r"[0-9a-f]{1,64}")
"""What may stand for a root, as long as it is unique."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A state in the lineage.

    Attributes:
        epoch: The state's.
        name: Its directory here; None where only its annotation is left.
        head: The head of its checkpoint; None if that is gone, or damaged.
        annotation: What its writer says of it, if there is that.
        problem: What is wrong with what was read so far, if anything is.
        size_bytes: The room that it takes here.
        fetched: Whether a person fetched it, so that training does not go on from it.
    """

    epoch: int
    name: str | None
    head: Head | None
    annotation: Annotation | None
    problem: str | None = None
    size_bytes: int = 0
    fetched: bool = False

    @property
    def state_root(self) -> str:
        """The state's root, or what the directory's name has of it."""
        if self.head is not None:
            return self.head.state_root
        if self.annotation is not None:
            return self.annotation.notes.state_root
        return (self.name or "").partition("-")[2]

    @property
    def generation(self) -> int | None:
        """How many rollbacks the run had seen."""
        if self.head is not None:
            return self.head.generation
        return self.annotation.notes.generation if self.annotation is not None else None

    @property
    def parent(self) -> Ancestor | None:
        """The checkpoint, or else the state, that it comes from."""
        if self.annotation is not None and self.annotation.notes.parent is not None:
            return self.annotation.notes.parent
        if self.head is None or self.head.certificate is None:
            return None
        try:
            base = Certificate.from_json(self.head.certificate).vote.base
        except ValueError:
            return None
        return Ancestor(base.epoch, base.state_root)


def stored(shelf: Shelf, manifest_hash: str) -> list[Entry]:
    """Return the checkpoints that lie here, newest first, the damaged ones with what is wrong."""
    entries = []
    for name in shelf.names():
        head, annotation, problem, fetched = None, None, None, False
        try:
            annotation = shelf.annotation(name)
            problem = annotation.problem() if annotation is not None else None
        except ValueError:
            problem = "the annotation cannot be read"
        except OSError as error:
            problem = f"the annotation cannot be read: {error.strerror}"
        try:
            fetched = is_fetched(shelf.path(name), manifest_hash)
            head = read_head(shelf.path(name), manifest_hash)
        except DamagedError as error:
            problem = str(error)
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
        if head is None and not shelf.path(name).exists():
            continue  # dropped meanwhile
        entries.append(
            Entry(
                epoch=head.epoch if head is not None else epoch_of(name),
                name=name,
                head=head,
                annotation=annotation,
                problem=problem,
                size_bytes=shelf.size_bytes(name),
                fetched=fetched,
            )
        )
    return entries


def known(entries: Sequence[Entry], shelf: Shelf, manifest_hash: str) -> dict[str, Entry]:
    """Return every state that is known here by its root: `entries`, and those that were dropped."""
    found = {}
    for annotation in shelf.remembered():
        notes = annotation.notes
        if notes.manifest == manifest_hash:
            found[notes.state_root] = Entry(
                epoch=notes.epoch,
                name=None,
                head=None,
                annotation=annotation,
                problem=annotation.problem(),
            )
    return found | {entry.state_root: entry for entry in entries}


def ancestry(start: Entry, entries: Mapping[str, Entry]) -> Iterator[Entry]:
    """Yield `start`, its parent, and so on, until a state of which nothing is known here."""
    entry: Entry | None = start
    while entry is not None:
        yield entry
        parent = entry.parent
        # Epochs must fall, or a forged annotation could lead in a circle.
        older = parent is not None and parent.epoch < entry.epoch
        entry = entries.get(parent.state_root) if parent is not None and older else None


def find(abbreviated: str, entries: Sequence[Entry]) -> Entry:
    """Return the one entry whose root begins so.

    Raises:
        UsageError: None does, or several do.
    """
    if abbreviated == NEWEST and entries:
        return entries[0]
    if not ABBREVIATION.fullmatch(abbreviated) and abbreviated != NEWEST:
        raise UsageError(
            f"{abbreviated!r} is no state root: give the first hexadecimal digits of one, as "
            f"`ctpeer checkpoint list` shows them, or the word {NEWEST}"
        )
    found = [entry for entry in entries if entry.state_root.startswith(abbreviated)]
    if not found:
        raise UsageError(
            f"there is no checkpoint {abbreviated} here; `ctpeer checkpoint list` shows those that "
            "there are"
        )
    if len(found) > 1:
        raise UsageError(
            f"{abbreviated} is the beginning of {len(found)} roots "
            f"({', '.join(entry.state_root[:20] for entry in found)}); give more of it"
        )
    return found[0]
