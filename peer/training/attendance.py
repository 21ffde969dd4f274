"""How long a leader waits for whom: less for those who let it wait in vain before."""

import dataclasses
from collections.abc import Collection, Iterable

from peer.events import PeerMisbehaved
from peer.training.certificate import Base
from peer.training.group import leaders
from peer.training.muster import Muster

LOOK_S = 0.25
"""How often whoever waits looks again; the least that anybody is waited for."""

_LONGEST_OWED = 10


@dataclasses.dataclass
class _Absence:
    """How often a peer let us wait in vain, and how often it has yet to come in time."""

    times: int = 0
    owed: int = 0


class Attendance:
    """Remembers who came to the groups that we led.

    Args:
        muster: Our standing and the others.
    """

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._absences: dict[str, _Absence] = {}

    def patience_s(
        self, base: Base, joined: Collection[str], missing: Iterable[str]
    ) -> dict[str, float]:
        """Return how long to wait for those `missing` on `base`, who answer but do not come."""
        muster = self._muster
        missing = set(missing)
        elsewhere = self._elsewhere(missing)
        short_s, long_s = muster.limits.call_timeout_s, muster.limits.matchmaking_timeout_s
        elsewhere_s = long_s if self._are_fewer(base, joined, elsewhere) else short_s
        patience_s = {}
        for peer in missing:
            if peer in self._absences and self._absences[peer].owed:
                patience_s[peer] = LOOK_S
            elif muster.tenured and peer not in muster.tenured:
                patience_s[peer] = short_s
            else:
                patience_s[peer] = elsewhere_s if peer in elsewhere else long_s
        return patience_s

    def note(self, base: Base, joined: Collection[str], waited_s: float) -> None:
        """Wait no more for those who let us wait in vain, until they come in time again."""
        muster = self._muster
        known = {member.peer_id for member in muster.roster.members()}
        self._absences = {p: absence for p, absence in self._absences.items() if p in known}
        for peer in self._absences.keys() & set(joined):
            self._absences[peer].owed = max(0, self._absences[peer].owed - 1)
        missing = muster.fellows(base) - set(joined)
        elsewhere, patience_s = self._elsewhere(missing), self.patience_s(base, joined, missing)
        for peer in missing:
            absence = self._absences.setdefault(peer, _Absence())
            if absence.owed or waited_s < patience_s[peer]:
                continue
            absence.times += 1
            absence.owed = 2 ** min(absence.times, _LONGEST_OWED)
            if peer not in elsewhere:
                what = "it answers, but does not come to the round"
                muster.emit(PeerMisbehaved(peer_id=peer, what=what))

    def _are_fewer(self, base: Base, joined: Collection[str], elsewhere: set[str]) -> bool:
        """Return whether those in groups of other leaders are more than we.

        Then theirs is the group whose certificate to wait for: we would only part from them. Of two
        that are as large the draw says which one; it is the same for both.
        """
        there = elsewhere & (self._muster.tenured or elsewhere)
        if len(joined) != len(there):
            return len(there) > len(joined)
        me = self._muster.identity.peer_id
        reports = (self._muster.roster.report(peer) for peer in there)
        theirs = {report.leader for report in reports if report and report.leader}
        return leaders(base, {me, *theirs}, {})[0] != me

    def _elsewhere(self, peers: set[str]) -> set[str]:
        """Return those of `peers` that wait for another leader's group."""
        me = self._muster.identity.peer_id
        reports = ((peer, self._muster.roster.report(peer)) for peer in peers)
        return {peer for peer, report in reports if report and report.leader not in (None, me)}
