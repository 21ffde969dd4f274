"""The policy by which checkpoints stay."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.checkpoint.keep import Candidate, Keep, Reason, decide
from peer.config.settings import CheckpointSettings

POLICIES = st.builds(
    Keep,
    last=st.integers(1, 6),
    accepted=st.integers(0, 4),
    every_epochs=st.none() | st.integers(1, 40),
)


@st.composite
def shelves(draw):
    """Return candidates, newest first."""
    epochs = sorted(draw(st.sets(st.integers(0, 200), max_size=30)), reverse=True)
    return [Candidate(f"{e:010d}-ab", e, draw(st.booleans())) for e in epochs]


def kept(decision):
    return [name for name, reason in decision.items() if reason is not None]


@given(shelves(), POLICIES)
def test_the_newest_and_the_accepted_stay(candidates, keep):
    staying = kept(decide(candidates, keep))
    newest = [one.name for one in candidates][: keep.last]
    accepted = [one.name for one in candidates if one.accepted][: keep.accepted]
    assert set(newest) | set(accepted) <= set(staying)
    if keep.every_epochs is None:
        assert set(staying) == set(newest) | set(accepted)


@given(shelves(), POLICIES, st.integers(0, 29))
def test_what_is_protected_stays(candidates, keep, place):
    protected = {one.name for one in candidates[place : place + 1]}
    assert protected <= set(kept(decide(candidates, keep, protected)))


@given(shelves(), POLICIES)
def test_deciding_again_drops_nothing_more(candidates, keep):
    staying = set(kept(decide(candidates, keep)))
    left = [one for one in candidates if one.name in staying]
    assert set(kept(decide(left, keep))) == staying


@given(st.integers(1, 20), st.integers(1, 60), st.integers(1, 4))
def test_every_stretch_keeps_its_first_checkpoint_for_ever(every, count, step):
    """Save, and drop after each save, as the daemon does."""
    keep = Keep(last=2, accepted=0, every_epochs=every)
    epochs = range(3, 3 + count * step, step)
    there = []
    for epoch in epochs:
        there.insert(0, Candidate(str(epoch), epoch))
        decision = decide(there, keep)
        there = [one for one in there if decision[one.name] is not None]
    firsts = {
        min(e for e in epochs if e // every == stretch) for stretch in {e // every for e in epochs}
    }
    assert {one.epoch for one in there} == firsts | set(epochs[-2:])


@given(shelves(), POLICIES, st.sets(st.integers(0, 200), max_size=5), st.booleans())
def test_what_was_fetched_stays_by_itself_and_changes_nothing_else(candidates, keep, epochs, stays):
    keep = dataclasses.replace(keep, fetched=stays)
    fetched = [Candidate(f"fetched-{e}", e, accepted=True, fetched=True) for e in epochs]
    both = sorted([*candidates, *fetched], key=lambda one: one.epoch, reverse=True)
    decision = decide(both, keep)
    assert {decision.pop(one.name) for one in fetched} <= {Reason.FETCHED if stays else None}
    assert decision == decide(candidates, keep)


def test_each_reason_is_given():
    candidates = [Candidate(str(e), e, accepted=e == 4) for e in (9, 8, 7, 6, 5, 4, 3)]
    decision = decide(candidates, Keep(last=2, accepted=1, every_epochs=6), {"7"})
    assert decision == {
        "9": Reason.LAST,
        "8": Reason.LAST,
        "7": Reason.NEEDED,
        "6": Reason.MILESTONE,
        "5": None,
        "4": Reason.ACCEPTED,
        "3": Reason.MILESTONE,
    }


@pytest.mark.parametrize("field", ["keep", "keep_accepted", "keep_every_epochs"])
def test_the_settings_are_the_policy(field):
    keep = Keep.of(CheckpointSettings(**{field: 17}))
    names = {"keep": "last", "keep_accepted": "accepted", "keep_every_epochs": "every_epochs"}
    assert getattr(keep, names[field]) == 17
