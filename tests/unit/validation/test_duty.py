"""A peer that only wants to judge works as much as its place costs, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.identity import peer_id_of
from peer.validation.duty import RENEWED_AFTER_ROUNDS, Duty, duty
from peer.validation.ledger import Ledger, Outcome, Standing, advance
from peer.validation.rules import LAPSED_CANDIDATES, STRIKE_ROUNDS, Rules
from peer.validation.score import Decision

EVERY = 5
RULES = Rules(run_id="tiny-1", every_epochs=EVERY, tenure_epochs=EVERY)
ME, *OTHERS = [peer_id_of(b"peer %d" % number) for number in range(4)]


def ledger(round_number=30, drawn=(ME, *OTHERS), **mine):
    """Return a ledger of some round; `mine` says what it knows of us."""
    standing = Standing(**{"peer_id": ME, "epochs": 50, "last_round": round_number} | mine)
    genesis = Ledger.genesis(RULES.run_id, "00" * 32)
    change = {"round": round_number, "epoch": EVERY * round_number, "drawn": drawn}
    return genesis.model_copy(update=change | {"standings": (standing,)})


def asked(known, epoch=None, worked=None):
    return duty(known, ME, known.epoch + 1 if epoch is None else epoch, worked, RULES)


def test_while_nobody_is_drawn_whoever_makes_the_candidate_judges_it():
    for known in (Ledger.genesis(RULES.run_id, "00" * 32), ledger(1, drawn=())):
        what, why = asked(known)
        assert what is Duty.TRAIN
        assert "whoever makes the next candidate may judge it" in why


def test_a_place_is_earned_by_as_many_epochs_as_it_costs():
    what, why = asked(ledger(epochs=3))
    assert what is Duty.TRAIN
    assert "3 of 5 epochs" in why
    assert asked(ledger(drawn=tuple(OTHERS), epochs=5))[0] is Duty.FOLLOW


def test_whom_no_verdict_knows_earns_its_place():
    known = ledger(drawn=tuple(OTHERS)).model_copy(update={"standings": ()})
    assert asked(known)[0] is Duty.TRAIN


def test_whoever_has_a_place_follows_and_says_when_it_may_sit():
    assert asked(ledger()) == (Duty.FOLLOW, "as a validator; may sit in round 31")
    barred = asked(ledger(barred_until=40))
    assert barred == (Duty.FOLLOW, "as a validator; barred until round 40")
    soon = ledger(drawn=tuple(OTHERS)).model_copy(update={"drawn_after": (ME,)})
    assert "from round 32" in asked(soon)[1]


def test_before_a_place_lapses_one_epoch_of_each_candidate_is_worked_on():
    stale = ledger(last_round=30 - RENEWED_AFTER_ROUNDS)
    what, why = asked(stale)
    assert what is Duty.TRAIN
    assert "nothing of it was judged since verdict 20" in why
    begins = stale.epoch
    assert asked(stale, begins + 3, worked=begins - 1)[0] is Duty.TRAIN
    assert asked(stale, begins + 3, worked=begins)[0] is Duty.FOLLOW
    assert asked(stale, begins + EVERY, worked=begins + 3)[0] is Duty.TRAIN
    assert asked(ledger(last_round=31 - RENEWED_AFTER_ROUNDS))[0] is Duty.FOLLOW


def test_where_candidates_come_without_verdicts_it_makes_them_with_the_others():
    known = ledger()
    waited = LAPSED_CANDIDATES * EVERY
    assert asked(known, known.epoch + waited - 1)[0] is Duty.FOLLOW
    assert asked(known, known.epoch + waited)[0] is Duty.TRAIN


@pytest.mark.parametrize("lost", [0, 1, 3])
@given(data=st.data())
def test_a_place_that_was_earned_never_lapses(lost, data):
    """Of candidates in a row up to `lost` are rejected or get no verdict at all."""
    known, epoch, worked, worked_epochs = Ledger.genesis(RULES.run_id, "00" * 32), 0, None, 0
    missed = 0
    for _ in range(3 * STRIKE_ROUNDS):
        attendance = dict.fromkeys(OTHERS, EVERY)
        for each in range(epoch, epoch + EVERY):
            if asked(known, each, worked)[0] is Duty.TRAIN:
                attendance[ME] = attendance.get(ME, 0) + 1
                worked, worked_epochs = each, worked_epochs + 1
        epoch += EVERY
        fate = (
            data.draw(st.sampled_from(["accept", "reject", "none"])) if missed < lost else "accept"
        )
        missed = 0 if fate == "accept" else missed + 1
        if fate == "none":
            continue
        outcome = Outcome(
            epoch=epoch,
            state_root="ab" * 32,
            decision=Decision(fate),
            difference_points=0,
            seed=known.seed(RULES.run_id, epoch),
            lowest_lot="aa",
            struck=(),
            excluded=(),
            attendance=attendance,
        )
        known = advance(known, outcome, RULES)
        if fate == "reject":
            epoch, worked = known.epoch, None
        if known.round > 2 and known.standing(ME).epochs >= EVERY and ME in known.drawn:
            assert ME in known.eligible(known.round + 1, RULES)
    assert ME in known.eligible(known.round + 1, RULES)
    if not lost:
        assert worked_epochs <= 2 * EVERY + 3 * STRIKE_ROUNDS // RENEWED_AFTER_ROUNDS
