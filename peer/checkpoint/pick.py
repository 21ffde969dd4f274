"""Which of the states that peers offer a person means. Pure."""

import dataclasses
from collections import Counter
from collections.abc import Mapping

from peer.checkpoint.lineage import ABBREVIATION, NEWEST
from peer.errors import UsageError

GOOD = "good"
"""Stands for the root of the state that validators hold to be good."""
ROOT_CHARS = 64
_OF_ONE_PEER = 3
"""So many of the newest states that a peer offers: with more it could fill the list alone."""

Offered = Mapping[str, Mapping[str, int]]
"""By peer, the roots of the states that it offers, each with the epoch that it says."""


@dataclasses.dataclass(frozen=True)
class Pick:
    """A state to fetch.

    Attributes:
        state_root: Its root.
        epoch: What its donors say that it is of; None where that does not matter.
        donors: Whom to ask, those that offer it first.
    """

    state_root: str
    epoch: int | None
    donors: tuple[str, ...]


def check_wish(wish: str) -> None:
    """Raise UsageError unless `wish` is the beginning of a root, or one of the two words."""
    if wish not in (NEWEST, GOOD) and not ABBREVIATION.fullmatch(wish):
        raise UsageError(
            f"{wish!r} is no state root: give the first hexadecimal digits of one, as peers show "
            f"them with `ctpeer checkpoint list`, or one of the words {GOOD} and {NEWEST}"
        )


def pick(wish: str, offered: Offered) -> list[Pick]:
    """Return the states that `wish` may mean, the likeliest first; none if none is offered.

    Of the newest ones those that several peers offer come first. Who says another epoch of a state
    offers another one.

    Args:
        wish: A whole root, the beginning of one, or the word `newest`.
        offered: What peers offer. A whole root may be had from those that do not name it, too:
            they name only their newest ones.

    Raises:
        UsageError: Several roots that are offered begin so.
    """
    if wish == NEWEST:
        return _newest(offered)
    roots = {root for states in offered.values() for root in states if root.startswith(wish)}
    if len(roots) > 1:
        raise UsageError(
            f"{wish} is the beginning of {len(roots)} roots that peers offer "
            f"({', '.join(root[:20] for root in sorted(roots)[:8])}); give more of it"
        )
    if len(wish) == ROOT_CHARS and offered:
        return [
            Pick(wish, None, tuple(sorted(offered, key=lambda peer: wish not in offered[peer])))
        ]
    return [Pick(r, None, tuple(p for p, states in offered.items() if r in states)) for r in roots]


def _newest(offered: Offered) -> list[Pick]:
    """Return the states that peers offer, a few of each peer."""
    donors: dict[tuple[int, str], list[str]] = {}
    for peer, states in offered.items():
        for root, epoch in states.items():
            donors.setdefault((epoch, root), []).append(peer)
    picks: list[Pick] = []
    taken = Counter[str]()
    # Whoever is alone with a state may be slow, or lie.
    for epoch, root in sorted(donors, key=lambda it: (len(donors[it]) > 1, *it), reverse=True):
        asked = donors[epoch, root]
        if any(taken[peer] < _OF_ONE_PEER for peer in asked):
            taken.update(asked)
            picks.append(Pick(root, epoch, tuple(asked)))
    return picks
