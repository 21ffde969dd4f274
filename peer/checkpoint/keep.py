"""Which checkpoints stay. Pure: what is held or whole is told from outside."""

import dataclasses
from collections.abc import Collection, Sequence
from enum import StrEnum

from peer.config.settings import CheckpointSettings


class Reason(StrEnum):
    """Why a checkpoint stays; its value says it in words."""

    NEEDED = "the newest one that loads, or needed by validation"
    FETCHED = "fetched by hand; `gc --fetched` drops it"
    LAST = "one of the last"
    ACCEPTED = "accepted by validators"
    MILESTONE = "the first of its stretch of epochs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep:
    """A policy.

    Attributes:
        last: How many of the newest stay.
        accepted: How many of the newest accepted ones stay.
        every_epochs: Of each stretch of so many epochs the first one stays for ever; None for no
            such history.
        fetched: Whether those that a person fetched stay. They never take the place of others.
    """

    last: int = 3
    accepted: int = 5
    every_epochs: int | None = None
    fetched: bool = True

    @classmethod
    def of(cls, settings: CheckpointSettings) -> "Keep":
        """Return the policy that the settings ask for."""
        return cls(
            last=settings.keep,
            accepted=settings.keep_accepted,
            every_epochs=settings.keep_every_epochs,
        )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A checkpoint by its directory's name, with what a policy looks at."""

    name: str
    epoch: int
    accepted: bool = False
    fetched: bool = False


def decide(
    candidates: Sequence[Candidate], keep: Keep, protected: Collection[str] = ()
) -> dict[str, Reason | None]:
    """Return for each checkpoint, by name, why it stays, or None if it may go.

    Args:
        candidates: The checkpoints, newest first.
        keep: The policy.
        protected: Names that stay whatever the policy says: the newest one that loads, those that
            are being judged, and those that the next ones are judged by.
    """
    own = [one for one in candidates if not one.fetched]
    accepted = [one.name for one in own if one.accepted][: keep.accepted]
    last = [one.name for one in own[: keep.last]]
    milestones = _milestones(own, keep.every_epochs)

    def reason(one: Candidate) -> Reason | None:
        if one.name in protected:
            return Reason.NEEDED
        if one.fetched:
            return Reason.FETCHED if keep.fetched else None
        if one.name in last:
            return Reason.LAST
        if one.name in accepted:
            return Reason.ACCEPTED
        return Reason.MILESTONE if one.name in milestones else None

    return {one.name: reason(one) for one in candidates}


def _milestones(candidates: Sequence[Candidate], every_epochs: int | None) -> set[str]:
    """Return the first checkpoint of each stretch: which one that is never changes again."""
    if every_epochs is None:
        return set()
    # Newest first: of two in one stretch the later assignment, the older one, stays.
    return set({one.epoch // every_epochs: one.name for one in candidates}.values())
