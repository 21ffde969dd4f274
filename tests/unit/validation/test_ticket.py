"""A ticket is one lot for one key and seed, and two of them are proof of a crafted key."""

import base64
import dataclasses

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from peer.identity import Identity
from peer.validation.ticket import (
    double,
    first_entropy,
    in_order,
    lot,
    make,
    next_entropy,
    problem,
    seed_of,
)

SEED = seed_of("tiny-1", 3, 15, first_entropy("tiny-1"))
OTHER_SEED = seed_of("tiny-1", 3, 20, first_entropy("tiny-1"))


def signed_with(ticket, signature):
    return ticket.model_copy(update={"signature": base64.b64encode(signature).decode()})


@dataclasses.dataclass
class Crafted:
    """A key of which two signatures are good, as far as `verify` can tell."""

    public_key: bytes = b"crafted"
    which: bytes = b"a"

    def sign(self, data):
        return self.which + data

    @staticmethod
    def verify(public_key, signature, data):
        return public_key == b"crafted" and signature[1:] == data


def test_a_ticket_is_the_same_each_time_and_another_for_another_seed(identities):
    me = identities[0]
    assert make(me, SEED) == make(me, SEED)
    assert lot(make(me, SEED)) != lot(make(me, OTHER_SEED))
    assert problem(make(me, SEED), SEED, [me.peer_id]) is None


def test_a_ticket_of_another_round_protocol_or_peer_is_refused(identities):
    me, other = identities[:2]
    ticket = make(me, SEED)
    assert problem(ticket, OTHER_SEED, [me.peer_id]) == "it is of another round"
    assert problem(ticket, SEED, [other.peer_id]) == "its owner is not in the roster"
    newer = ticket.model_copy(update={"protocol": 2})
    assert problem(newer, SEED, [me.peer_id]) == "it is of another protocol"
    moved = make(me, OTHER_SEED).model_copy(update={"seed": SEED})
    assert problem(moved, SEED, [me.peer_id]) == "it is not signed by its owner"


def test_a_ticket_signed_by_another_key_is_refused(identities):
    me, other = identities[:2]
    forged = make(me, SEED).model_copy(update={"signature": make(other, SEED).signature})
    assert problem(forged, SEED, [me.peer_id]) == "it is not signed by its owner"


def test_a_randomised_signature_is_no_ticket(identities):
    me = identities[0]
    ticket = make(me, SEED)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    random_one = signed_with(ticket, me._key.sign(ticket.statement(), pss, hashes.SHA256()))
    assert problem(random_one, SEED, [me.peer_id]) == "it is not signed by its owner"


@pytest.mark.parametrize(("exponent", "bits"), [(3, 2048), (65537, 1024), (65537, 3072)])
def test_a_key_of_another_kind_draws_no_lot(exponent, bits):
    odd = Identity(rsa.generate_private_key(exponent, bits))
    assert problem(make(odd, SEED), SEED, [odd.peer_id]) == "it is not signed by its owner"


def test_two_tickets_of_one_key_are_proof_against_it():
    one, two = make(Crafted(which=b"a"), SEED), make(Crafted(which=b"b"), SEED)
    proof = double(one, two)
    assert proof == double(two, one)
    assert proof.is_proof(Crafted.verify)
    assert proof.peer_id == one.peer_id


def test_one_ticket_shown_twice_is_no_proof(identities):
    ticket = make(identities[0], SEED)
    assert double(ticket, ticket) is None
    assert double(ticket, make(identities[0], OTHER_SEED)) is None
    assert double(ticket, make(identities[1], SEED)) is None


def test_a_proof_with_a_made_up_signature_proves_nothing(identities):
    ticket = make(identities[0], SEED)
    proof = double(ticket, signed_with(ticket, b"made up"))
    assert not proof.is_proof()
    same = proof.model_copy(update={"first": ticket.signature, "second": ticket.signature})
    assert not same.is_proof()


def test_lots_alone_order_tickets(identities):
    tickets = [make(each, SEED) for each in identities]
    assert in_order(tickets) == in_order(reversed(tickets))
    assert [lot(t) for t in in_order(tickets)] == sorted(lot(t) for t in tickets)


def test_a_seed_hangs_on_all_that_it_is_made_of():
    entropy = first_entropy("tiny-1")
    seeds = {
        seed_of("tiny-1", 3, 15, entropy),
        seed_of("tiny-2", 3, 15, entropy),
        seed_of("tiny-1", 4, 15, entropy),
        seed_of("tiny-1", 3, 20, entropy),
        seed_of("tiny-1", 3, 15, next_entropy(entropy, SEED, "ab")),
        seed_of("tiny-1", 3, 15, next_entropy(entropy, SEED, "ac")),
    }
    assert len(seeds) == 6
