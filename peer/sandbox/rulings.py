"""What the peers of a sandbox held to at its end: their verdicts, as their disks have them."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from peer.config.home import Home
from peer.run.directory import MANIFEST, RunDirectory
from peer.validation.archive import Archive
from peer.validation.rules import POINTS_A_NAT
from peer.validation.score import Decision
from peer.validation.verdict import Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruling:
    """A verdict, as far as a report tells of it.

    Attributes:
        round: Counts verdicts.
        epoch: The candidate's.
        candidate: Its state root.
        decision: accept, reject or inconclusive.
        reason: Why.
        difference_nats: By how much the candidate is worse than the baseline.
        generation: After it.
        signers: Who signed, sorted.
        called: Who was called, lowest lot first.
        struck: Who got a strike, sorted.
        hash: Names the judgement.
        previous: The hash of the one before it.
        small_swarm: Whether too few were eligible for a committee of full size.
        quorum: How many had to sign.
        goes_on_from: The epoch from which training goes on.
        last_good_epoch: The last good checkpoint's, after it.
        last_good_root: And its state root.
    """

    round: int
    epoch: int
    candidate: str
    decision: str
    reason: str
    difference_nats: float
    generation: int
    signers: tuple[str, ...]
    called: tuple[str, ...]
    struck: tuple[str, ...]
    hash: str
    previous: str
    small_swarm: bool
    quorum: int
    goes_on_from: int
    last_good_epoch: int
    last_good_root: str

    @classmethod
    def of(cls, verdict: Verdict) -> "Ruling":
        """Return what a report tells of `verdict`."""
        judgement = verdict.judgement
        after, size = judgement.after, judgement.committee.size
        return cls(
            round=judgement.round,
            epoch=judgement.epoch,
            candidate=judgement.candidate,
            decision=judgement.decision.value,
            reason=judgement.reason.value,
            difference_nats=judgement.difference_points / POINTS_A_NAT,
            generation=after.generation,
            signers=tuple(sorted(verdict.signers())),
            called=judgement.called,
            struck=judgement.struck,
            hash=judgement.hash,
            previous=judgement.previous,
            small_swarm=size.is_small,
            quorum=size.quorum,
            goes_on_from=after.epoch,
            last_good_epoch=after.last_good.epoch,
            last_good_root=after.last_good.state_root,
        )

    @property
    def rejected(self) -> bool:
        """Whether it began another generation."""
        return self.decision == Decision.REJECT

    @property
    def accepted(self) -> bool:
        """Whether its candidate is the last good one."""
        return self.decision == Decision.ACCEPT

    @property
    def candidates_generation(self) -> int:
        """The generation in which the candidate was made."""
        return self.generation - self.rejected


Row = tuple[Ruling, ...]
"""Verdicts that follow from each other, oldest first."""


def read_row(home: Home, run_id: str) -> Row:
    """Return the verdicts to which the peer on `home` held last; none before it has the run."""
    path = home.run_path(run_id)
    if not (path / MANIFEST).exists():
        return ()
    archive = Archive(RunDirectory.open(path).verdicts_path)
    return tuple(Ruling.of(verdict) for verdict in archive.chain())


def tip_of(row: Row) -> str:
    """Return the hash of the last judgement; nothing where there is none."""
    return row[-1].hash if row else ""


def most_held(rows: Mapping[int, Row]) -> Row:
    """Return the row that most of the peers hold to; of as many, the lowest index's."""
    votes = Counter(tip_of(rows[index]) for index in sorted(rows))
    return max(rows.values(), key=lambda row: (votes[tip_of(row)], len(row)), default=())


def superseded(row: Sequence[Ruling], every: int, first_epoch: int) -> list[int]:
    """Return the candidates that got no verdict because a newer one did, oldest first.

    Args:
        row: The verdicts.
        every: How far candidates are apart.
        first_epoch: Where the sandbox began.
    """
    found: list[int] = []
    since = first_epoch
    for ruling in row:
        if ruling.epoch > first_epoch:
            found += _candidates(since, ruling.epoch, every)
            since = ruling.goes_on_from
    return found


def _candidates(after: int, before: int, every: int) -> Iterable[int]:
    first = (after // every + 1) * every
    return range(first, before, every)
