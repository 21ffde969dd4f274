"""Which shards a peer trains on: its own choice, made alike from what everybody can see.

Pure: the same arguments give the same shards. With fewer bytes allowed than there are, the shards
that fewest others claim come first, in an order of the peer's own, so that coverage evens out
with nobody assigning anything.
"""

import dataclasses
import fnmatch
import hashlib
from collections.abc import Mapping, Sequence

from peer.data.index import DataIndex, Shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preferences:
    """What a volunteer wants: name patterns, and the most that the choice may weigh."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    max_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """A shard and why it was chosen."""

    shard: Shard
    reason: str


def choose(
    peer_id: str, index: DataIndex, claims: Mapping[str, int], preferences: Preferences
) -> tuple[Choice, ...]:
    """Return the training shards that the peer takes, each with its reason.

    Args:
        peer_id: Whose choice it is; breaks ties.
        index: The run's data.
        claims: How many other live peers claim a shard, by name.
        preferences: The volunteer's.
    """
    wanted = [shard for shard in index.split("train") if _wanted(shard, preferences)]
    ordered = sorted(
        wanted, key=lambda shard: (claims.get(shard.name, 0), _draw(peer_id, shard), shard.name)
    )
    if preferences.max_bytes is None:
        why = "it matches the filters" if preferences.include else "everything is wanted"
        return tuple(Choice(shard, why) for shard in ordered)
    chosen, left_bytes = [], preferences.max_bytes
    for shard in ordered:
        if shard.bytes <= left_bytes:
            others = claims.get(shard.name, 0)
            reason = f"it fits the budget, and {others} other peers claim it"
            chosen.append(Choice(shard, reason))
            left_bytes -= shard.bytes
    return tuple(chosen)


def _wanted(shard: Shard, preferences: Preferences) -> bool:
    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(shard.name, pattern) for pattern in patterns)

    included = not preferences.include or matches(preferences.include)
    return included and not matches(preferences.exclude)


def _draw(peer_id: str, shard: Shard) -> bytes:
    return hashlib.sha256(f"{peer_id}\n{shard.sha256}".encode()).digest()
