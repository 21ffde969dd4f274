"""A limit of memory makes the micro-batch smaller, or is refused where none is smaller."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from peer.errors import ConfigurationError
from peer.events import MicroBatchChanged, WorkRepeated
from peer.training.allowance import Allowance


class Scripted:
    """Says of each micro-batch in turn whether it took too much."""

    def __init__(self, *excesses):
        self._excesses = iter(excesses)

    def begin(self):
        pass

    def excess(self):
        return next(self._excesses, None)


@pytest.fixture
def make(make_trainer, monkeypatch):
    seconds = itertools.count(0.0, 5.0)  # each look at the clock is five later
    monkeypatch.setattr(
        "peer.training.trainer.time", SimpleNamespace(monotonic=lambda: next(seconds))
    )

    def make(*excesses, **given):
        trainer = make_trainer(**given)
        object.__setattr__(trainer._bench, "allowance", Scripted(*excesses))
        return trainer

    return make


def test_what_is_taken_for_a_moment_counts():
    allowance = Allowance(1.0)
    allowance.begin()
    before = taken_mb(allowance)
    block = np.ones(30_000_000, np.uint8)
    assert block.sum() == 30_000_000
    del block
    assert taken_mb(allowance) >= before + 25
    allowance.begin()
    assert taken_mb(allowance) < before + 25


def taken_mb(allowance):
    return int(allowance.excess().split()[2].replace(",", ""))


def test_no_limit_and_a_large_one_are_not_exceeded():
    assert Allowance(None).excess() is None
    assert Allowance(1e12).excess() is None


def test_too_much_halves_the_micro_batch_and_loses_no_work(make, make_trainer):
    events = []
    trainer = make("too much", "too much", micro_batch=4, target=256, events=events)
    assert trainer.work(lambda: False)
    assert [e for e in events if isinstance(e, MicroBatchChanged | WorkRepeated)] == [
        MicroBatchChanged(samples_before=4, samples_after=2, reason="too much"),
        MicroBatchChanged(samples_before=2, samples_after=1, reason="too much"),
    ]
    reference = make_trainer(micro_batch=1, target=256)
    assert reference.work(lambda: False)
    ours, theirs = trainer.contribution("root"), reference.contribution("root")
    assert (ours.samples, ours.tokens) == (theirs.samples, theirs.tokens)
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-6)


def test_one_sample_that_is_too_much_again_and_again_is_refused(make):
    trainer = make(*["it took 9 MB"] * 9, micro_batch=1, target=256)
    with pytest.raises(ConfigurationError, match="it took 9 MB, training on one sample"):
        trainer.work(lambda: False)


def test_one_sample_that_is_too_much_now_and_then_is_forgiven(make):
    trainer = make(*["it took 9 MB", "it took 9 MB", None] * 5, micro_batch=1, target=256)
    assert trainer.work(lambda: False)
