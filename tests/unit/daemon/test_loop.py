"""The training loop over a real trainer, with rounds and a store that do as they are told."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from peer.checkpoint.annotation import Ancestor
from peer.checkpoint.journal import Journal
from peer.clock import FakeClock
from peer.config.settings import Settings
from peer.daemon.lifecycle import TRIGGER_OF_PHASE, Course, State, Trigger
from peer.daemon.loop import TrainingLoop
from peer.daemon.orders import Orders
from peer.daemon.parts import Parts
from peer.daemon.validation import NoValidation
from peer.daemon.vitals import Patience, Pulse, Vitals, judge
from peer.errors import NetworkLostError
from peer.events import (
    BranchLeft,
    CheckpointFailed,
    CheckpointWritten,
    Evaluated,
    Finish,
    Heartbeat,
    Pause,
    Phase,
    PhaseChanged,
    Resume,
    RolledBack,
    RoundCommitted,
    RoundFailed,
    RoundFailure,
    Stop,
)
from peer.training.contribution import Contribution
from peer.training.round import Failed, LoneRounds, Replaced
from peer.validation.course import Restart
from peer.validation.duty import Duty
from peer.validation.ledger import Ledger, Mark

MANIFEST_HASH = "ab" * 32


class Stored:
    """A checkpoint in the store."""

    def __init__(self, epoch, *, fetched=False):
        self.epoch = epoch
        self.fetched = fetched


class Store:
    """Keeps what is saved; can wait or fail first."""

    def __init__(self):
        self.saved = []
        self.left = []
        self.annotated = []
        self.heritages = []
        self.before = lambda: None

    def leave(self, epoch):
        self.left.append(epoch)

    def save(self, checkpoint):
        epoch, root = checkpoint.state.epoch, checkpoint.state_root
        self.before()
        # The state must have stood still since it was named.
        assert checkpoint.state.epoch == epoch
        assert checkpoint.state.root(MANIFEST_HASH) == root
        self.saved.append(epoch)
        self.heritages.append(checkpoint.heritage)
        return 1

    def annotate(self, state_root, scores=None, accepted_by=None):
        self.annotated.append((state_root, scores or accepted_by))

    def protect(self, roots):
        self.protected = set(roots)

    def roots(self):
        return [Stored(epoch) for epoch in self.saved[:-3:-1]]


class ScriptedRounds(LoneRounds):
    """A swarm that does as the test says, and notes what it is told.

    Attributes:
        failures: What the next rounds fail with.
        others: What `catch_up` gives, one after the other; a function makes it of the base.
        wanted_at: Of how many loss terms the swarm wants our contribution.
        told: (method, arguments) of each call.
    """

    def __init__(self, identity):
        super().__init__(identity, "none")
        self.failures = []
        self.others = []
        self.wanted_at = float("inf")
        self.asked_for_state = False
        self.told = []
        self.lost = None
        self._weight = 0

    def start(self):
        self.told.append(("start",))

    def stand(self, generation, epoch, root, led_by):
        self.told.append(("stand", generation, epoch, root, led_by))
        self._weight = 0

    def gather(self, weight, rate):
        if self.lost:
            raise NetworkLostError(self.lost)
        self.told.append(("gather", weight, rate))
        self._weight = weight

    def rest(self, *, resting):
        self.told.append(("rest", resting))

    def saved(self, oldest_epoch):
        self.told.append(("saved", oldest_epoch))

    def restart(self):
        self.told.append(("restart",))

    @property
    def wanted(self):
        return self._weight >= self.wanted_at

    @property
    def behind(self):
        return bool(self.others)

    def run(self, base, contribution, abandon):
        self.told.append(("run", base.epoch, contribution.contribution_id))
        if self.failures:
            return self.failures.pop(0)
        return super().run(base, contribution, abandon)

    def catch_up(self, base, abandon):
        return self.others.pop(0)(base)

    def calls(self, name):
        return [call[1:] for call in self.told if call[0] == name]


class ScriptedValidation(NoValidation):
    """Validators that judge every second epoch, as the test says.

    Attributes:
        every: How far candidates are apart; 0 for none.
        state: What is found of the state to go on from.
        candidates: (epoch, root) of those that were named.
        gone: Where the loop went.
        verdicts: What `accepted` gives next.
        duties: What `duty` is, as a function of its arguments.
    """

    def __init__(self):
        self.every = 0
        self.restart = None
        self.state = None
        self.candidates = []
        self.gone = []
        self.verdicts = {}
        self.halvings = 0
        self.duties = super().duty

    def duty(self, epoch, worked_epoch):
        return self.duties(epoch, worked_epoch)

    def due(self, epoch):
        return bool(self.every) and epoch % self.every == 0

    def candidate(self, epoch, state_root):
        self.candidates.append((epoch, state_root))

    def accepted(self):
        taken, self.verdicts = self.verdicts, {}
        return taken

    def needed(self):
        return {"good"}

    def halved(self, generation, epoch):
        return self.halvings

    def find(self, where, abandon):
        return self.state

    def restarted(self, where):
        self.gone.append(where)
        self.restart = None


NOT_FINITE = Failed(RoundFailure.NOT_FINITE, "own contribution not finite", keep=False)
NO_QUORUM = Failed(RoundFailure.NO_QUORUM, "1 of 2 members signed", keep=True)


@dataclasses.dataclass
class Bench:
    """A loop and what stands around it."""

    loop: TrainingLoop
    store: Store
    clock: FakeClock
    events: list
    rounds: ScriptedRounds
    trainer: object
    validation: ScriptedValidation


@pytest.fixture
def make_bench(make_trainer, make_task, heldout, identities, tmp_path):
    """Return a loop with a store, a clock, rounds and the events it emits."""

    def make(failures=(), interval_s=1e-6, on_event=lambda _event: None):
        task, events, clock, store = make_task(), [], FakeClock(), Store()

        def emit(event):
            events.append(event)
            on_event(event)

        rounds = ScriptedRounds(identities[0])
        rounds.failures = list(failures)
        sections = {"checkpoint": {"interval_s": interval_s}, "evaluation": {"interval_s": 100.0}}
        trainer = make_trainer(task=task, events=events, peer_id=identities[0].peer_id)
        validation = ScriptedValidation()
        parts = Parts(
            run_id="tiny",
            manifest_hash=MANIFEST_HASH,
            settings=Settings.model_validate(sections),
            task=task,
            trainer=trainer,
            rounds=rounds,
            validation=validation,
            store=store,
            journal=Journal(tmp_path / "journal.json", clock),
            heldout=heldout(task),
            clock=clock,
            emit=emit,
        )
        return Bench(TrainingLoop(parts, None), store, clock, events, rounds, trainer, validation)

    return make


@pytest.fixture
def make_loop(make_bench):
    """Return a loop, its store, its clock and the events it emits."""

    def make(failures=0, **given):
        bench = make_bench([NOT_FINITE] * failures, **given)
        return bench.loop, bench.store, bench.clock, bench.events

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


def test_a_last_evaluation_of_an_hour_is_not_taken_for_a_hang(make_bench, monkeypatch):
    vitals, course, pulses, listeners = Vitals(0.0), Course(), [], []
    patience = Patience(silence_s=120.0, still_s=300.0, start_s=900.0)

    def watch(event):
        now_s = bench.clock.monotonic_s()
        pulses.append(judge(vitals.signs(course.state, now_s), patience))
        vitals.take(event, now_s)
        if isinstance(event, PhaseChanged):
            course.follow(TRIGGER_OF_PHASE[event.phase], event.reason)

    bench = make_bench(
        interval_s=1000.0, on_event=lambda event: [listen(event) for listen in listeners]
    )
    listeners.append(watch)
    plain = bench.trainer.evaluate

    def evaluate(rows, between):
        for _ in range(3600 if bench.trainer.state.epoch == 1 else 0):
            bench.clock.advance(1.0)
            between()
        return plain(rows, between)

    monkeypatch.setattr(bench.trainer, "evaluate", evaluate)
    course.follow(Trigger.BEGIN, "starting the worker")
    vitals.begin(bench.clock.monotonic_s())
    course.follow(Trigger.FINISH, "completing the epoch, as asked")
    bench.loop.run(Orders(), 1)
    assert course.state is State.FINISHING
    assert len(pulses) > 3600
    assert {pulse for pulse, _ in pulses} == {Pulse.ALIVE}


def test_a_checkpoint_says_what_it_comes_from_and_how_good_it_is(make_bench):
    bench = make_bench(interval_s=1000.0)
    first = bench.trainer.state.root(MANIFEST_HASH)
    bench.loop.run(Orders(), 3)
    (heritage,) = bench.store.heritages
    assert heritage.parent == Ancestor(0, first)
    committed = of(RoundCommitted, bench.events)
    assert heritage.loss_terms == sum(sum(event.loss_terms.values()) for event in committed)
    last = of(Evaluated, bench.events)[-1]
    assert heritage.scores == {last.name: last.value, **last.metrics}


def test_scores_go_beside_a_checkpoint_that_was_written_before_them(make_bench):
    bench = make_bench()
    bench.loop.run(Orders(), 1)
    root = bench.trainer.state.root(MANIFEST_HASH)
    last = of(Evaluated, bench.events)[-1]
    assert bench.store.annotated[-1] == (root, {last.name: last.value, **last.metrics})


def test_a_score_that_cannot_be_written_is_said_and_training_goes_on(make_bench, caplog):
    bench = make_bench()

    def annotate(state_root, scores):
        raise OSError(28, "No space left on device")

    bench.store.annotate = annotate
    assert bench.loop.run(Orders(), 2).saved
    assert "the scores were not written" in caplog.text


def test_averages_are_kept_for_our_last_checkpoints_not_for_those_of_the_lineage(make_bench):
    bench = make_bench()
    fetched = {99, 8}
    bench.store.roots = lambda: [
        Stored(epoch, fetched=epoch in fetched) for epoch in (99, 10, 9, 8, 7, 2, 1)
    ]
    bench.loop.run(Orders(), 1)
    assert set(bench.rounds.calls("saved")) == {(7,)}


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
    loop, _, _, events = make_loop(failures=1000)
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


@pytest.fixture
def others(identities):
    """Return what others certify on a base: their average, ours in it if it is given."""

    def make(base, values, ours=None):
        theirs = Contribution("theirs", values, 64, 4, 64, 3.0)
        if ours is not None:
            theirs = dataclasses.replace(theirs, contribution_id=ours.contribution_id)
        committed = LoneRounds(identities[1], "none").run(base, theirs, lambda: False)
        return dataclasses.replace(committed, seconds_by_phase={})

    return make


def small(trainer):
    return np.full(trainer.state.schema.elements, 1e-3, np.float32)


def test_a_round_that_others_want_begins_before_the_target_is_gathered(make_bench):
    bench = make_bench()
    bench.rounds.wanted_at = 32
    bench.loop.run(Orders(), 1)
    [event] = of(RoundCommitted, bench.events)
    assert sum(event.loss_terms.values()) == 64
    assert event.dropped_tokens == 0


def test_a_round_worth_another_try_is_tried_with_the_same_contribution(make_bench):
    bench = make_bench([NO_QUORUM, NO_QUORUM])
    bench.loop.run(Orders(), 1)
    assert len(bench.rounds.calls("run")) == 3
    assert len({name for _, name in bench.rounds.calls("run")}) == 1
    assert [event.dropped_tokens for event in of(RoundFailed, bench.events)] == [0, 0]
    [event] = of(RoundCommitted, bench.events)
    assert event.loss is not None
    assert event.dropped_tokens == 0


def test_others_are_met_once_the_root_is_known_and_told_of_each_epoch(make_bench):
    bench = make_bench()
    bench.loop.run(Orders(), 2)
    told = [call for call in bench.rounds.told if call[0] in ("start", "stand")]
    assert [call[:3] for call in told] == [
        ("stand", 0, 0),
        ("stand", 0, 0),
        ("start",),
        *[("stand", 0, epoch) for epoch in (1, 1, 2, 2)],
    ]
    stands = bench.rounds.calls("stand")
    assert [root is None for *_, root, _ in stands] == [True, False] * 3
    assert [led_by is None for *_, led_by in stands] == [True, True, False, True, False, True]
    assert stands[-1][2] == bench.trainer.state.root(MANIFEST_HASH)


def test_work_is_told_to_the_others_with_its_rate(make_bench):
    bench = make_bench()
    micro_batch = bench.trainer._micro_batch

    def timed():
        bench.clock.advance(0.5)
        return micro_batch()

    bench.trainer._micro_batch = timed
    bench.loop.run(Orders(), 1)
    weights = [weight for weight, _ in bench.rounds.calls("gather")]
    rates = [rate for _, rate in bench.rounds.calls("gather")]
    assert weights == [0, 32, 64, 96]
    assert rates == [0.0, 64.0, 64.0, 64.0]


def test_what_others_committed_is_taken_in_and_counted_as_theirs(make_bench, others):
    bench = make_bench()
    bench.rounds.others = [lambda base: others(base, small(bench.trainer))] * 3
    finished = bench.loop.run(Orders(), 3)
    assert finished.epoch == 3
    assert not bench.rounds.calls("run")
    events = of(RoundCommitted, bench.events)
    assert [event.epoch for event in events] == [1, 2, 3]
    assert all(event.loss is None and not event.seconds_by_phase for event in events)
    assert any(event.phase is Phase.JOINING for event in of(PhaseChanged, bench.events))


def test_work_that_others_did_not_wait_for_is_dropped_and_counted(make_bench, others):
    bench = make_bench()
    gather = bench.rounds.gather

    def overtaken(weight, rate):
        gather(weight, rate)
        if weight == 64 and not bench.rounds.told.count(("overtaken",)):
            bench.rounds.told.append(("overtaken",))
            bench.rounds.others = [lambda base: others(base, small(bench.trainer))]

    bench.rounds.gather = overtaken
    bench.loop.run(Orders(), 2)
    theirs, ours = of(RoundCommitted, bench.events)
    assert (theirs.dropped_samples, theirs.dropped_tokens) == (4, 64)
    assert theirs.loss is None
    assert (ours.dropped_samples, ours.loss is None) == (0, False)


def test_a_contribution_that_others_certified_after_all_is_not_counted_as_dropped(
    make_bench, others
):
    bench = make_bench()

    def fail(base, contribution, abandon):
        bench.rounds.others = [lambda base: others(base, small(bench.trainer), contribution)]
        return NO_QUORUM

    bench.rounds.run = fail
    bench.loop.run(Orders(), 1)
    [event] = of(RoundCommitted, bench.events)
    assert event.loss is not None
    assert (event.dropped_samples, event.dropped_tokens) == (0, 0)


def test_rows_worked_on_after_a_contribution_was_made_are_dropped_and_counted(make_bench, others):
    bench = make_bench()
    bench.rounds.wanted_at = 32
    gather, made = bench.rounds.gather, []

    def fail(base, contribution, abandon):
        bench.rounds.wanted_at = float("inf")  # whoever wanted it is gone
        made.append(contribution)
        return NO_QUORUM

    def overtaken(weight, rate):
        gather(weight, rate)
        if weight == 96:
            bench.rounds.others = [lambda base: others(base, small(bench.trainer), made[0])]

    bench.rounds.run, bench.rounds.gather = fail, overtaken
    bench.loop.run(Orders(), 1)
    [event] = of(RoundCommitted, bench.events)
    assert event.loss is not None
    assert (event.dropped_samples, event.dropped_tokens) == (2, 32)


def test_of_two_attempts_the_first_was_certified_and_only_what_came_after_it_is_dropped(
    make_bench, others
):
    bench = make_bench()
    bench.rounds.wanted_at = 32
    made = []

    def fail(base, contribution, abandon):
        made.append(contribution)
        bench.rounds.wanted_at = 64
        if len(made) == 2:
            bench.rounds.others = [lambda base: others(base, small(bench.trainer), made[0])]
        return NO_QUORUM

    bench.rounds.run = fail
    bench.loop.run(Orders(), 1)
    assert made[1].weight > made[0].weight
    [event] = of(RoundCommitted, bench.events)
    assert event.loss == made[0].loss
    assert event.dropped_samples == made[1].samples - made[0].samples


def test_a_branch_that_is_not_the_runs_is_left_for_its_state(make_bench, make_trainer, run_epoch):
    bench, ahead = make_bench(), make_trainer()
    for _ in range(5):
        run_epoch(ahead)
    parent = Ancestor(5, ahead.state.root(MANIFEST_HASH))

    def go_over(base):
        return Replaced(ahead.state, None, "3 peers went on there", 0, 0)

    bench.rounds.others = [go_over]
    finished = bench.loop.run(Orders(), 6)
    [left] = of(BranchLeft, bench.events)
    assert (left.epoch, left.reason) == (5, "3 peers went on there")
    assert [event.epoch for event in of(RoundCommitted, bench.events)] == [6]
    assert finished.state_root == bench.trainer.state.root(MANIFEST_HASH)
    assert bench.store.left == [5]
    assert bench.store.saved[-1] == 6
    assert bench.store.heritages[-1].parent == parent
    assert ("stand", 0, 5, None, None) in bench.rounds.told


def test_another_state_of_the_same_epoch_is_scored_like_any_other(
    make_bench, make_trainer, run_epoch
):
    bench, other = make_bench(interval_s=1000.0), make_trainer()
    run_epoch(other)
    root = other.state.root(MANIFEST_HASH)

    def go_over(base):
        assert base.epoch == 1
        return Replaced(other.state, None, "3 peers went on there", 1, 64)

    def score(rows, between):
        scored.append(bench.trainer.state.root(MANIFEST_HASH))
        if bench.trainer.state.epoch == 1 and len(scored) == 2:
            bench.rounds.others = [go_over]
        return evaluate(rows, between)

    def pass_time(event):
        if isinstance(event, PhaseChanged):
            bench.clock.advance(1000.0)

    scored, evaluate = [], bench.trainer.evaluate
    bench.trainer.evaluate = score
    bench.loop._parts = dataclasses.replace(bench.loop._parts, emit=pass_time)
    bench.loop.run(Orders(), 2)
    assert scored[2] == root


def test_a_dead_network_ends_the_loop_with_the_last_epoch_on_the_disk(make_bench):
    bench = make_bench(interval_s=1000.0)

    def die(event):
        if isinstance(event, RoundCommitted):
            bench.rounds.lost = "p2pd died"

    bench.loop._parts = dataclasses.replace(
        bench.loop._parts, emit=lambda event: (bench.events.append(event), die(event))
    )
    with pytest.raises(NetworkLostError, match="p2pd died"):
        bench.loop.run(Orders(), 3)
    assert bench.store.saved == [1]


def test_a_peer_that_holds_serves_until_it_is_told_to_leave(make_bench):
    bench = make_bench()
    orders, holding = Orders(), threading.Event()
    rest = bench.rounds.rest

    def noted(*, resting):
        rest(resting=resting)
        holding.set()

    bench.rounds.rest = noted
    results = []
    training = threading.Thread(
        target=lambda: results.append(bench.loop.run(orders, 2, hold=True)), daemon=True
    )
    training.start()
    assert holding.wait(20)
    assert bench.store.saved[-1] == 2
    assert training.is_alive()
    orders.take(Finish())
    training.join(20)
    assert results[0].epoch == 2
    assert bench.rounds.calls("rest") == [(True,)]
    assert any(event.phase is Phase.HOLDING for event in of(PhaseChanged, bench.events))


# ---- validation


def restart_at(epoch, generation):
    mark = Mark(epoch=epoch, state_root="ab" * 32, score_points=0)
    ledger = Ledger.genesis("tiny", "00" * 32)
    ledger = ledger.model_copy(update={"generation": generation, "accepted": (mark,)})
    return Restart(mark, ledger, f"verdict 7: reject; going on from epoch {epoch}")


def test_each_candidate_is_written_named_and_kept(make_bench):
    bench = make_bench(interval_s=1000.0)
    bench.validation.every = 2
    bench.loop.run(Orders(), 5)
    assert [epoch for epoch, _ in bench.validation.candidates] == [2, 4]
    assert bench.store.saved == [2, 4, 5]
    assert bench.store.protected == {"good"}


def test_a_rejected_branch_is_left_for_the_last_good_state_in_its_generation(
    make_bench, make_trainer, run_epoch
):
    good = make_trainer()
    for _ in range(2):
        run_epoch(good)

    def reject(event):
        if isinstance(event, RoundCommitted) and event.epoch == 4 and event.generation == 0:
            bench.validation.restart = restart_at(2, 1)

    bench = make_bench(on_event=reject)
    bench.validation.state = good.state
    finished = bench.loop.run(Orders(), 5)
    [back] = of(RolledBack, bench.events)
    assert (back.epoch, back.generation, back.lost_epochs) == (2, 1, 2)
    assert "verdict 7" in back.reason
    committed = [(e.generation, e.epoch) for e in of(RoundCommitted, bench.events)]
    assert committed == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (1, 5)]
    assert finished.epoch == 5
    assert bench.store.left == [2]
    assert bench.rounds.calls("restart") == [()]
    # Nothing of the branch that is left is named in the new generation.
    there = [call for call in bench.rounds.calls("stand") if call[0] == 1]
    assert there[0] == (1, 2, None, None)
    assert [where.generation for where in bench.validation.gone] == [1]


def test_a_good_state_that_nobody_gives_yet_is_waited_for(make_bench, make_trainer):
    bench, fresh = make_bench(), make_trainer()
    bench.validation.restart = restart_at(0, 1)
    tries = []

    def find(where, abandon):
        tries.append(where)
        return fresh.state if len(tries) > 2 else None

    bench.validation.find = find
    bench.loop.run(Orders(), 1)
    assert len(tries) == 3
    assert any("waiting for a peer" in e.reason for e in of(PhaseChanged, bench.events))


def test_a_peer_that_holds_trains_again_when_what_it_holds_is_rejected(make_bench, make_trainer):
    bench, fresh = make_bench(), make_trainer()
    orders, rests = Orders(), []
    bench.validation.state = fresh.state

    def noted(*, resting):
        rests.append(resting)
        if rests == [True]:
            bench.validation.restart = restart_at(0, 1)
        if len(rests) == 3:
            orders.take(Finish())

    bench.rounds.rest = noted
    finished = bench.loop.run(orders, 2, hold=True)
    assert rests == [True, False, True]
    assert finished.epoch == 2
    assert [e.generation for e in of(RoundCommitted, bench.events)] == [0, 0, 1, 1]


def test_a_peer_that_holds_says_that_it_comes_before_it_goes_back(make_bench, make_trainer):
    fresh, orders, at_work = make_trainer(), Orders(), []

    def find(where, abandon):
        at_work.append(bench.rounds.calls("rest")[-1])
        return fresh.state if len(at_work) == 2 else None

    def reject(event):
        if isinstance(event, PhaseChanged) and event.phase is Phase.HOLDING:
            if bench.validation.gone:
                orders.take(Finish())
            else:
                bench.validation.restart = restart_at(0, 1)

    bench = make_bench(on_event=reject)
    bench.validation.find = find
    bench.loop.run(orders, 2, hold=True)
    assert at_work == [(False,), (False,)]
    assert bench.rounds.calls("rest") == [(True,), (False,), (True,)]


def test_what_validators_accept_is_said_beside_the_checkpoint(make_bench):
    bench = make_bench()
    bench.validation.verdicts = {"cd" * 32: "ef" * 32}
    bench.loop.run(Orders(), 1)
    assert ("cd" * 32, "ef" * 32) in bench.store.annotated


def test_a_halved_rate_reaches_the_outer_step(make_bench):
    whole, half = make_bench(), make_bench()
    half.validation.halvings = 1
    roots = {bench.loop.run(Orders(), 1).state_root for bench in (whole, half)}
    assert len(roots) == 2


def test_nobody_is_to_wait_for_a_paused_peer(make_bench):
    bench = make_bench()
    orders = Orders(paused="paused by you")
    wait, waited = orders.wait, []

    def resume(seconds):
        waited.append(seconds)
        orders.take(Resume())
        wait(0.0)

    orders.wait = resume
    bench.loop.run(orders, 1)
    assert waited
    assert bench.rounds.calls("rest") == [(True,), (False,)]


def test_whoever_joins_has_a_state_written_before_it_is_due(make_bench):
    bench = make_bench(interval_s=1000.0)
    bench.rounds.asked_for_state = True
    bench.loop.run(Orders(), 2)
    assert bench.store.saved[0] == 1
    assert bench.rounds.calls("saved")[0] == (1,)


# ---- a peer that only judges

FOLLOWS = Duty.FOLLOW, "as a validator"
EARNS = Duty.TRAIN, "to earn a place"


@pytest.fixture
def make_follower(make_bench, others):
    """Return a bench on which others make an epoch whenever the loop waits, up to a last one."""

    def make(duties, last, **given):
        bench = make_bench(interval_s=1000.0, **given)
        bench.validation.every = 2
        bench.validation.duties = duties
        orders = Orders()

        def wait(seconds):
            waits.append(seconds)
            if bench.trainer.state.epoch < last:
                bench.rounds.others.append(lambda base: others(base, small(bench.trainer)))
            else:
                orders.take(Stop())

        waits = []
        orders.wait = wait
        return bench, orders

    return make


def test_a_follower_takes_in_what_others_make_and_trains_nothing(make_follower):
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 5)
    finished = bench.loop.run(orders, None)
    assert finished.epoch == 5
    assert not bench.rounds.calls("run")
    assert bench.trainer.samples_total == 0
    assert bench.rounds.calls("rest") == [(True,)]
    # Else nobody would notice that the network died.
    assert len(bench.rounds.calls("gather")) >= 5


def test_a_follower_that_is_to_finish_leaves_at_once_however_far_it_is_behind(make_bench, others):
    bench, orders = make_bench(interval_s=1000.0), Orders()
    bench.validation.duties = lambda epoch, worked: FOLLOWS

    def one(base):
        orders.take(Finish())
        return others(base, small(bench.trainer))

    bench.rounds.others = [one] * 5
    finished = bench.loop.run(orders, None)
    assert finished.epoch == 1
    assert len(bench.rounds.others) == 4


def test_a_followers_candidates_are_written_and_named(make_follower):
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 5)
    bench.loop.run(orders, None)
    assert [epoch for epoch, _ in bench.validation.candidates] == [2, 4]
    assert bench.store.saved == [2, 4, 5]


def test_a_candidate_that_a_peer_goes_over_to_is_named_too(make_bench, make_trainer, run_epoch):
    bench, ahead = make_bench(interval_s=1000.0), make_trainer()
    for _ in range(4):
        run_epoch(ahead)
    bench.validation.every = 2
    bench.rounds.others = [lambda base: Replaced(ahead.state, None, "they went on there", 0, 0)]
    bench.loop.run(Orders(), 5)
    assert [epoch for epoch, _ in bench.validation.candidates] == [4]


def test_a_follower_gives_states_to_whoever_asks(make_follower):
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 1)
    bench.rounds.asked_for_state = True
    bench.validation.every = 0
    bench.loop.run(orders, None)
    assert bench.store.saved == [0, 1]


def test_a_follower_says_so_and_that_nobody_trains(make_follower):
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 0)
    bench.loop.run(orders, None)
    [said] = {e.reason for e in of(PhaseChanged, bench.events) if e.phase is Phase.FOLLOWING}
    assert said == "as a validator; nobody trains, so there is nothing to judge"
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 0)
    bench.rounds.others_train = True
    bench.loop.run(orders, None)
    [said] = {e.reason for e in of(PhaseChanged, bench.events) if e.phase is Phase.FOLLOWING}
    assert said == "as a validator"


def test_a_follower_contributes_again_when_its_place_would_lapse(make_follower):
    asked = []

    def duties(epoch, worked):
        asked.append((epoch, worked))
        return EARNS if epoch >= 3 and worked is None else FOLLOWS

    bench, orders = make_follower(duties, 6)
    bench.loop.run(orders, None)
    assert [epoch for epoch, _ in bench.rounds.calls("run")] == [4]  # where it was by then
    assert bench.rounds.calls("rest") == [(True,), (False,), (True,)]
    assert asked[-1] == (6, 4)
    assert any(e.reason == "to earn a place" for e in of(PhaseChanged, bench.events))


def test_what_was_gathered_is_brought_before_a_peer_only_follows(make_follower):
    begun = []

    def duties(epoch, worked):
        return FOLLOWS if begun else EARNS

    bench, orders = make_follower(duties, 1)
    gather = bench.rounds.gather

    def pause(weight, rate):
        gather(weight, rate)
        if weight and not begun:
            begun.append(weight)
            orders.take(Pause(reason="x"))

    def wait(seconds):
        orders.take(Resume() if orders.paused else Stop())

    bench.rounds.gather, orders.wait = pause, wait
    bench.loop.run(orders, None)
    [event] = of(RoundCommitted, bench.events)
    assert event.dropped_tokens == 0
    assert event.loss is not None


def test_work_of_a_generation_that_is_left_keeps_no_place(make_follower, make_trainer):
    asked = []

    def duties(epoch, worked):
        asked.append((epoch, worked))
        return EARNS if worked is None else FOLLOWS

    bench, orders = make_follower(duties, 1)
    bench.validation.state = make_trainer().state
    wait = orders.wait

    def reject(seconds):
        if not bench.validation.gone:
            bench.validation.restart = restart_at(0, 1)
        else:
            wait(seconds)

    orders.wait = reject
    bench.loop.run(orders, None)
    changes = [key for key, _ in itertools.groupby(asked)]
    assert changes == [(0, None), (1, 0), (0, None), (1, 0)]


def test_a_follower_that_is_asked_to_finish_leaves_at_once(make_follower):
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 5)
    orders.take(Finish())
    finished = bench.loop.run(orders, None)
    assert (finished.epoch, finished.reason) == (0, "asked to finish, and it trains nothing now")


def test_a_follower_ends_at_the_last_epoch_asked_for(make_follower):
    bench, orders = make_follower(lambda epoch, worked: FOLLOWS, 9)
    finished = bench.loop.run(orders, 3)
    assert finished.epoch == 3
    assert "is complete" in finished.reason
