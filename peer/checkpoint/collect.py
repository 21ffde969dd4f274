"""Garbage collection: dropping the checkpoints that a policy does not keep, by a person's word.

The daemon drops what is too much after each save. This is the same policy from outside, with one
more care: the newest checkpoint that loads is found by verifying, and stays whatever happens.
"""

import dataclasses
from collections.abc import Callable, Sequence

from peer.checkpoint.keep import Candidate, Keep, Reason, decide
from peer.checkpoint.lineage import Entry
from peer.checkpoint.shelf import Shelf
from peer.errors import DamagedError


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a checkpoint.

    Attributes:
        entry: The checkpoint.
        dropped: Whether it is gone, or would be.
        reason: Why, in words.
    """

    entry: Entry
    dropped: bool
    reason: str


def collect(
    shelf: Shelf,
    entries: Sequence[Entry],
    keep: Keep,
    is_whole: Callable[[str], bool],
    *,
    dry_run: bool,
) -> list[Outcome]:
    """Drop what `keep` does not keep.

    Args:
        shelf: The checkpoints.
        entries: Those that lie there, newest first.
        keep: The policy; a checkpoint whose head is damaged is left alone.
        is_whole: Verifies a checkpoint, by its name.
        dry_run: Whether only to say what would be dropped.

    Raises:
        DamagedError: There are checkpoints and not one is whole: nothing was dropped.
    """
    readable = [entry for entry in entries if entry.head is not None and entry.name is not None]
    names = [entry.name for entry in readable if entry.name is not None]
    newest = next((name for name in names if is_whole(name)), None)
    if newest is None:
        if not entries:
            return []
        raise DamagedError(
            f"no checkpoint in {shelf.folder} is whole, so nothing was dropped; see what is wrong "
            "with `ctpeer checkpoint verify`"
        )
    candidates = [
        Candidate(name, entry.epoch, is_accepted(entry))
        for name, entry in zip(names, readable, strict=True)
    ]
    reasons = decide(candidates, keep, protected={newest})
    return [_settle(shelf, entry, reasons, dry_run=dry_run) for entry in entries]


def is_accepted(entry: Entry) -> bool:
    """Return whether a verdict accepted the state, by what is said beside it."""
    annotation = entry.annotation
    return annotation is not None and annotation.notes.accepted_by is not None


def _settle(
    shelf: Shelf, entry: Entry, reasons: dict[str, Reason | None], *, dry_run: bool
) -> Outcome:
    if entry.name not in reasons:
        return Outcome(entry, dropped=False, reason="damaged, for you to look at")
    reason = reasons[entry.name]
    if reason is not None:
        return Outcome(entry, dropped=False, reason=reason)
    if dry_run or shelf.drop(entry.name, remember=True):
        return Outcome(entry, dropped=True, reason="the policy does not keep it")
    return Outcome(entry, dropped=False, reason="held: somebody reads it")
