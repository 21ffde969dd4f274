"""The training loop over a real trainer, with rounds and a store that do as they are told."""

import threading

import pytest

from peer.checkpoint.journal import Journal
from peer.clock import FakeClock
from peer.config.settings import Settings
from peer.daemon.loop import Parts, TrainingLoop
from peer.daemon.orders import Orders
from peer.events import (
    CheckpointFailed,
    CheckpointWritten,
    Evaluated,
    Finish,
    Heartbeat,
    Pause,
    PhaseChanged,
    Resume,
    RoundCommitted,
    RoundFailed,
    RoundFailure,
    Stop,
)
from peer.training.round import Failed, LoneRounds

MANIFEST_HASH = "ab" * 32


class Store:
    """Keeps what is saved; can wait or fail first."""

    def __init__(self):
        self.saved = []
        self.before = lambda: None

    def save(self, checkpoint):
        epoch, root = checkpoint.state.epoch, checkpoint.state_root
        self.before()
        # The state must have stood still since it was named.
        assert checkpoint.state.epoch == epoch
        assert checkpoint.state.root(MANIFEST_HASH) == root
        self.saved.append(epoch)
        return 1


class FailingRounds:
    """Fails the first `failures` rounds."""

    def __init__(self, rounds, failures):
        self._rounds, self._left = rounds, failures

    def run(self, base, contribution):
        if self._left:
            self._left -= 1
            return Failed(RoundFailure.NOT_FINITE, "own contribution not finite", keep=False)
        return self._rounds.run(base, contribution)


@pytest.fixture
def make_loop(make_trainer, make_task, heldout, identities, tmp_path):
    """Return a loop, its store, its clock and the events it emits."""

    def make(failures=0, interval_s=1e-6, on_event=lambda _event: None):
        task, events, clock, store = make_task(), [], FakeClock(), Store()

        def emit(event):
            events.append(event)
            on_event(event)

        rounds = FailingRounds(LoneRounds(identities[0], "none"), failures)
        sections = {"checkpoint": {"interval_s": interval_s}, "evaluation": {"interval_s": 100.0}}
        parts = Parts(
            run_id="tiny",
            manifest_hash=MANIFEST_HASH,
            settings=Settings.model_validate(sections),
            task=task,
            trainer=make_trainer(task=task, events=events),
            rounds=rounds,
            store=store,
            journal=Journal(tmp_path / "journal.json", clock),
            heldout=heldout(task),
            clock=clock,
            emit=emit,
        )
        return TrainingLoop(parts, None), store, clock, events

    return make


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_it_ends_at_the_last_epoch_scored_and_saved(make_loop):
    loop, store, _, events = make_loop(interval_s=1000.0)
    finished = loop.run(Orders(), 3)
    assert (finished.epoch, finished.saved) == (3, True)
    assert store.saved == [3]
    assert [event.epoch for event in of(RoundCommitted, events)] == [1, 2, 3]
    assert [event.epoch for event in of(Evaluated, events)] == [0, 3]


def test_the_outer_step_waits_for_a_save_under_way(make_loop):
    saving, waiting, go_on = threading.Event(), threading.Event(), threading.Event()

    def look(event):
        if saving.is_set() and isinstance(event, Heartbeat):
            waiting.set()

    loop, store, clock, events = make_loop(on_event=look)

    def wait():
        saving.set()
        assert go_on.wait(20)

    store.before = wait
    clock.advance(1.0)
    training = threading.Thread(target=loop.run, args=(Orders(), 3))
    training.start()
    assert saving.wait(20)
    committed = len(of(RoundCommitted, events))
    # The loop says that it waits; until the save is through, no epoch follows.
    assert waiting.wait(20)
    assert len(of(RoundCommitted, events)) == committed == 1
    go_on.set()
    training.join(20)
    assert store.saved[0] == 1
    assert len(of(RoundCommitted, events)) == 3


def test_a_failed_round_is_counted_said_and_tried_again_on_new_data(make_loop):
    loop, _, _, events = make_loop(failures=2)
    assert loop.run(Orders(), 1).epoch == 1
    failed = of(RoundFailed, events)
    assert [event.reason for event in failed] == [RoundFailure.NOT_FINITE] * 2
    assert all(event.dropped_tokens > 0 for event in failed)
    reasons = [event.reason for event in of(PhaseChanged, events)]
    assert any("2 rounds in a row failed" in reason for reason in reasons)


def test_a_run_whose_rounds_all_fail_can_be_finished(make_loop):
    loop, _, _, events = make_loop(failures=10**9)
    orders = Orders()
    orders.take(Finish())
    finished = loop.run(orders, None)
    assert finished.reason == "asked to finish, and the last round failed"
    assert len(of(RoundFailed, events)) == 1


def test_a_checkpoint_that_cannot_be_written_is_said_and_tried_again(make_loop):
    loop, store, clock, events = make_loop()

    def fail_once():
        store.before = lambda: None
        raise OSError(28, "No space left on device")

    store.before = fail_once
    clock.advance(1.0)
    finished = loop.run(Orders(), 3)
    assert finished.saved
    [failed] = of(CheckpointFailed, events)
    assert failed.reason == "checkpoint not written: No space left on device; free some space"
    assert of(CheckpointWritten, events)


def test_when_the_last_checkpoint_cannot_be_written_the_end_says_so(make_loop):
    loop, store, _, _ = make_loop()

    def fail():
        raise OSError(28, "No space left on device")

    store.before = fail
    finished = loop.run(Orders(), 1)
    assert not finished.saved
    assert "its checkpoint could not be written" in finished.reason


def test_a_stop_leaves_at_once_and_unscored(make_loop):
    loop, _, _, events = make_loop()
    orders = Orders()
    orders.take(Stop())
    finished = loop.run(orders, None)
    assert (finished.epoch, finished.reason, finished.saved) == (0, "asked to stop", True)
    assert not of(Evaluated, events)


def test_a_pause_saves_and_waits_and_a_finish_ends_it(make_loop):
    loop, store, _, events = make_loop()
    orders = Orders(paused="paused by you")
    training = threading.Thread(target=loop.run, args=(orders, None))
    training.start()
    orders.take(Finish())
    training.join(20)
    assert not training.is_alive()
    assert store.saved == [0]
    assert not of(RoundCommitted, events)


def test_an_order_that_came_before_the_wait_is_not_missed():
    orders = Orders()
    orders.take(Pause(reason="x"))
    orders.take(Resume())
    orders.wait(1000.0)
    assert orders.paused is None
