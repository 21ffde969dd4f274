"""Whether the swarm has gathered an epoch's batch, guessed from reports that may lie. Pure.

A report can only hurry or delay a round by a bounded factor: what a peer claims counts for at most
`_CREDIT` times what the middle peer has, and rates enter by their median.
"""

import statistics
from collections.abc import Sequence

_CREDIT = 4
_SHORTEST_WAIT_S = 0.02
_LONGEST_WAIT_S = 2.0


def gathered(own: int, others: Sequence[int]) -> int:
    """Return how many loss terms the swarm credibly has.

    Args:
        own: What this peer has gathered since the last epoch.
        others: What the others at the same state claim.
    """
    cap = _CREDIT * max(1, statistics.median_low([own, *others]))
    return own + sum(min(claim, max(cap, own)) for claim in others)


def wait_s(missing: int, rates: Sequence[float]) -> float:
    """Return after how many seconds it is worth asking again.

    Args:
        missing: Loss terms still to gather.
        rates: Loss terms a second, of every peer, ourselves among them.
    """
    total = statistics.median(rates) * len(rates) if rates else 0.0
    if total <= 0.0:
        return _LONGEST_WAIT_S / 4
    return min(_LONGEST_WAIT_S, max(_SHORTEST_WAIT_S, missing / total))
