"""What follows from verdicts: the good state, rollbacks, tenure, strikes."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.identity import peer_id_of
from peer.run.manifest import ValidationSection
from peer.validation.committee import Ground
from peer.validation.ledger import Ledger, Outcome, advance
from peer.validation.rules import MAX_HALVINGS, MAX_ROSTER, Rules
from peer.validation.score import Decision

RULES = Rules(run_id="tiny-1", every_epochs=10, tenure_epochs=30)
START = Ledger.genesis("tiny-1", "00" * 32)
ACCEPT, REJECT, INCONCLUSIVE = Decision.ACCEPT, Decision.REJECT, Decision.INCONCLUSIVE


def peer(number):
    return peer_id_of(b"peer %d" % number)


VETERANS = [peer(i) for i in range(8)]


def root(epoch):
    return hashlib.sha256(b"%d" % epoch).hexdigest()


def after(ledger, *decisions, difference=0, struck=(), excluded=(), here=VETERANS):
    """Return the ledger after verdicts on one candidate after the other."""
    for decision in decisions:
        epoch = ledger.epoch + RULES.every_epochs
        outcome = Outcome(
            epoch=epoch,
            state_root=root(epoch),
            decision=decision,
            difference_points=difference,
            seed=ledger.seed("tiny-1", epoch),
            lowest_lot="aa",
            struck=struck,
            excluded=excluded,
            attendance=dict.fromkeys(here, RULES.every_epochs),
        )
        ledger = advance(ledger, outcome, RULES)
    return ledger


def standing(ledger, who):
    return next(each for each in ledger.standings if each.peer_id == who)


def test_rules_come_from_the_manifest():
    section = ValidationSection(every_epochs=7, margin=0.02, tolerance=0.003, rows=64)
    assert Rules.of("tiny-1", section) == Rules(
        run_id="tiny-1",
        every_epochs=7,
        tenure_epochs=7,
        margin_points=200,
        tolerance_points=30,
        rows=64,
    )


def test_rules_begin_where_the_manifest_does():
    assert Rules.of("tiny-1", ValidationSection()) == Rules(run_id="tiny-1")


def test_a_tolerance_below_a_point_is_a_point():
    assert Rules.of("tiny-1", ValidationSection(tolerance=1e-9)).tolerance_points == 1


def test_a_run_that_judges_nothing_has_no_rules():
    with pytest.raises(AssertionError):
        Rules.of("tiny-1", ValidationSection(every_epochs=0))


# ---- last good and baseline


def test_an_accepted_candidate_is_the_last_good_one():
    ledger = after(START, ACCEPT)
    assert (ledger.last_good.epoch, ledger.last_good.state_root) == (10, root(10))
    assert (ledger.round, ledger.epoch, ledger.generation) == (1, 10, 0)


def test_an_inconclusive_candidate_changes_nothing_but_the_round():
    ledger = after(after(START, ACCEPT), INCONCLUSIVE)
    assert ledger.last_good.epoch == 10
    assert (ledger.round, ledger.epoch, ledger.generation) == (2, 20, 0)


def test_a_rejected_candidate_leads_back_to_last_good_in_a_new_generation():
    ledger = after(START, ACCEPT, INCONCLUSIVE, REJECT)
    assert ledger.last_good.epoch == 10
    assert (ledger.round, ledger.epoch, ledger.generation) == (3, 10, 1)


def test_the_baseline_is_the_best_of_the_last_five():
    ledger = after(START, ACCEPT, difference=-300)
    best = ledger.last_good
    for _ in range(4):
        ledger = after(ledger, ACCEPT, difference=100)
        assert ledger.baseline == best
        assert ledger.last_good.score_points == best.score_points + 100
    ledger = after(ledger, ACCEPT, difference=100)
    assert ledger.baseline != best


def test_of_equal_marks_the_newest_is_the_baseline():
    assert after(START, ACCEPT, ACCEPT).baseline.epoch == 20


@given(st.lists(st.tuples(st.sampled_from(Decision), st.integers(-500, 250)), max_size=25))
def test_whatever_happens_the_baseline_is_an_accepted_one_and_rounds_count_up(history):
    ledger = START
    for number, (decision, difference) in enumerate(history, 1):
        ledger = after(ledger, decision, difference=difference)
        assert ledger.round == number
        assert ledger.baseline in ledger.accepted
        assert len(ledger.accepted) <= 5
        assert ledger.epoch >= ledger.last_good.epoch
    assert ledger.generation == sum(decision is REJECT for decision, _ in history)
    assert Ledger.model_validate_json(ledger.model_dump_json(), strict=True) == ledger


def test_a_seed_is_new_after_each_verdict_and_for_each_candidate():
    one = after(START, ACCEPT)
    seeds = {START.seed("r", 10), START.seed("r", 20), one.seed("r", 20), one.seed("r", 30)}
    assert len(seeds) == 4


# ---- the learning rate


def halved(ledger):
    return ledger.halved(ledger.epoch, RULES)


def test_the_second_rejection_from_one_baseline_halves_the_rate():
    assert halved(after(START, REJECT)) == 0
    assert halved(after(START, REJECT, REJECT)) == 1
    assert halved(after(START, REJECT, INCONCLUSIVE, REJECT)) == 1
    assert halved(after(START, REJECT, REJECT, REJECT)) == 2
    assert halved(after(START, REJECT, ACCEPT, REJECT)) == 0


def test_a_halving_ends_after_the_epochs_of_five_candidates_whatever_is_found():
    slow = after(START, REJECT, REJECT, REJECT)
    stretch = 5 * RULES.every_epochs
    assert [slow.halved(slow.epoch + e, RULES) for e in (0, stretch - 1)] == [2, 2]
    assert [slow.halved(slow.epoch + e, RULES) for e in (stretch, 2 * stretch)] == [1, 0]
    assert slow.halved(slow.epoch + 30 * stretch, RULES) == 0
    later = after(slow, ACCEPT, INCONCLUSIVE)
    assert later.halved(slow.epoch + stretch, RULES) == 1


def test_what_is_left_of_a_halving_goes_on_after_a_rejection():
    slow = after(START, REJECT, REJECT, REJECT, *[ACCEPT] * 6)
    assert halved(slow) == 1
    assert halved(after(slow, REJECT)) == 1
    assert halved(after(slow, REJECT, REJECT)) == 2


def test_the_rate_is_halved_a_bounded_number_of_times():
    assert after(START, *[REJECT] * 30).halvings == MAX_HALVINGS


# ---- tenure


def test_a_newcomer_sits_two_rounds_after_its_tenure_is_full():
    ledger = after(START, *[ACCEPT] * 10)
    rounds = 0
    while peer(99) not in ledger.roster(ledger.epoch + 10, VETERANS, RULES)[0]:
        ledger = after(ledger, ACCEPT, here=[*VETERANS, peer(99)])
        rounds += 1
    # Three rounds of ten epochs for the tenure, and the roster after the next one has it.
    assert rounds == 4


def test_work_that_is_rolled_back_is_nobodys_merit():
    ledger = after(START, ACCEPT)
    assert standing(after(ledger, REJECT), peer(0)).epochs == 10
    assert standing(after(ledger, INCONCLUSIVE), peer(0)).epochs == 20


def test_who_is_away_for_twenty_rounds_is_forgotten():
    ledger = after(START, *[ACCEPT] * 5)
    ledger = after(ledger, *[ACCEPT] * 19, here=VETERANS[1:])
    assert peer(0) in ledger.eligible(ledger.round + 1, RULES)
    ledger = after(ledger, *[ACCEPT] * 2, here=VETERANS[1:])
    assert peer(0) not in {each.peer_id for each in ledger.standings}


def test_a_young_run_is_judged_by_who_did_half_as_much_as_the_oldest():
    ledger = after(START, ACCEPT)
    assert set(ledger.drawn_after) == set(VETERANS)
    ledger = after(ledger, ACCEPT, here=[*VETERANS, peer(99)])
    assert peer(99) not in ledger.drawn_after


def test_newcomers_however_many_push_no_veteran_out():
    ledger = after(START, *[ACCEPT] * 4)
    crowd = [peer(i) for i in range(1000, 1000 + 2 * MAX_ROSTER)]
    ledger = after(ledger, ACCEPT, here=[*VETERANS, *crowd])
    assert len(ledger.standings) == MAX_ROSTER
    assert set(VETERANS) <= {each.peer_id for each in ledger.standings}


# ---- strikes


def test_three_strikes_in_twenty_rounds_bar_for_a_hundred():
    ledger = after(START, *[ACCEPT] * 5)
    ledger = after(ledger, *[ACCEPT] * 2, struck=[peer(3)])
    assert peer(3) in ledger.eligible(ledger.round + 2, RULES)
    ledger = after(ledger, ACCEPT, struck=[peer(3)])
    barred = ledger.round
    assert peer(3) not in ledger.roster(ledger.epoch + 10, VETERANS, RULES)[0]
    assert peer(3) not in ledger.eligible(barred + 100, RULES)
    ledger = after(ledger, *[ACCEPT] * 99)
    assert peer(3) in ledger.drawn_after
    assert peer(3) in ledger.eligible(barred + 101, RULES)


def test_strikes_far_apart_bar_nobody():
    ledger = after(START, *[ACCEPT] * 5)
    for _ in range(5):
        ledger = after(ledger, ACCEPT, struck=[peer(3)])
        ledger = after(ledger, *[ACCEPT] * 10)
    assert peer(3) in ledger.eligible(ledger.round + 1, RULES)


def test_two_tickets_bar_at_once_and_cost_the_tenure():
    ledger = after(after(START, *[ACCEPT] * 5), ACCEPT, excluded=[peer(3)])
    assert standing(ledger, peer(3)).epochs == 0
    assert peer(3) not in ledger.roster(ledger.epoch + 10, VETERANS, RULES)[0]


def test_a_barred_peer_is_not_forgotten_while_it_is_away():
    ledger = after(START, *[ACCEPT] * 5)
    ledger = after(ledger, ACCEPT, excluded=[peer(3)])
    ledger = after(ledger, *[ACCEPT] * 50, here=VETERANS[:3])
    assert standing(ledger, peer(3)).barred_until == 106


def test_where_everybody_is_barred_somebody_still_judges():
    ledger = after(after(START, *[ACCEPT] * 5), ACCEPT, excluded=VETERANS)
    ledger = after(ledger, *[ACCEPT] * 2)
    roster, ground = ledger.roster(ledger.epoch + 10, VETERANS, RULES)
    assert (set(roster), ground) == (set(VETERANS), Ground.GENESIS)


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_first_two_rounds_rest_on_the_certificate(rounds):
    ledger = after(START, *[ACCEPT] * (rounds - 1))
    assert ledger.roster(ledger.epoch + 10, [peer(42)], RULES) == ((peer(42),), Ground.GENESIS)
    ledger = after(START, *[ACCEPT] * 2)
    assert ledger.roster(ledger.epoch + 10, [peer(42)], RULES)[1] is Ground.TENURE


def test_a_roster_is_settled_before_its_seed_is_known():
    ledger = after(START, *[ACCEPT] * 5)
    outcome = {"here": [*VETERANS, peer(99)]}
    assert after(ledger, ACCEPT, **outcome).drawn == ledger.drawn_after
    changed = dataclasses.replace(RULES, tenure_epochs=1)
    assert ledger.roster(60, VETERANS, changed) == ledger.roster(60, VETERANS, RULES)
