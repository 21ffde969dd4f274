"""The curves of a swarm, from one look at it after the other."""

from peer.observe.history import CAPACITY
from peer.observe.page.swarm import SwarmCurves


def seen(epoch, generation=0, live=3, loss=2.0, heldout=None):
    return {
        "epoch": epoch,
        "generation": generation,
        "peers": {"live": live},
        "self_reported": {"loss_nats": loss, "heldout": heldout},
    }


def test_each_epoch_is_a_point_however_often_it_is_seen():
    curves = SwarmCurves()
    for epoch in (1, 1, 2, 2, 2):
        curves.take(seen(epoch, loss=5.0 - epoch))
    assert curves.shown() == {
        "loss": [[1, 4.0], [2, 3.0]],
        "heldout": [],
        "live": [[1, 3.0], [2, 3.0]],
    }


def test_of_an_epoch_the_last_word_counts_since_certificates_come_before_it():
    curves = SwarmCurves()
    curves.take(seen(1, loss=5.0, heldout=4.0))
    curves.take(seen(2, loss=5.0, heldout=4.0, live=2))
    assert curves.shown()["loss"] == [[1, 5.0], [2, 5.0]]
    curves.take(seen(2, loss=3.0, heldout=None, live=0))
    curves.take(seen(3, loss=3.0))
    assert curves.shown() == {
        "loss": [[1, 5.0], [2, 3.0], [3, 3.0]],
        "heldout": [[1, 4.0], [2, 4.0]],
        "live": [[1, 3.0], [2, 2.0], [3, 3.0]],
    }


def test_a_full_curve_loses_nothing_to_an_epoch_that_is_seen_again():
    curves = SwarmCurves()
    for epoch in range(1, 2 * CAPACITY + 4):
        curves.take(seen(epoch))
        curves.take(seen(epoch))
    shown = [epoch for epoch, _ in curves.shown()["live"]]
    assert len(shown) > CAPACITY // 2
    assert shown == sorted(set(shown))
    assert sum(point.count for point in curves.curves["live"].points) == 2 * CAPACITY + 2


def test_what_nobody_tells_leaves_a_gap():
    curves = SwarmCurves()
    curves.take(seen(1, loss=4.0))
    curves.take(seen(2, loss=None))
    assert curves.shown()["loss"] == [[1, 4.0]]


def test_what_no_chart_could_show_is_left_out():
    curves = SwarmCurves()
    for epoch in (1, 2):
        curves.take(seen(epoch, loss=float("nan"), heldout=float("inf")))
    assert curves.shown() == {"loss": [], "heldout": [], "live": [[1, 3.0], [2, 3.0]]}


def test_a_new_generation_takes_the_curves_back():
    curves = SwarmCurves()
    for epoch in range(1, 9):
        curves.take(seen(epoch))
    curves.take(seen(5, generation=1))
    assert [epoch for epoch, _ in curves.shown()["live"]] == [1, 2, 3, 4, 5]
