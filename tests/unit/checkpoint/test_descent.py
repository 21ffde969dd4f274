"""What the next checkpoint says of its parent follows what happened since the last one."""

import math

import pytest

from peer.checkpoint.annotation import Ancestor, Heritage
from peer.checkpoint.descent import Descent
from peer.training.certificate import Base, Certificate, Entry, Vote


@pytest.fixture
def led():
    """Return the certificate that leads from an epoch to the next one."""

    def make(epoch, weight=10):
        base = Base("tiny", 0, epoch, f"{epoch:064x}")
        return Certificate(Vote(base, (Entry("a", "b" * 64, weight, 0),), ()), ())

    return make


def ancestor(epoch):
    return Ancestor(epoch, f"{epoch:064x}")


def test_a_fresh_run_descends_from_its_initial_state(led):
    descent = Descent(None)
    for epoch in range(3):
        descent.advance(led(epoch))
    assert descent.heritage(3) == Heritage(parent=ancestor(0), loss_terms=30)


def test_a_resumed_run_descends_from_what_was_loaded(led):
    descent = Descent(ancestor(4))
    descent.advance(led(4, 7))
    assert descent.heritage(5) == Heritage(parent=ancestor(4), loss_terms=7)


def test_what_was_saved_is_the_next_ones_parent(led):
    descent = Descent(None)
    descent.advance(led(0))
    descent.saved(ancestor(1))
    assert descent.heritage(1) == Heritage()
    descent.advance(led(1, 3))
    assert descent.heritage(2) == Heritage(parent=ancestor(1), loss_terms=3)


def test_a_state_that_was_fetched_descends_from_the_one_that_led_to_it(led):
    descent = Descent(ancestor(4))
    descent.advance(led(4))
    descent.restart(led(8, 5))
    assert descent.heritage(9) == Heritage(parent=ancestor(8), loss_terms=5)
    descent.advance(led(9, 6))
    assert descent.heritage(10) == Heritage(parent=ancestor(8), loss_terms=11)


def test_a_state_of_unknown_origin_has_no_parent():
    descent = Descent(ancestor(4))
    descent.restart(None)
    assert descent.heritage(9) == Heritage()


def test_scores_are_those_of_the_same_epoch_and_finite(led):
    descent = Descent(ancestor(4))
    descent.advance(led(4))
    descent.scored(5, {"loss": 2.0, "perplexity": math.inf})
    assert descent.heritage(5).scores == {"loss": 2.0}
    descent.advance(led(5))
    assert descent.heritage(6).scores == {}


def test_scores_do_not_outlive_the_state_that_they_are_of(led):
    descent = Descent(ancestor(4))
    descent.scored(5, {"loss": 2.0})
    descent.restart(led(4))
    assert descent.heritage(5).scores == {}
