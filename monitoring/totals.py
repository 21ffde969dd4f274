"""What adds up over many crawls: counters that never fall, and since when things are known. Pure.

A peer's own counts start again with it, and may say anything: what it adds between two crawls is
bounded by what the middle peer added.
"""

import bisect
import dataclasses
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from statistics import median_low

from peer.observe.metrics import DECISIONS
from peer.training.certificate import Certificate
from peer.validation.verdict import Verdict

_FACTOR = 4
"""Beyond so many times the middle one nobody is believed, as in `peer.training.progress`."""
_SLACK = 8
_HEADS = 256
_REMEMBERED_PEERS = 1024

COUNTS = ("committed", "failed", "refused")


@dataclasses.dataclass
class Totals:
    """Sums since the exporter started.

    Attributes:
        counts: What live peers counted themselves, by name, each peer bounded.
        loss_terms: In certificates.
        decisions: Verdicts seen.
        good_root: The newest accepted state.
        good_since_s: When we learned of it, on the wall clock.
    """

    counts: Counter[str] = dataclasses.field(
        default_factory=lambda: Counter(dict.fromkeys(COUNTS, 0))
    )
    loss_terms: int = 0
    decisions: Counter[str] = dataclasses.field(
        default_factory=lambda: Counter(dict.fromkeys(DECISIONS, 0))
    )
    good_root: str | None = None
    good_since_s: float = 0.0
    _before: dict[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    _row_end: tuple[int, int] | None = None
    _round: int = 0
    _chain_seen: bool = False
    _heads: deque[tuple[float, int]] = dataclasses.field(
        default_factory=lambda: deque(maxlen=_HEADS)
    )
    _generation: int = 0

    def take_counts(self, told: Mapping[str, Mapping[str, int]]) -> None:
        """Add what peers counted since they were last heard.

        Args:
            told: Each peer's own counts since its start, by `COUNTS`.
        """
        added = {peer: self._added(peer, counts) for peer, counts in told.items()}
        for name in COUNTS:
            known = [each[name] for each in added.values() if each is not None]
            if known:
                most = _FACTOR * median_low(known) + _SLACK
                self.counts[name] += sum(min(count, most) for count in known)
        for peer, counts in told.items():
            self._before.pop(peer, None)
            self._before[peer] = dict(counts)
        while len(self._before) > _REMEMBERED_PEERS:
            self._before.pop(next(iter(self._before)))

    def take_row(self, row: Sequence[Certificate]) -> None:
        """Add the loss terms of the certificates that are new in `row`, oldest first.

        What was certified before the first one that we saw is not counted.
        """
        if not row:
            return
        if self._row_end is not None:
            new = (c for c in row if _place(c) > self._row_end)
            self.loss_terms += sum(c.vote.weight for c in new)
        self._row_end = max(_place(row[-1]), self._row_end or (0, 0))

    def take_verdicts(self, chain: Sequence[Verdict]) -> None:
        """Count the verdicts that are new in `chain`, oldest first.

        What was found before the first one that we saw is not counted, but for the run's first.
        """
        for verdict in chain:
            round_number = verdict.judgement.round
            if round_number > self._round and (self._chain_seen or round_number == len(chain) == 1):
                self.decisions[verdict.judgement.decision.value] += 1
            self._round = max(self._round, round_number)
        self._chain_seen = self._chain_seen or bool(chain)

    def take_good(self, state_root: str | None, now_s: float) -> None:
        """Note which state is the last good one."""
        if state_root != self.good_root:
            self.good_root, self.good_since_s = state_root, now_s

    def take_head(self, generation: int, epoch: int, now_s: float) -> None:
        """Note where the certified head is now."""
        if generation != self._generation:
            self._heads.clear()
            self._generation = generation
        self._heads.append((now_s, epoch))

    def head_at(self, unix_time_s: float) -> int | None:
        """Return at which epoch the head was at a time, or None if that was before we looked.

        Records are some seconds old when they are read: their peers are not behind for that.
        """
        if not self._heads or unix_time_s < self._heads[0][0]:
            return None
        at = bisect.bisect_right(self._heads, unix_time_s, key=lambda head: head[0])
        if at == len(self._heads):
            return self._heads[-1][1]
        (before_s, before), (after_s, after) = self._heads[at - 1], self._heads[at]
        part = (unix_time_s - before_s) / (after_s - before_s)
        return int(before + part * (after - before))

    def _added(self, peer: str, counts: Mapping[str, int]) -> dict[str, int] | None:
        before = self._before.get(peer)
        if before is None:
            return None
        # Whoever counts less than before began again from nothing.
        return {n: counts[n] - before[n] if counts[n] >= before[n] else counts[n] for n in COUNTS}


def _place(certificate: Certificate) -> tuple[int, int]:
    base = certificate.vote.base
    return base.generation, base.epoch
