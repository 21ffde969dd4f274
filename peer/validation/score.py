"""Scores: which rows are drawn, what a commit hides, which scores agree, what they mean. Pure.

Losses are whole numbers of points (1e-4 nats), and all that is decided is decided in whole numbers,
so that every peer decides the same.
"""

import dataclasses
import hashlib
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from peer.run.canonical import canonical
from peer.swarm.testimony import MAX_POINTS, Commit, Reveal, Signer
from peer.validation.rules import CHUNKS, POINTS_A_NAT

_ERRORS = 4
"""A candidate is bad when it is worse by more than so many standard errors."""
_WORD_BYTES = 8


class Decision(StrEnum):
    """What a committee finds."""

    ACCEPT = "accept"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


class Reason(StrEnum):
    """Why it finds that."""

    NOT_WORSE = "not worse than the baseline"
    WORSE = "worse than the baseline"
    BEYOND = "its loss is beyond all bounds"
    BETWEEN = "worse than the baseline, but by less than is certain"
    TOO_FEW = "too few validators agree on its loss"
    BAD_BASELINE = "its loss and the baseline's are beyond all bounds"


@dataclasses.dataclass(frozen=True)
class Question:
    """What a committee is asked.

    Attributes:
        seed: The round's.
        candidate: State root of the checkpoint that is judged.
        baseline: State root of the checkpoint that it is judged by.
    """

    seed: str
    candidate: str
    baseline: str

    @property
    def id(self) -> str:
        """What names the question: peers on different branches are asked different ones."""
        body = canonical([self.seed, self.candidate, self.baseline])
        return hashlib.sha256(b"ctpeer question\n" + body).hexdigest()


@dataclasses.dataclass(frozen=True)
class Losses:
    """One validator's losses by chunk, in points, of candidate and baseline on the same rows."""

    candidate: tuple[int, ...]
    baseline: tuple[int, ...]

    @property
    def differences(self) -> tuple[int, ...]:
        """By how much the candidate is worse, by chunk."""
        return tuple(c - b for c, b in zip(self.candidate, self.baseline, strict=True))


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the scores of a panel say.

    Attributes:
        decision: See `Decision`.
        reason: See `Reason`.
        difference_points: By how much the candidate is worse than the baseline.
        error_points: The standard error of that.
        cluster: The peers that agree, sorted.
        outliers: The peers that do not agree with enough others who do, sorted.
    """

    decision: Decision
    reason: Reason
    difference_points: int = 0
    error_points: int = 0
    cluster: tuple[str, ...] = ()
    outliers: tuple[str, ...] = ()


def to_points(loss_nats: float) -> int:
    """Return a loss in points, at most `MAX_POINTS`, which what is not finite is, too."""
    if not math.isfinite(loss_nats):
        return MAX_POINTS
    return min(MAX_POINTS, max(0, round(loss_nats * POINTS_A_NAT)))


def draw_chunks(question: Question, rows: int, wanted: int) -> list[tuple[int, ...]]:
    """Return which of `rows` held-out rows are scored, in `CHUNKS` chunks of about equal size.

    The draw hangs on the candidate's root, so nobody knows the rows before the candidate is fixed,
    and not on the tickets, which no two peers are sure to know alike.

    Args:
        question: What is asked.
        rows: How many rows there are.
        wanted: How many are to be scored; all, where there are no more.
    """
    words = _words(question.id.encode())
    picked: dict[int, int] = {}
    drawn = []
    for index in range(min(rows, wanted)):
        # Fisher-Yates, of which only the touched places are kept.
        other = index + _below(words, rows - index)
        drawn.append(picked.get(other, other))
        picked[other] = picked.get(index, index)
    count = min(CHUNKS, len(drawn))
    cuts = [len(drawn) * i // count for i in range(count + 1)] if count else []
    return [tuple(drawn[a:b]) for a, b in itertools.pairwise(cuts)]


def salt_of(signer: Signer, seed: str) -> str:
    """Return the salt of a peer's commit: secret, and the same after a restart."""
    return hashlib.sha256(signer.sign(f"ctpeer salt\n{seed}".encode())).hexdigest()


def digest_of(question: Question, peer_id: str, losses: Losses, salt: str) -> str:
    """Return the hash that a commit shows; it is of no use to another peer."""
    body = [question.id, peer_id, dataclasses.asdict(losses), salt]
    return hashlib.sha256(b"ctpeer score\n" + canonical(body)).hexdigest()


def make_commit(signer: Signer, question: Question, losses: Losses) -> Commit:
    """Return the commit of `signer` to its losses."""
    digest = digest_of(question, signer.peer_id, losses, salt_of(signer, question.seed))
    commit = Commit(
        seed=question.seed, question=question.id, digest=digest, public_key="", signature=""
    )
    return commit.signed_by(signer)


def make_reveal(
    signer: Signer,
    question: Question,
    losses: Losses,
    witnessed: Iterable[str] = (),
    environment: str = "",
    metrics: Mapping[str, float] | None = None,
) -> Reveal:
    """Return what `signer` committed to.

    Args:
        signer: Who found it.
        question: What it was asked.
        losses: What it found.
        witnessed: `Commit.brief` of the commits that it had seen when it took no more.
        environment: What it computed with.
        metrics: The task's own metrics of the candidate.
    """
    reveal = Reveal(
        seed=question.seed,
        candidate=losses.candidate,
        baseline=losses.baseline,
        salt=salt_of(signer, question.seed),
        witnessed=tuple(sorted(witnessed)),
        environment=environment,
        metrics=dict(metrics or {}),
        public_key="",
        signature="",
    )
    return reveal.signed_by(signer)


def opens(reveal: Reveal, commit: Commit, question: Question) -> bool:
    """Return whether `reveal` is what its peer committed to, and makes sense."""
    if len(reveal.candidate) != len(reveal.baseline) or reveal.public_key != commit.public_key:
        return False
    losses = Losses(reveal.candidate, reveal.baseline)
    return digest_of(question, reveal.peer_id, losses, reveal.salt) == commit.digest


def counted(commits: Mapping[str, Commit], reveals: Mapping[str, Reveal]) -> set[str]:
    """Return the peers whose commit most of those who revealed had seen before they took no more.

    A commit that was made after somebody's score could be seen is none of theirs, unless that
    somebody showed it before half of the others closed.
    """
    seen = Counter(brief for reveal in reveals.values() for brief in set(reveal.witnessed))
    return {p for p, commit in commits.items() if 2 * seen[commit.brief] > len(reveals)}


def cluster_of(panel: Mapping[str, Losses], tolerance_points: int) -> dict[str, Losses]:
    """Return the scores that lie within the tolerance of the median in every chunk.

    As long as most of the panel is honest, each median lies among honest values.
    """
    chunks = Counter(len(losses.candidate) for losses in panel.values())
    length = max(chunks, key=lambda n: (chunks[n], n), default=0)
    comparable = {p: each for p, each in sorted(panel.items()) if len(each.candidate) == length}
    middle = [
        statistics.median_low(values)
        for values in zip(*(_flat(each) for each in comparable.values()), strict=True)
    ]

    def agrees(losses: Losses) -> bool:
        pairs = zip(_flat(losses), middle, strict=True)
        return all(abs(value - median) <= tolerance_points for value, median in pairs)

    return {peer: losses for peer, losses in comparable.items() if agrees(losses)}


def find(
    panel: Mapping[str, Losses], needed: int, margin_points: int, tolerance_points: int
) -> Finding:
    """Return what the revealed scores say.

    Args:
        panel: By peer.
        needed: How many must agree.
        margin_points: How much worse is bad.
        tolerance_points: How far scores that agree may be apart.
    """
    cluster = cluster_of(panel, tolerance_points)
    if len(cluster) < max(1, needed):
        return Finding(Decision.INCONCLUSIVE, Reason.TOO_FEW)
    total, differences = sorted((sum(e.differences), e.differences) for e in cluster.values())[
        (len(cluster) - 1) // 2
    ]
    decision, reason = _decide(list(cluster.values()), total, differences, margin_points)
    return Finding(
        decision,
        reason,
        difference_points=total // len(differences),
        error_points=math.isqrt(_squared_error(differences)),
        cluster=tuple(sorted(cluster)),
        outliers=tuple(sorted(set(panel) - set(cluster))),
    )


def _decide(
    cluster: Sequence[Losses], total: int, differences: Sequence[int], margin_points: int
) -> tuple[Decision, Reason]:
    beyond = any(MAX_POINTS in losses.candidate for losses in cluster)
    if any(MAX_POINTS in losses.baseline for losses in cluster):
        # A run may begin there: whatever came down from it is better.
        if beyond:
            return Decision.INCONCLUSIVE, Reason.BAD_BASELINE
        return Decision.ACCEPT, Reason.NOT_WORSE
    if beyond:
        return Decision.REJECT, Reason.BEYOND
    count = len(differences)
    if 2 * total <= margin_points * count:
        return Decision.ACCEPT, Reason.NOT_WORSE
    if total > margin_points * count and _is_certain(total, differences):
        return Decision.REJECT, Reason.WORSE
    return Decision.INCONCLUSIVE, Reason.BETWEEN


def _is_certain(total: int, differences: Sequence[int]) -> bool:
    """Return whether a positive mean is above `_ERRORS` standard errors, without a division.

    With S the sum, Q the sum of squares and n the count, d = S / n and
    SE^2 = (n Q - S^2) / (n^2 (n - 1)).
    """
    count = len(differences)
    squares = sum(each * each for each in differences)
    return total**2 * (count - 1) > _ERRORS**2 * (count * squares - total**2)


def _squared_error(differences: Sequence[int]) -> int:
    count, total = len(differences), sum(differences)
    squares = sum(each * each for each in differences)
    return (count * squares - total**2) // (count**2 * max(1, count - 1))


def _flat(losses: Losses) -> tuple[int, ...]:
    return losses.candidate + losses.baseline


def _words(key: bytes) -> Iterator[int]:
    """Yield numbers of 64 bits that hang on nothing but `key`."""
    block = 0
    while True:
        data = hashlib.sha256(b"ctpeer draw\n%d\n" % block + key).digest()
        for start in range(0, len(data), _WORD_BYTES):
            yield int.from_bytes(data[start : start + _WORD_BYTES], "big")
        block += 1


def _below(words: Iterator[int], bound: int) -> int:
    """Return the next number below `bound`, all equally likely."""
    limit = (1 << 8 * _WORD_BYTES) // bound * bound
    return next(word for word in words if word < limit) % bound
