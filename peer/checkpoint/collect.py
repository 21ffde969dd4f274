"""Garbage collection: dropping the checkpoints that a policy does not keep, by a person's word.

The daemon drops what is too much after each save. This is the same policy from outside, with one
more care: the newest checkpoint that training could go on from is found by verifying, and stays
whatever happens.
"""

import dataclasses
from collections.abc import Callable, Sequence

from peer.checkpoint.keep import Candidate, Keep, decide
from peer.checkpoint.lineage import Entry
from peer.checkpoint.shelf import Shelf
from peer.errors import DamagedError


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a checkpoint.

    Attributes:
        name: Its directory.
        size_bytes: The room that it took.
        dropped: Whether it is gone, or would be.
        reason: Why, in words.
    """

    name: str
    size_bytes: int
    dropped: bool
    reason: str


def collect(
    shelf: Shelf,
    entries: Sequence[Entry],
    keep: Keep,
    is_whole: Callable[[Entry], bool],
    *,
    drop_damaged: bool,
    dry_run: bool,
) -> list[Outcome]:
    """Drop what `keep` does not keep.

    Args:
        shelf: The checkpoints.
        entries: Those that lie there, newest first.
        keep: The policy.
        is_whole: Verifies a checkpoint.
        drop_damaged: Whether to drop also what has a damaged head, or was set aside.
        dry_run: Whether only to say what would be dropped.

    Raises:
        DamagedError: Training here wrote checkpoints and not one is whole: nothing was dropped.
    """
    readable = {entry.name: entry for entry in entries if entry.name and entry.head is not None}
    own = {name: entry for name, entry in readable.items() if not entry.fetched}
    newest = next((name for name, entry in own.items() if is_whole(entry)), None)
    set_aside = shelf.damaged()
    if newest is None and (set_aside or not all(entry.fetched for entry in entries)):
        raise DamagedError(
            f"no checkpoint in {shelf.folder} is whole, so nothing was dropped; see what is wrong "
            "with `ctpeer checkpoint verify`"
        )
    candidates = [
        Candidate(name, entry.epoch, accepted=_is_accepted(entry), fetched=entry.fetched)
        for name, entry in readable.items()
    ]
    reasons = decide(candidates, keep, protected={newest} if newest is not None else ())
    broken = [entry.name for entry in entries if entry.name and entry.head is None]
    outcomes = [_settle(shelf, name, kept, dry_run=dry_run) for name, kept in reasons.items()]
    kept = None if drop_damaged else "damaged, for you to look at; --damaged drops it"
    damaged = [_settle(shelf, name, kept, dry_run=dry_run) for name in [*broken, *set_aside]]
    return outcomes + damaged


def _is_accepted(entry: Entry) -> bool:
    """Return whether a verdict accepted the state, by what is said beside it."""
    annotation = entry.annotation
    return annotation is not None and annotation.notes.accepted_by is not None


def _settle(shelf: Shelf, name: str, kept: str | None, *, dry_run: bool) -> Outcome:
    """Drop a checkpoint unless there is a reason why it is `kept`."""
    size_bytes = shelf.size_bytes(name)
    if kept is not None:
        return Outcome(name, size_bytes, dropped=False, reason=kept)
    if dry_run or shelf.drop(name, remember=True):
        return Outcome(name, size_bytes, dropped=True, reason="nothing keeps it")
    return Outcome(name, size_bytes, dropped=False, reason="held: somebody reads it")
