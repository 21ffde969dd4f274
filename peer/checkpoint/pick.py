"""Which of the states that peers offer a person means. Pure."""

import dataclasses
from collections import Counter
from collections.abc import Mapping

from peer.checkpoint.lineage import ABBREVIATION, NEWEST
from peer.errors import UsageError

GOOD = "good"
"""Stands for the root of the state that validators hold to be good."""
ROOT_CHARS = 64

Offered = Mapping[str, Mapping[str, int]]
"""By peer, the roots of the states that it offers, each with the epoch that it says."""


@dataclasses.dataclass(frozen=True)
class Pick:
    """A state to fetch.

    Attributes:
        state_root: Its root.
        epoch: What most of the donors say that it is of; None if nobody offers it.
        donors: Whom to ask.
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

    Args:
        wish: A whole root, the beginning of one, or the word `newest`.
        offered: What peers offer. A whole root may be had from those that do not name it, too:
            they name only their newest ones.

    Raises:
        UsageError: Several roots that are offered begin so.
    """
    picks = {root: _pick(root, offered) for states in offered.values() for root in states}
    if wish == NEWEST:
        return sorted(
            picks.values(), key=lambda p: (p.epoch, len(p.donors), p.state_root), reverse=True
        )
    if len(wish) == ROOT_CHARS and offered:
        return [picks.get(wish) or Pick(wish, None, tuple(offered))]
    found = [picks[root] for root in sorted(picks) if root.startswith(wish)]
    if len(found) > 1:
        raise UsageError(
            f"{wish} is the beginning of {len(found)} roots that peers offer "
            f"({', '.join(one.state_root[:20] for one in found[:8])}); give more of it"
        )
    return found


def _pick(root: str, offered: Offered) -> Pick:
    donors = tuple(peer for peer, states in offered.items() if root in states)
    said = Counter(offered[donor][root] for donor in donors)
    epoch = min(said, key=lambda epoch: (-said[epoch], epoch))
    return Pick(root, epoch, donors)
