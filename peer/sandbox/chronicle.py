"""What happened in a sandbox, and who was live at which commit. Pure: times come in from outside.

**Live.** The commit of epoch E is the certificate that led to E. A peer is expected in it if it was
live then, which is from when it begins until it ends:

- The peers that the sandbox begins with are live from the first commit on.
- A peer that is killed or frozen, when the swarm has been seen at epoch E, is live up to the commit
  of E. The round that was under way at that moment is held against nobody.
- A peer that joins, or is thawed, is live again from when it has been seen at the swarm's epoch. If
  that is E, the round towards E + 1 may have begun without it: it is expected from the commit of
  E + 2 on.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from peer.sandbox.plan import Fault, Kind

Commits = Mapping[int, Mapping[str, int]]
"""Epoch -> the loss terms that each member of the group brought, by peer id."""


@dataclasses.dataclass
class Injected:
    """A fault that was injected. Seconds count from the sandbox's beginning.

    Attributes:
        fault: What was asked for.
        epoch: Where the swarm was.
        at_s: When.
        thawed_s: When a frozen peer was let go on.
        caught_up_s: When a peer that joined or was thawed had the swarm's epoch.
    """

    fault: Fault
    epoch: int
    at_s: float
    thawed_s: float | None = None
    caught_up_s: float | None = None

    @property
    def catch_up_s(self) -> float | None:
        """How long a peer that joined or was thawed took to have the swarm's epoch."""
        since_s = self.at_s if self.fault.kind is Kind.JOIN else self.thawed_s
        if since_s is None or self.caught_up_s is None:
            return None
        return self.caught_up_s - since_s


class Chronicle:
    """Takes down a sandbox as it goes. `first_epoch` is where the swarm begins."""

    def __init__(self, first_epoch: int = 0) -> None:
        self.first_epoch = first_epoch
        self.epoch = first_epoch
        self.injected: list[Injected] = []
        self._seen_s: dict[int, float] = {}
        self._live: dict[int, list[tuple[int, int | None]]] = {}

    def saw(self, epoch: int, at_s: float) -> None:
        """Note that the swarm had `epoch` at `at_s`, and each one before it."""
        for reached in range(self.epoch + 1, epoch + 1):
            self._seen_s[reached] = at_s
        self.epoch = max(self.epoch, epoch)

    def starts(self, peer: int) -> None:
        """Note that `peer` is there from the beginning."""
        self._live[peer] = [(self.first_epoch + 1, None)]

    def inject(self, fault: Fault, at_s: float) -> None:
        """Note that `fault` was injected."""
        self.injected.append(Injected(fault, self.epoch, at_s))
        if fault.kind is not Kind.JOIN:
            self.ends(fault.peer)

    def ends(self, peer: int) -> None:
        """Note that `peer` is live no more."""
        spans = self._live.setdefault(peer, [])
        if spans and spans[-1][1] is None:
            spans[-1] = (spans[-1][0], self.epoch)

    def thaws(self, peer: int, at_s: float) -> None:
        """Note that the frozen `peer` goes on."""
        for one in self._last(peer, Kind.FREEZE):
            one.thawed_s = at_s

    def catches_up(self, peer: int, at_s: float) -> None:
        """Note that `peer`, which was not live, has been seen at the swarm's epoch."""
        self._live.setdefault(peer, []).append((self.epoch + 2, None))
        for one in self._last(peer, Kind.JOIN, Kind.FREEZE):
            one.caught_up_s = at_s

    def is_live(self, peer: int) -> bool:
        """Return whether `peer` is live now."""
        return any(last is None for _, last in self._live.get(peer, ()))

    def expected(self, peer: int, epoch: int) -> bool:
        """Return whether `peer` should be in the commit of `epoch`."""
        return any(
            first <= epoch and (last is None or epoch <= last)
            for first, last in self._live.get(peer, ())
        )

    def next_commit_s(self, one: Injected) -> float | None:
        """Return the seconds from a fault to the next commit of the swarm; None without one."""
        seen_s = self._seen_s.get(one.epoch + 1)
        return None if seen_s is None else seen_s - one.at_s

    def regrouped_s(self, one: Injected, peer_id: str | None, commits: Commits) -> float | None:
        """Return the seconds from a fault to the first commit of the group as it should be then.

        That is one without a peer that was killed or frozen, and one with a peer that joined.
        """
        wanted = one.fault.kind is Kind.JOIN
        return self._first(one.at_s, one.epoch, peer_id, commits, inside=wanted)

    def returned_s(self, one: Injected, peer_id: str | None, commits: Commits) -> float | None:
        """Return the seconds from a thaw to the first commit with the peer; None without one."""
        if one.thawed_s is None:
            return None
        return self._first(one.thawed_s, one.epoch, peer_id, commits, inside=True)

    def _first(
        self, since_s: float, epoch: int, peer_id: str | None, commits: Commits, *, inside: bool
    ) -> float | None:
        for later in sorted(e for e in commits if e > epoch):
            seen_s = self._seen_s.get(later)
            if seen_s is not None and seen_s >= since_s and (peer_id in commits[later]) is inside:
                return seen_s - since_s
        return None

    def _last(self, peer: int, *kinds: Kind) -> Iterable[Injected]:
        found = [i for i in self.injected if i.fault.peer == peer and i.fault.kind in kinds]
        return found[-1:]
