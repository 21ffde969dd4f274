"""Leaders that kept us waiting and let us into no group: what that says of them."""

import dataclasses
from collections.abc import Collection

from peer.training.beat import BEAT_S
from peer.training.certificate import MAX_GROUP, Base
from peer.training.muster import Muster


@dataclasses.dataclass(frozen=True)
class _Refusal:
    """That a leader let us into no group.

    Attributes:
        base: The round's.
        leader: Who it was.
        held_s: How long it kept us.
        unreachable: Whom we had told it that we cannot reach.
    """

    base: Base
    leader: str
    held_s: float
    unreachable: frozenset[str]


class Refusals:
    """Judges the last refusal once it is known who was in the group instead of us.

    Args:
        muster: Our standing and the others.
    """

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._last: _Refusal | None = None

    def note(self, base: Base, leader: str, held_s: float, unreachable: Collection[str]) -> None:
        """Note that `leader` refused us; see `_Refusal`."""
        self._last = _Refusal(base, leader, held_s, frozenset(unreachable))

    def went_on(self, base: Base, group: Collection[str]) -> None:
        """Note who was in the group of the epoch that was certified on `base`."""
        refusal, self._last = self._last, None
        if refusal is None or refusal.base != base:
            return
        # It had to choose between us and somebody else.
        explained = len(group) >= MAX_GROUP or refusal.unreachable & set(group)
        if not explained:
            self._blame(refusal, certain=True)

    def judge(self) -> None:
        """Judge a refusal after which no certificate came: the round without us failed, too."""
        refusal, self._last = self._last, None
        if refusal is not None:
            self._blame(refusal, certain=not refusal.unreachable)

    def _blame(self, refusal: _Refusal, *, certain: bool) -> None:
        muster = self._muster
        report = muster.roster.report(refusal.leader)
        # One that says so openly may have been wronged itself: distrust is not to become mutual.
        shunned = report is not None and muster.identity.peer_id in report.shuns
        long = refusal.held_s > muster.limits.frame_timeout_s
        what = "it keeps us waiting and lets us into no group"
        if long and certain and not shunned:
            muster.misbehaved(refusal.leader, what)
        elif long or (refusal.held_s > BEAT_S and not shunned):
            muster.suspect(refusal.leader, what, "leader")
