"""Honest training, in which checkpoints often get worse, is never rolled back."""

import hashlib
import itertools
import random
from collections import Counter

from peer.validation.committee import size_of
from peer.validation.ledger import Ledger, Outcome, advance
from peer.validation.rules import Rules
from peer.validation.score import Decision, Losses, find

VERDICTS = 200
SLOPE_NATS, NOISE_NATS = 0.010, 0.0123
"""Each checkpoint is about this much better, and this uncertain."""
CHUNKS, ROW_SPREAD = 32, 400
RULES = Rules(run_id="honest-run", every_epochs=1)


def curve(seed):
    """Return true losses of checkpoints in a row, as a recorded run has them.

    In nats: a fast fall at first, then a slow one with noise from step to step.
    """
    rng = random.Random(seed)
    smooth = (1.5 * 0.9**i + 4.0 - SLOPE_NATS * i for i in range(VERDICTS + 1))
    return [max(0.5, each) + rng.gauss(0.0, NOISE_NATS) for each in smooth]


def root(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def scores(candidate_nats, baseline_nats, rng, validators=12):
    """Return what honest validators find: rows differ in difficulty, and in what helped them."""
    hardness = [rng.gauss(0.0, 3000) for _ in range(CHUNKS)]
    gain = [rng.gauss(0.0, ROW_SPREAD) for _ in range(CHUNKS)]

    def one():
        def points(nats, extra):
            return tuple(round(1e4 * nats + e + rng.uniform(-2, 2)) for e in extra)

        both = [h + g for h, g in zip(hardness, gain, strict=True)]
        return Losses(points(candidate_nats, both), points(baseline_nats, hardness))

    return {f"v{i}": one() for i in range(validators)}


def verdicts_on(losses, margin, seed):
    """Return the findings on checkpoints of true `losses`, each against the ledger's baseline."""
    rng = random.Random(seed)
    loss_of = {root(number): nats for number, nats in enumerate(losses)}
    ledger = Ledger.genesis(RULES.run_id, root(0))
    for number in range(1, len(losses)):
        panel = scores(losses[number], loss_of[ledger.baseline.state_root], rng)
        found = find(panel, size_of(20).agreement(len(panel)), margin, RULES.tolerance_points)
        yield found
        outcome = Outcome(
            epoch=number,
            state_root=root(number),
            decision=found.decision,
            difference_points=found.difference_points,
            seed="",
            lowest_lot="",
            struck=(),
            excluded=(),
            attendance={},
        )
        ledger = advance(ledger, outcome, RULES)


def tally(losses, margin, seed):
    return Counter(found.decision for found in verdicts_on(losses, margin, seed))


def test_the_curve_gets_worse_as_often_as_recorded_ones():
    for seed in range(5):
        losses = curve(seed)
        late = list(itertools.pairwise(losses))[20:]
        worse = sum(after > before for before, after in late) / len(late)
        assert 0.17 <= worse <= 0.33
    everything = [pair for seed in range(20) for pair in itertools.pairwise(curve(seed))]
    assert 0.22 <= sum(b > a for a, b in everything) / len(everything) <= 0.29


def test_in_two_hundred_verdicts_nothing_honest_is_rejected():
    for seed in range(5):
        decisions = tally(curve(seed), RULES.margin_points, seed)
        assert decisions[Decision.REJECT] == 0
        assert decisions[Decision.ACCEPT] >= 0.9 * VERDICTS


def test_with_hardly_a_margin_honest_checkpoints_are_not_accepted():
    decisions = sum((tally(curve(seed), 1, seed) for seed in range(3)), Counter())
    assert decisions[Decision.INCONCLUSIVE] + decisions[Decision.REJECT] > 0.1 * 3 * VERDICTS


def test_a_slow_poison_is_rejected_before_it_adds_up():
    losses = [4.0 + 0.03 * number for number in range(60)]
    found = [each.decision for each in verdicts_on(losses, RULES.margin_points, 9)]
    assert found.index(Decision.REJECT) <= 6
