"""The picture of the swarm that is made of a crawl. Pure.

Only peers that certificates name are counted, once there are certificates: keys are cheap, and a
thousand of them that say whatever they like change nothing here. Where peers speak for themselves,
the middle one is heard, and sums are bounded by what certificates say of each one's share.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median, median_low

from monitoring.findings import Findings
from monitoring.names import (
    CLAIM_COUNTS,
    DEVICES,
    MAX_MEMBERS,
    MAX_VERSIONS,
    OTHER,
    SILENT,
    STATES,
)
from monitoring.totals import Totals
from peer.data import claims
from peer.data.index import DataIndex
from peer.training.certificate import Certificate

_GROUPS = 16
"""The middle of so many newest certificates is the size of a group."""
_FACTOR = 4
_ROOT_CHARS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """Who claims what of the run's training shards.

    Attributes:
        shards: How many there are.
        claims: Claims on them.
        claiming: Peers that claim any.
        by_claims: Shards by how many claim them, by `CLAIM_COUNTS`.
    """

    shards: int
    claims: int
    claiming: int
    by_claims: Mapping[str, int]

    @property
    def claimed(self) -> int:
        """Shards that anybody claims."""
        return self.shards - self.by_claims[CLAIM_COUNTS[0]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """The swarm, as far as it can be seen from outside.

    Attributes:
        live: The peers that count, by peer id.
        newcomers: How many others are there.
        states: Live peers by what they do.
        versions: Live peers by ctpeer's version.
        devices: Live peers by what they compute with.
        certificates: At hand.
        epoch: Of the certified head.
        generation: Of the certified head.
        behind: How many epochs live peers lie behind it, as far as that is known.
        branches: State roots that are claimed at one epoch, at most.
        group: Peers in the middle one of the newest groups.
        loss_terms: In the certificates at hand, by peer id.
        tokens_per_s: Of all live peers by their word, each bounded.
        loss_nats: Of the middle live peer by its word.
        heldout: Likewise.
        told_group: Likewise.
        coverage: Of the shards; None while the index is not here.
    """

    live: tuple[str, ...]
    newcomers: int
    states: Mapping[str, int]
    versions: Mapping[str, int]
    devices: Mapping[str, int]
    certificates: int
    epoch: int
    generation: int
    behind: Mapping[str, int]
    branches: int
    group: float
    loss_terms: Mapping[str, int]
    tokens_per_s: Mapping[str, float]
    loss_nats: float | None
    heldout: float | None
    told_group: float | None
    coverage: Coverage | None

    @property
    def epoch_spread(self) -> int:
        """How far the last of them lies behind."""
        return max(self.behind.values(), default=0)

    @property
    def foremost(self) -> tuple[str, ...]:
        """Peers that have series of their own: those that contributed most."""
        peers = {*self.loss_terms, *self.live}
        order = sorted(peers, key=lambda peer: (-self.loss_terms.get(peer, 0), peer))
        return tuple(order[:MAX_MEMBERS])


def aggregate(found: Findings, totals: Totals) -> View:
    """Return the view of what was found.

    Args:
        found: By the crawl.
        totals: What is known from before, this crawl's head included.
    """
    members = found.members
    there = {*found.peers, *found.statuses}
    live = tuple(sorted(peer for peer in there if not members or peer in members))
    told = {peer: found.statuses[peer] for peer in live if peer in found.statuses}
    heads = [c.vote.base for c in found.row[-1:]]
    weights = _weights(found.row)
    return View(
        live=live,
        newcomers=len(there) - len(live),
        states=_states(found, live),
        versions=_versions(found.peers[peer].version for peer in live if peer in found.peers),
        devices=_counted((s.device for s in told.values()), DEVICES),
        certificates=len(found.row),
        epoch=heads[0].epoch + 1 if heads else 0,
        generation=heads[0].generation if heads else 0,
        behind=_behind(found, live, totals),
        branches=_branches(found, live),
        group=median([len(c.vote.entries) for c in found.row[-_GROUPS:]] or [0]),
        loss_terms=weights,
        tokens_per_s=bounded({p: s.tokens_per_s for p, s in told.items()}, weights),
        loss_nats=_middle(s.loss_nats for s in told.values()),
        heldout=_middle(s.heldout for s in told.values()),
        told_group=_middle(s.group for s in told.values() if s.committed),
        coverage=None if found.index is None else cover(found.claims, live, found.index),
    )


def bounded(said: Mapping[str, float], weights: Mapping[str, int]) -> dict[str, float]:
    """Return what peers say, each bounded by what is usual for one that contributed as much.

    A fast peer may say more than the others by as much as it contributed more.

    Args:
        said: By peer id.
        weights: Loss terms in certificates, by peer id.
    """
    proven = [value / weights[peer] for peer, value in said.items() if weights.get(peer)]
    usual = _FACTOR * median_low(proven) if proven else 0.0
    most = _FACTOR * median_low(said.values()) if said else 0.0
    return {
        peer: min(value, usual * weights[peer] if weights.get(peer) else most)
        for peer, value in said.items()
    }


def cover(told: Mapping[str, str], live: Iterable[str], index: DataIndex) -> Coverage:
    """Return which training shards of `index` live peers claim."""
    by_peer = {peer: claims.decode(told[peer], index) for peer in live if peer in told}
    counts = Counter(name for names in by_peer.values() for name in names)
    shards = index.split("train")
    by_claims = Counter(min(counts[shard.name], len(CLAIM_COUNTS) - 1) for shard in shards)
    return Coverage(
        shards=len(shards),
        claims=counts.total(),
        claiming=sum(bool(names) for names in by_peer.values()),
        by_claims={name: by_claims[number] for number, name in enumerate(CLAIM_COUNTS)},
    )


def _weights(row: Sequence[Certificate]) -> dict[str, int]:
    weights: Counter[str] = Counter()
    for certificate in row:
        for entry in certificate.vote.entries:
            weights[entry.peer_id] += entry.weight
    return dict(weights)


def _behind(found: Findings, live: Iterable[str], totals: Totals) -> dict[str, int]:
    """Return how far each live peer was behind the head when it said where it was."""
    if not found.row:
        return {}
    generation = found.row[-1].vote.base.generation
    behind: dict[str, int] = {}
    for peer in live:
        body = found.peers.get(peer)
        head = totals.head_at(body.now_s) if body is not None else None
        if body is None or head is None:
            continue
        # Whoever is in an earlier generation has all of this one before it.
        epoch = body.epoch if body.generation >= generation else min(body.epoch, head)
        behind[peer] = max(0, head - epoch)
    return behind


def _branches(found: Findings, live: Iterable[str]) -> int:
    """Return the most state roots that live peers, and the certificates, claim at one epoch."""
    roots: dict[tuple[int, int], set[str]] = defaultdict(set)
    for certificate in found.row:
        base = certificate.vote.base
        roots[base.generation, base.epoch].add(base.state_root[:_ROOT_CHARS])
    for peer in live:
        status = found.statuses.get(peer)
        if status is not None and status.root is not None:
            roots[status.generation, status.epoch].add(status.root)
    return max(map(len, roots.values()), default=0)


def _states(found: Findings, live: Iterable[str]) -> dict[str, int]:
    said = (found.statuses[p].phase if p in found.statuses else SILENT for p in live)
    return _counted(said, STATES)


def _versions(said: Iterable[str]) -> dict[str, int]:
    counts = Counter(said)
    common = dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MAX_VERSIONS])
    rest = counts.total() - sum(common.values())
    return common | ({OTHER: rest} if rest else {})


def _counted(said: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(known, 0)
    for word in said:
        counts[word if word in known else OTHER] += 1
    return counts


def _middle(said: Iterable[float | None]) -> float | None:
    values = [value for value in said if value is not None]
    return median(values) if values else None
