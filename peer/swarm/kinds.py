"""Every kind of record that the DHT of a run may hold: its schema, its lifetime, its size."""

import dataclasses

from peer.swarm.bodies import ClaimBody, PeerBody, RecordBody, StatusBody
from peer.swarm.testimony import Assent, Commit, Good, Proposal, Reveal, Ticket

MAX_RECORD_BYTES = 4096

_HOUR_S = 3600.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is allowed of one kind of records.

    Attributes:
        schema: What the body must be.
        max_lifetime_s: How far ahead the record may expire.
        max_bytes: How long the sealed record may be.
    """

    schema: type[RecordBody]
    max_lifetime_s: float
    max_bytes: int = MAX_RECORD_BYTES


KINDS = {
    "peer": Kind(PeerBody, 120.0),
    "claim": Kind(ClaimBody, 300.0),
    "status": Kind(StatusBody, 120.0, max_bytes=1400),
    "ticket": Kind(Ticket, _HOUR_S / 4),
    "commit": Kind(Commit, _HOUR_S),
    "reveal": Kind(Reveal, _HOUR_S),
    "assent": Kind(Assent, _HOUR_S),
    "proposal": Kind(Proposal, 24 * _HOUR_S),
    "good": Kind(Good, _HOUR_S / 6),
}
