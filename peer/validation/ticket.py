"""Tickets: who draws which lot, unknown to everybody else until its owner shows it. Pure.

A ticket is the hash of a PKCS#1 v1.5 signature (RFC 8017, section 8.2) over the round's seed. It is
deterministic, so an honest key has one; of a crafted key two can be valid, and whoever shows two is
out.
"""

import hashlib
from collections.abc import Collection, Iterable

from peer import identity
from peer.run.canonical import canonical, from_base64
from peer.run.manifest import Hash
from peer.swarm.bodies import RecordBody
from peer.swarm.testimony import PROTOCOL, Base64, Signer, Ticket, Verify, peer_of


class DoubleTicket(RecordBody):
    """Proof that a key has two tickets for one seed."""

    seed: Hash
    public_key: Base64
    first: Base64
    second: Base64

    @property
    def peer_id(self) -> str:
        """Whose tickets they are."""
        return peer_of(self.public_key)

    def is_proof(self, verify: Verify = identity.verify) -> bool:
        """Return whether both signatures are good and they differ."""
        key = self.public_key
        both = [
            Ticket(seed=self.seed, public_key=key, signature=each)
            for each in (self.first, self.second)
        ]
        return lot(both[0]) != lot(both[1]) and all(ticket.is_good(verify) for ticket in both)


def first_entropy(run_id: str) -> str:
    """Return what the first seed of a run is made of."""
    return _hash("first", run_id)


def next_entropy(entropy: str, seed: str, lowest_lot: str) -> str:
    """Return what the next seed is made of, when a verdict was given.

    Only the lowest lot goes in: whoever puts a verdict together must not be able to choose among
    next seeds by leaving out this record or that one.
    """
    return _hash("next", [entropy, seed, lowest_lot])


def seed_of(run_id: str, round_number: int, epoch: int, entropy: str) -> str:
    """Return the seed of a round's draw for the candidate of an epoch.

    The epoch is in it so that a candidate that got no verdict does not leave its draw to the next.
    """
    return _hash("seed", [run_id, round_number, epoch, entropy])


def make(signer: Signer, seed: str) -> Ticket:
    """Return the ticket of `signer`."""
    return Ticket(seed=seed, public_key="", signature="").signed_by(signer)


def lot(ticket: Ticket) -> str:
    """Return the lot that a ticket draws, in hexadecimal; the lowest sits first."""
    return hashlib.sha256(b"ctpeer lot\n" + from_base64(ticket.signature)).hexdigest()


def problem(
    ticket: Ticket, seed: str, roster: Collection[str], verify: Verify = identity.verify
) -> str | None:
    """Return why `ticket` is none of the round, or None."""
    if ticket.seed != seed:
        return "it is of another round"
    if ticket.protocol != PROTOCOL:
        return "it is of another protocol"
    if ticket.peer_id not in roster:
        return "its owner is not in the roster"
    if not ticket.is_good(verify):
        return "it is not signed by its owner"
    return None


def double(one: Ticket, other: Ticket) -> DoubleTicket | None:
    """Return the proof that two good tickets are of one key and seed and differ, or None."""
    if (one.public_key, one.seed) != (other.public_key, other.seed) or lot(one) == lot(other):
        return None
    first, second = sorted((one.signature, other.signature))
    return DoubleTicket(seed=one.seed, public_key=one.public_key, first=first, second=second)


def in_order(tickets: Iterable[Ticket]) -> list[Ticket]:
    """Return `tickets`, lowest lot first."""
    return sorted(tickets, key=lambda ticket: (lot(ticket), ticket.peer_id))


def _hash(what: str, value: object) -> str:
    return hashlib.sha256(f"ctpeer {what}\n".encode() + canonical(value)).hexdigest()
