"""What happened in a sandbox, and who was live at which commit. Pure: times come in from outside.

**Live.** The commit of epoch E is the certificate that led to E. A peer is expected in it if it was
live then, which is from when it begins until it ends:

- The peers that the sandbox begins with are live from the first commit on.
- A peer that is killed or frozen, when the swarm has been seen at epoch E, is live up to the commit
  of E. The round that was under way at that moment is held against nobody.
- A peer that joins, or is thawed, is live again from when it has been seen at the swarm's epoch. If
  that is E, the round towards E + 1 may have begun without it: it is expected from the commit of
  E + 2 on.

A rollback takes the swarm back to an earlier epoch, in a new generation. So where the swarm is, and
since when a peer is live, is a `Position`; of an epoch that was made twice the last commit counts.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from peer.sandbox.plan import Fault, Kind
from peer.sandbox.scenario import Unseated

Position = tuple[int, int]
"""Generation and epoch. Positions are in the order in which a swarm comes to them."""


@dataclasses.dataclass(frozen=True)
class Commit:
    """What led to an epoch: in which generation, and the loss terms that each member brought."""

    generation: int
    loss_terms: Mapping[str, int]


Commits = Mapping[int, Commit]
"""By epoch."""


@dataclasses.dataclass
class Injected:
    """A fault that was injected. Seconds count from the sandbox's beginning.

    Attributes:
        fault: What was asked for.
        position: Where the swarm was.
        at_s: When.
        thawed_s: When a frozen peer was let go on.
        caught_up_s: When a peer that joined or was thawed had the swarm's epoch.
    """

    fault: Fault
    position: Position
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
    """Takes down a sandbox as it goes. `first_epoch` and `generation` are where it begins."""

    def __init__(self, first_epoch: int = 0, generation: int = 0) -> None:
        self.first_epoch = first_epoch
        self.position: Position = (generation, first_epoch)
        self.injected: list[Injected] = []
        self.unseated: list[Unseated] = []
        self._seen_s: dict[Position, float] = {}
        self._judged_s: dict[int, float] = {}
        self._back_s: dict[tuple[int, int], float] = {}
        self._live: dict[int, list[tuple[Position, Position | None]]] = {}

    @property
    def epoch(self) -> int:
        """Where the swarm is."""
        return self.position[1]

    def saw(self, epoch: int, at_s: float, generation: int = 0) -> None:
        """Note that the swarm had `epoch` at `at_s`, and each one before it.

        The first epoch of a generation is the one that it went back to: nobody committed it then.
        """
        if (generation, epoch) <= self.position:
            return
        first = self.epoch if generation == self.position[0] else epoch
        for reached in range(first + 1, epoch + 1):
            self._seen_s[generation, reached] = at_s
        self.position = (generation, epoch)

    def saw_verdict(self, number: int, at_s: float) -> bool:
        """Note that a peer held to the verdict of round `number`; return whether that is new."""
        new = number not in self._judged_s
        self._judged_s.setdefault(number, at_s)
        return new

    def saw_generation(self, peer: int, generation: int, at_s: float) -> None:
        """Note that `peer` works in `generation`."""
        self._back_s.setdefault((peer, generation), at_s)

    def starts(self, peer: int) -> None:
        """Note that `peer` is there from the beginning."""
        self._live[peer] = [((self.position[0], self.first_epoch + 1), None)]

    def inject(self, fault: Fault, at_s: float) -> None:
        """Note that `fault` was injected."""
        self.injected.append(Injected(fault, self.position, at_s))
        if fault.kind is not Kind.JOIN:
            self.ends(fault.peer)

    def ends(self, peer: int) -> None:
        """Note that `peer` is live no more."""
        spans = self._live.setdefault(peer, [])
        if spans and spans[-1][1] is None:
            spans[-1] = (spans[-1][0], self.position)

    def thaws(self, peer: int, at_s: float) -> None:
        """Note that the frozen `peer` goes on."""
        for one in self._last(peer, Kind.FREEZE):
            one.thawed_s = at_s

    def catches_up(self, peer: int, at_s: float) -> None:
        """Note that `peer`, which was not live, has been seen at the swarm's epoch."""
        generation, epoch = self.position
        self._live.setdefault(peer, []).append(((generation, epoch + 2), None))
        for one in self._last(peer, Kind.JOIN, Kind.FREEZE):
            one.caught_up_s = at_s

    def is_live(self, peer: int) -> bool:
        """Return whether `peer` is live now."""
        return any(last is None for _, last in self._live.get(peer, ()))

    def expected(self, peer: int, epoch: int, generation: int = 0) -> bool:
        """Return whether `peer` should be in the commit of `epoch` in `generation`."""
        position = (generation, epoch)
        return any(
            first <= position and (last is None or position <= last)
            for first, last in self._live.get(peer, ())
        )

    def verdict_s(self, number: int, generation: int, epoch: int) -> float | None:
        """Return the seconds from a candidate, of `epoch` in `generation`, to its verdict.

        None if the sandbox did not see one of them, as after an interrupt.
        """
        judged_s, seen_s = self._judged_s.get(number), self._seen_s.get((generation, epoch))
        return None if judged_s is None or seen_s is None else max(0.0, judged_s - seen_s)

    def back_s(self, number: int, generation: int, peers: Iterable[int]) -> float | None:
        """Return the seconds from a verdict until the last of `peers` worked in `generation`.

        None if one of them never did.
        """
        judged_s = self._judged_s.get(number)
        back_s = [self._back_s.get((peer, generation)) for peer in peers]
        if judged_s is None or None in back_s:
            return None
        return max((at_s for at_s in back_s if at_s is not None), default=judged_s) - judged_s

    def newest(self, generation: int) -> int | None:
        """Return the last epoch that the swarm was seen at in `generation`; None if at none."""
        return max((epoch for which, epoch in self._seen_s if which == generation), default=None)

    def next_commit_s(self, one: Injected) -> float | None:
        """Return the seconds from a fault to the next commit of the swarm; None without one."""
        seen_s = next((at_s for at, at_s in self._seen_s.items() if at > one.position), None)
        return None if seen_s is None else seen_s - one.at_s

    def regrouped_s(self, one: Injected, peer_id: str | None, commits: Commits) -> float | None:
        """Return the seconds from a fault to the first commit of the group as it should be then.

        That is one without a peer that was killed or frozen, and one with a peer that joined.
        """
        wanted = one.fault.kind is Kind.JOIN
        return self._first(one.at_s, one.position, peer_id, commits, inside=wanted)

    def returned_s(self, one: Injected, peer_id: str | None, commits: Commits) -> float | None:
        """Return the seconds from a thaw to the first commit with the peer; None without one."""
        if one.thawed_s is None:
            return None
        return self._first(one.thawed_s, one.position, peer_id, commits, inside=True)

    def _first(
        self,
        since_s: float,
        after: Position,
        peer_id: str | None,
        commits: Commits,
        *,
        inside: bool,
    ) -> float | None:
        for epoch, commit in sorted(commits.items()):
            seen_s = self._seen_s.get((commit.generation, epoch))
            if seen_s is None or seen_s < since_s or (commit.generation, epoch) <= after:
                continue
            if (peer_id in commit.loss_terms) is inside:
                return seen_s - since_s
        return None

    def _last(self, peer: int, *kinds: Kind) -> Iterable[Injected]:
        found = [i for i in self.injected if i.fault.peer == peer and i.fault.kind in kinds]
        return found[-1:]
