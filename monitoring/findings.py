"""What a crawl brings home: records whose signatures are good, and what certificates prove."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from peer.data.index import DataIndex
from peer.swarm.bodies import PeerBody, StatusBody
from peer.swarm.testimony import Good
from peer.training.certificate import Certificate
from peer.validation.ledger import Ledger
from peer.validation.verdict import Verdict

MAX_PEERS = 512
"""Records kept of each kind; contributors come first."""
MAX_NEWCOMERS = 256
"""Of them, records of peers that contributed nothing yet, where anybody has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found.

    Attributes:
        now_s: When, on the wall clock.
        peers: That they are there, by peer id.
        statuses: How they say they do, by peer id.
        claims: Which shards they claim, encoded, by peer id.
        good: Which verdict they hold to, by peer id.
        row: Certificates, oldest first.
        veterans: Who contributed to those of the generation before.
        chain: Verdicts, oldest first.
        ledger: What the last of them led to.
        index: The run's shards; None while nobody gave it.
        baselines: What simple models reach on the held-out data, by the run's manifest; empty while
            nobody gave it.
        remotes: IP addresses at which peers answered.
    """

    now_s: float
    peers: Mapping[str, PeerBody] = dataclasses.field(default_factory=dict)
    statuses: Mapping[str, StatusBody] = dataclasses.field(default_factory=dict)
    claims: Mapping[str, str] = dataclasses.field(default_factory=dict)
    good: Mapping[str, Good] = dataclasses.field(default_factory=dict)
    row: Sequence[Certificate] = ()
    veterans: frozenset[str] = frozenset()
    chain: Sequence[Verdict] = ()
    ledger: Ledger | None = None
    index: DataIndex | None = None
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    remotes: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)

    @property
    def members(self) -> frozenset[str]:
        """Who contributed to the run, as far as certificates and verdicts at hand say so."""
        return self.veterans | members_of(self.row, self.ledger)


def members_of(row: Sequence[Certificate], ledger: Ledger | None) -> frozenset[str]:
    """Return who contributed to certified epochs; nobody where nothing is at hand."""
    worked = {peer for certificate in row for peer in certificate.vote.group}
    known = {s.peer_id for s in ledger.standings if s.epochs} if ledger is not None else set()
    return frozenset(worked | known)


def kept(found: Collection[str], members: Collection[str]) -> frozenset[str]:
    """Return of whom records are kept: contributors first, of the others a bounded number."""
    known = sorted(peer for peer in found if peer in members)[:MAX_PEERS]
    others = sorted(peer for peer in found if peer not in members)
    room = MAX_PEERS - len(known)
    return frozenset([*known, *others[: min(room, MAX_NEWCOMERS) if members else room]])
