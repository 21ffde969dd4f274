"""Certificates in a row: which one may extend a root, and which of two rows is the run's. Pure.

Fork choice counts, for each row since the common root, the tenured peers that signed on it last; a
peer that went on elsewhere does not count for what it left. Then weight, then the lower root. Where
no certificate is in common, the run's founders count first.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from enum import StrEnum

from peer.training.certificate import Base, Certificate, problem


class Fork(StrEnum):
    """What to do about another row of certificates."""

    STAY = "stay"
    SWITCH = "switch"


@dataclasses.dataclass(frozen=True)
class Row:
    """What a chain did since the common root.

    Attributes:
        last_signed: The newest epoch that each peer signed in it, by peer id.
        weight: Loss terms that it averaged.
        root: The state root that its newest certificate extends.
    """

    last_signed: dict[str, int]
    weight: int
    root: str

    @classmethod
    def of(cls, certificates: Sequence[Certificate]) -> "Row":
        """Return what `certificates`, oldest first, did; an empty row is one that stood still."""
        last: dict[str, int] = {}
        for certificate in certificates:
            for signer in certificate.signers & set(certificate.vote.group):
                last[signer] = certificate.vote.base.epoch
        weight = sum(certificate.vote.weight for certificate in certificates)
        root = certificates[-1].vote.base.state_root if certificates else ""
        return cls(last, weight, root)

    @classmethod
    def still(cls, peers: Collection[str], epoch: int) -> "Row":
        """Return the row of `peers` that stand together at `epoch`: here, with nothing done yet."""
        return cls(dict.fromkeys(peers, epoch), 0, "")


def choose(
    ours: Row, theirs: Row, tenured: Collection[str], founders: Collection[str] = ()
) -> tuple[Fork, str]:
    """Return which of two rows from one common root to be on, and why.

    Args:
        ours: What we did since the common root.
        theirs: What the others did.
        tenured: Peers that worked before the common root; empty where there is no such past, and
            then everybody counts.
        founders: Peers that count before all others; for rows that have no past in common, where
            each side knows its own peers only.
    """

    def signers(row: Row, other: Row, electors: Collection[str]) -> int:
        return sum(
            epoch > other.last_signed.get(peer, -1)
            for peer, epoch in row.last_signed.items()
            if peer in electors
        )

    everybody = {*ours.last_signed, *theirs.last_signed}
    for electors, what in ((founders, "founders"), (tenured or everybody, "peers")):
        mine, yours = signers(ours, theirs, electors), signers(theirs, ours, electors)
        if mine != yours:
            decision = Fork.SWITCH if yours > mine else Fork.STAY
            return decision, f"{yours} {what} went on there, {mine} here"
    if ours.weight != theirs.weight:
        decision = Fork.SWITCH if theirs.weight > ours.weight else Fork.STAY
        return decision, f"{theirs.weight} loss terms went in there, {ours.weight} here"
    decision = Fork.SWITCH if theirs.root < ours.root else Fork.STAY
    return decision, "all else is equal, and the lower root counts"


def left_behind(
    signers: Collection[str], standing: Collection[str], tenured: Collection[str]
) -> set[str]:
    """Return the tenured peers among those `standing` at a state that did not go on from it."""
    return (set(standing) & set(tenured)) - set(signers)


def objection(
    certificate: Certificate,
    base: Base,
    me: str,
    standing: Collection[str],
    tenured: Collection[str],
) -> str | None:
    """Return why a peer at `base` must not advance by `certificate`, or None if it may.

    Whoever is quick must not drag the others along alone: they may well go on together.

    Args:
        certificate: What somebody offers.
        base: Where the peer stands.
        me: Its id.
        standing: The peers that stand there, too, as far as it knows, itself among them.
        tenured: Peers that worked on the way to `base`; nobody at a run's beginning.
    """
    if (wrong := problem(certificate)) is not None:
        return wrong
    if certificate.vote.base != base:
        return "it extends another state"
    signers = certificate.signers & set(certificate.vote.group)
    here, there = left_behind(signers, standing, tenured), signers & set(tenured)
    if me not in signers and len(here) > len(there):
        return f"{len(there)} tenured peers signed it, and {len(here)} are still here"
    return None


def row_problem(certificates: Sequence[Certificate], run_id: str, generation: int) -> str | None:
    """Return why good `certificates`, oldest first, are no row of that run, or None."""
    bases = [certificate.vote.base for certificate in certificates]
    if any((base.run_id, base.generation) != (run_id, generation) for base in bases):
        return "it is of another run or generation"
    if any(later.epoch != earlier.epoch + 1 for earlier, later in itertools.pairwise(bases)):
        return "the epochs do not follow each other"
    return None
