import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.observe.history import CAPACITY, Curve, History

RUN = "demo-1"


def curve_of(values, first=1):
    curve = Curve()
    for epoch, value in enumerate(values, first):
        curve.add(epoch, value)
    return curve


def test_few_values_are_kept_as_they_are():
    assert curve_of([3.0, 2.0, 1.0]).shown() == [[1, 3.0], [2, 2.0], [3, 1.0]]


def test_a_full_curve_keeps_its_beginning_and_its_end_in_a_coarser_grain():
    curve = curve_of(float(epoch) for epoch in range(1, 100_001))
    shown = curve.shown()
    assert CAPACITY / 3 < len(shown) <= CAPACITY
    assert shown[0] == [curve.stride, (1 + curve.stride) / 2]
    assert shown[-1][0] == 100_000
    assert sum(point.count for point in curve.points) == 100_000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2000),
            st.floats(allow_nan=True, allow_infinity=True),
            st.booleans(),
        ),
        max_size=1500,
    )
)
def test_whatever_comes_the_curve_is_bounded_finite_and_rises(steps):
    curve = Curve()
    for epoch, value, back in steps:
        if back:
            curve.back_to(epoch)
        else:
            curve.add(epoch, value)
    epochs = [epoch for epoch, _ in curve.shown()]
    assert len(epochs) <= CAPACITY
    assert all(a < b for a, b in itertools.pairwise(epochs))
    json.dumps(curve.shown(), allow_nan=False)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=3000))
def test_the_mean_of_all_points_is_the_mean_of_all_values(values):
    curve = curve_of(values)
    total = sum(point.mean * point.count for point in curve.points)
    assert total / len(values) == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_work_done_again_takes_the_place_of_what_was_lost():
    curve = curve_of([5.0, 4.0, 3.0, 2.0])
    curve.add(3, 3.5)
    assert curve.shown() == [[1, 5.0], [2, 4.0], [3, 3.5]]


def test_what_is_not_finite_is_left_out():
    assert curve_of([1.0, float("nan"), float("inf"), 2.0]).shown() == [[1, 1.0], [4, 2.0]]


def test_a_rollback_takes_every_curve_back():
    history = History()
    for epoch in range(1, 9):
        history.loss.add(epoch, 1.0)
        history.heldout.add(epoch, 2.0)
        history.group.add(epoch, 3)
    history.back_to(5)
    assert {len(points) for points in history.shown().values()} == {5}


def test_a_history_read_back_goes_on_as_the_first_one_would():
    whole, first = History(loss=curve_of(range(5000))), History(loss=curve_of(range(3000)))
    second = History.from_json(json.loads(json.dumps(first.to_json(RUN))), RUN)
    for epoch in range(3001, 5001):
        second.loss.add(epoch, epoch - 1)
    assert second.loss.shown() == whole.loss.shown()


def test_a_history_of_another_run_is_not_taken():
    with pytest.raises(ValueError, match="of demo-2, not of demo-1"):
        History.from_json(History().to_json("demo-2"), RUN)


@pytest.mark.parametrize(
    "points",
    [
        [[2, 1.0, 1], [1, 1.0, 1]],
        [[1, float("nan"), 1]],
        [[1, 1.0, 0]],
        [[-1, 1.0, 1]],
        [[1, 1.0]],
        [[epoch, 1.0, 1] for epoch in range(CAPACITY + 1)],
    ],
    ids=["falling", "not finite", "nothing", "negative", "cut short", "too long"],
)
def test_a_damaged_history_is_refused(points):
    body = History().to_json(RUN)
    body["curves"]["loss"]["points"] = points
    with pytest.raises(ValueError, match="no history"):
        History.from_json(body, RUN)
