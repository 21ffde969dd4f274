"""Which of two verdicts of one round stands, and which of two chains of verdicts. Pure."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from peer.swarm.testimony import Good
from peer.training.chain import Fork
from peer.validation.ticket import lot
from peer.validation.verdict import Judgement, Verdict

_NO_TICKET = "~"
"""Above every lot: of two vectors that agree, the one that left somebody out is the higher."""


def prefer(one: Judgement, other: Judgement) -> Judgement:
    """Return which of two judgements of one round stands: the lowest vector of lots.

    Whoever leaves out a ticket gets a higher vector. Of two with the same tickets the one with more
    scores stands, then the lower hash.
    """
    first, second = _vector(one), _vector(other)
    for a, b in itertools.zip_longest(first, second, fillvalue=_NO_TICKET):
        if a != b:
            return one if a < b else other
    return min((one, other), key=lambda each: (-_scores(each), each.hash))


def most_held(good: Mapping[str, Good], eligible: Collection[str], needed: int = 1) -> str | None:
    """Return the verdict to which more than half of the eligible peers that say so hold, or None.

    Args:
        good: What peers say that they hold to, by peer; peers without a verdict say so, too.
        eligible: Who counts; everybody where nobody is named.
        needed: How many must hold to it at least.
    """
    held = Counter(g.verdict for peer, g in good.items() if not eligible or peer in eligible)
    enough = (n for n, count in held.items() if count >= needed and 2 * count > held.total())
    return next(enough, None)


def most_good(good: Mapping[str, Good]) -> Good | None:
    """Return what those say who hold to the verdict that `most_held` names, or None.

    Args:
        good: What peers say that they hold to, by peer; all of them count.
    """
    verdict = most_held(good, ())
    said = Counter(each for each in good.values() if each.verdict == verdict)
    # The verdict says which state is good: whoever names another one lies.
    return max(said, key=lambda g: (said[g], g.state_root), default=None)


@dataclasses.dataclass(frozen=True)
class Branch:
    """A chain since the newest common verdict.

    Attributes:
        last_held: The newest round up to which each peer signed on it, or said that it is good.
        first: Its first judgement.
    """

    last_held: Mapping[str, int]
    first: Judgement

    @classmethod
    def of(cls, verdicts: Iterable[Verdict], good: Mapping[str, int] | None = None) -> "Branch":
        """Return what good `verdicts`, oldest first, are worth.

        Args:
            verdicts: The chain since the common verdict, at least one.
            good: Rounds by peer, of those whose `good` record names a verdict of this chain.
        """
        row = list(verdicts)
        last = dict(good or {})
        for verdict in row:
            for peer in verdict.signers():
                last[peer] = max(last.get(peer, 0), verdict.judgement.round)
        return cls(last, row[0].judgement)


def choose(ours: Branch, theirs: Branch, eligible: Collection[str]) -> tuple[Fork, str]:
    """Return which of two chains to be on, and why.

    A peer counts for the chain on which it signed, or held to a verdict, last (see ADR 9). Length
    does not count: a lone hostile peer can give itself as many verdicts as it likes.

    Args:
        ours: What we hold to.
        theirs: What the others do.
        eligible: Who might sit by the common verdict; everybody counts where it knows nobody.
    """

    def holders(branch: Branch, other: Branch) -> int:
        return sum(
            number > other.last_held.get(peer, -1)
            for peer, number in branch.last_held.items()
            if not eligible or peer in eligible
        )

    mine, yours = holders(ours, theirs), holders(theirs, ours)
    if mine != yours:
        decision = Fork.SWITCH if yours > mine else Fork.STAY
        return decision, f"{yours} peers hold to that chain, {mine} to this one"
    stays = prefer(ours.first, theirs.first) == ours.first
    return (Fork.STAY if stays else Fork.SWITCH), "the lower tickets count"


def _vector(judgement: Judgement) -> list[str]:
    return [lot(seat.ticket) for seat in judgement.seats]


def _scores(judgement: Judgement) -> int:
    return sum(seat.reveal is not None for seat in judgement.seats)
