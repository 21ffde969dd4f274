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


def test_what_nobody_tells_leaves_a_gap():
    curves = SwarmCurves()
    curves.take(seen(1, loss=4.0))
    curves.take(seen(2, loss=None))
    assert curves.shown()["loss"] == [[1, 4.0]]


def test_a_new_generation_takes_the_curves_back():
    curves = SwarmCurves()
    for epoch in range(1, 9):
        curves.take(seen(epoch))
    curves.take(seen(5, generation=1))
    assert [epoch for epoch, _ in curves.shown()["live"]] == [1, 2, 3, 4, 5]
