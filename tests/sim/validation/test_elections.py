"""Elections are fair, and newcomers cannot buy them with keys."""

import hashlib
import math
from collections import Counter

import pytest

from peer.identity import peer_id_of
from peer.run.canonical import to_base64
from peer.swarm.testimony import Ticket
from peer.validation.committee import elect
from peer.validation.ledger import Ledger, Outcome, advance
from peer.validation.rules import Rules
from peer.validation.score import Decision
from peer.validation.ticket import first_entropy, lot, next_entropy, seed_of

ELECTIONS = 10_000
RULES = Rules(run_id="fair-run", every_epochs=10, tenure_epochs=50)


def key(name):
    return to_base64(f"key of {name}".encode())


def ticket_of(public_key, seed):
    """Return a ticket whose signature is a hash: as unforeseeable here as a real one."""
    signature = hashlib.sha256(f"{public_key} {seed}".encode()).digest()
    return Ticket(seed=seed, public_key=public_key, signature=to_base64(signature))


def largest_fair(freedom):
    """Return what chi-square exceeds with p = 0.01 (Wilson and Hilferty 1931)."""
    third = 2 / (9 * freedom)
    return freedom * (1 - third + 2.326 * math.sqrt(third)) ** 3


def unfairness(counts, expected, seats, peers):
    """Return chi-square for `seats` of `peers` drawn without replacement in each election."""
    squares = sum((count - expected) ** 2 for count in counts)
    return squares / (expected * (1 - seats / peers)) * (peers - 1) / peers


@pytest.mark.parametrize("peers", [8, 20])
def test_over_ten_thousand_elections_every_peer_sits_equally_often(peers):
    keys = [key(i) for i in range(peers)]
    roster = {ticket_of(each, "0" * 64).peer_id for each in keys}
    seats, first, called = Counter(), Counter(), 0
    entropy = first_entropy("fair-run")
    for number in range(1, ELECTIONS + 1):
        seed = seed_of("fair-run", number, 10 * number, entropy)
        committee, drawn = elect((ticket_of(each, seed) for each in keys), roster)
        seats.update(committee.called[:7])
        first[committee.called[0]] += 1
        called += len(committee.called)
        entropy = next_entropy(entropy, seed, lot(drawn[0]))
    assert called == ELECTIONS * min(12, peers)
    assert set(seats) == roster
    limit = largest_fair(peers - 1)
    assert unfairness(seats.values(), ELECTIONS * 7 / peers, 7, peers) < limit
    assert unfairness(first.values(), ELECTIONS / peers, 1, peers) < limit


def test_the_test_of_fairness_finds_a_peer_that_is_favoured():
    fair = ELECTIONS * 7 / 20
    counts = [fair * 1.1] + [fair * (1 - 0.1 / 19)] * 19
    assert unfairness(counts, fair, 7, 20) > largest_fair(19)


def test_a_thousand_fresh_keys_win_no_seat_before_their_tenure():
    veterans = [key(f"veteran {i}") for i in range(20)]
    fresh = [key(f"fresh {i}") for i in range(1000)]
    peer_of = {each: peer_id_of(f"key of {name}".encode()) for each, name in _names()}
    ledger = Ledger.genesis("fair-run", "00" * 32)
    seated_after = None
    for number in range(1, 40):
        here = veterans + (fresh if number > 20 else [])
        epoch = ledger.epoch + RULES.every_epochs
        members = [peer_of[each] for each in here]
        roster, _ = ledger.roster(epoch, members, RULES)
        seed = ledger.seed("fair-run", epoch)
        tickets = [ticket_of(each, seed) for each in here if peer_of[each] in set(roster)]
        committee, drawn = elect(tickets, roster)
        newcomers = {peer_of[each] for each in fresh} & set(committee.called)
        if newcomers and seated_after is None:
            seated_after = number - 20
        outcome = Outcome(
            epoch=epoch,
            state_root=hashlib.sha256(b"%d" % epoch).hexdigest(),
            decision=Decision.ACCEPT,
            difference_points=0,
            seed=seed,
            lowest_lot=lot(drawn[0]),
            struck=(),
            excluded=(),
            attendance=dict.fromkeys(members, RULES.every_epochs),
        )
        ledger = advance(ledger, outcome, RULES)
    # Five rounds of ten epochs, and the roster of the round after the next one knows of it.
    assert seated_after == 7


def _names():
    names = [f"veteran {i}" for i in range(20)] + [f"fresh {i}" for i in range(1000)]
    return [(key(name), name) for name in names]
