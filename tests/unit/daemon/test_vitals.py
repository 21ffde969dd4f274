"""When the daemon is taken for alive: every sign at its limit, and any history of words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.daemon.lifecycle import State
from peer.daemon.vitals import Patience, Pulse, Signs, Vitals, judge
from peer.events import (
    CheckpointWritten,
    Heartbeat,
    PeersSeen,
    Phase,
    PhaseChanged,
    Progress,
    RoundCommitted,
    RoundFailed,
    RoundFailure,
    ShardTokenised,
    ValidationMoved,
)

PATIENCE = Patience(silence_s=120.0, still_s=300.0, start_s=900.0)
WORKING = [State.JOINING, State.TRAINING, State.AVERAGING, State.EVALUATING, State.FINISHING]
RESTING = [State.PAUSED, State.HOLDING, State.FOLLOWING]
AGE = st.floats(0.0, 1e6)


def signs(
    state, silent_s=0.0, still_s=0.0, idle_s=0.0, dht_silent_s=None, futile_s=None, step_s=0.0
):
    return Signs(
        state=state,
        silent_s=silent_s,
        still_s=still_s,
        idle_s=idle_s,
        futile_s=idle_s if futile_s is None else futile_s,
        dht_silent_s=dht_silent_s,
        step_s=step_s,
    )


def phase(phase, reason="as said"):
    return PhaseChanged(phase=phase, reason=reason)


def progress(tokens=100):
    return Progress(
        samples=1,
        tokens=tokens,
        loss=3.0,
        contribution_samples=1,
        contribution_weight=tokens,
        tokens_total=tokens,
        seconds=0.1,
    )


def peers_seen(received_bytes=0):
    return PeersSeen(
        addresses=(),
        reachability="",
        peers=(),
        sent_bytes=0,
        received_bytes=received_bytes,
        refused_records={},
        refused_requests={},
    )


COMMITTED = RoundCommitted(
    epoch=1,
    generation=0,
    loss_terms={"me": 1},
    loss=None,
    seconds_by_phase={},
    dropped_samples=0,
    dropped_tokens=0,
)
FAILED = RoundFailed(
    reason=RoundFailure.NO_GROUP, detail="nobody", dropped_samples=0, dropped_tokens=0
)
SAVED = CheckpointWritten(state_root="ab", epoch=1, bytes=1, seconds=0.1, unix_time_s=1.0)
TOKENISED = ShardTokenised(name="a.txt", characters=1 << 20)
MOVED = ValidationMoved(
    phase="idle",
    candidate_epoch=None,
    seat=None,
    round=0,
    generation=0,
    last_good_epoch=0,
    last_good_root="",
    problem=None,
)


@pytest.mark.parametrize("state", WORKING + RESTING)
@pytest.mark.parametrize(
    ("sign", "limit_s", "word"),
    [
        ("silent_s", 120.0, "said nothing"),
        ("still_s", 300.0, "stood still"),
        ("idle_s", 1800.0, "got nothing done"),
        ("dht_silent_s", 60.0, "DHT"),
    ],
)
def test_each_sign_of_a_working_peer_has_its_limit(state, sign, limit_s, word):
    assert judge(signs(state, **{sign: limit_s}), PATIENCE)[0] is Pulse.ALIVE
    pulse, reason = judge(signs(state, **{sign: limit_s + 0.1}), PATIENCE)
    assert pulse is Pulse.HUNG
    assert word in reason
    assert f"{limit_s:.0f} s" in reason


@pytest.mark.parametrize("state", [State.STARTING, State.RESTARTING])
def test_a_start_may_take_its_time_and_no_more(state):
    quiet = {"still_s": 800.0, "dht_silent_s": 800.0}
    assert judge(signs(state, futile_s=900.0, **quiet), PATIENCE)[0] is Pulse.ALIVE
    pulse, reason = judge(signs(state, futile_s=900.1, **quiet), PATIENCE)
    assert pulse is Pulse.LOST
    assert reason == "no worker got to work for 900 s"


def test_between_two_workers_nobody_can_be_silent():
    assert judge(signs(State.RESTARTING, silent_s=901.0), PATIENCE)[0] is Pulse.ALIVE
    assert judge(signs(State.STARTING, silent_s=901.0), PATIENCE)[0] is Pulse.HUNG


def test_a_worker_that_is_told_to_stop_must_only_go_on_speaking():
    long = {"still_s": 1e5, "idle_s": 1e5, "dht_silent_s": 1e5}
    assert judge(signs(State.STOPPING, **long), PATIENCE)[0] is Pulse.ALIVE
    assert judge(signs(State.STOPPING, silent_s=5.1), PATIENCE)[0] is Pulse.HUNG


def test_a_worker_that_is_told_to_stop_may_come_through_a_step_as_long_as_those_before():
    assert judge(signs(State.STOPPING, silent_s=29.0, step_s=10.0), PATIENCE)[0] is Pulse.ALIVE
    assert judge(signs(State.STOPPING, silent_s=31.0, step_s=10.0), PATIENCE)[0] is Pulse.HUNG
    assert judge(signs(State.STOPPING, silent_s=5.1, step_s=None), PATIENCE)[0] is Pulse.HUNG


@given(st.sampled_from(State), AGE, AGE, AGE, st.none() | AGE)
def test_a_younger_sign_never_makes_it_worse(state, silent_s, still_s, idle_s, dht_silent_s):
    now = signs(state, silent_s, still_s, idle_s, dht_silent_s)
    pulse, reason = judge(now, PATIENCE)
    assert reason
    if pulse is Pulse.ALIVE:
        half = None if dht_silent_s is None else dht_silent_s / 2
        assert (
            judge(signs(state, silent_s / 2, still_s / 2, idle_s / 2, half), PATIENCE)[0] is pulse
        )


@given(st.sampled_from(WORKING + RESTING), AGE, AGE, AGE, st.none() | AGE)
def test_a_peer_at_work_is_alive_exactly_while_all_its_signs_are(
    state, silent_s, still_s, idle_s, dht_silent_s
):
    within = silent_s <= 120 and still_s <= 300 and idle_s <= 1800 and (dht_silent_s or 0) <= 60
    pulse, _ = judge(signs(state, silent_s, still_s, idle_s, dht_silent_s), PATIENCE)
    assert (pulse is Pulse.ALIVE) == within


@pytest.mark.parametrize(
    ("message", "while_in", "counts"),
    [
        (progress(), Phase.TRAINING, True),
        (progress(tokens=0), Phase.TRAINING, False),
        (COMMITTED, Phase.AVERAGING, True),
        (FAILED, Phase.AVERAGING, True),
        (SAVED, Phase.TRAINING, True),
        (TOKENISED, Phase.LOADING, True),
        (TOKENISED, Phase.TRAINING, True),
        (Heartbeat(), Phase.TRAINING, False),
        (Heartbeat(), Phase.AVERAGING, False),
        (Heartbeat(), Phase.FINISHING, False),
        (Heartbeat(), Phase.EVALUATING, True),
        (Heartbeat(), Phase.FOLLOWING, True),
        (phase(Phase.PAUSED), Phase.PAUSED, True),
        (phase(Phase.HOLDING), Phase.HOLDING, True),
        (phase(Phase.FOLLOWING), Phase.FOLLOWING, True),
        (phase(Phase.AVERAGING, "a round on epoch 7"), Phase.TRAINING, True),
        (phase(Phase.JOINING, "fetching the state: 7.0 of 9.0 MB"), Phase.JOINING, True),
        (phase(Phase.IMPORTING), Phase.IMPORTING, False),
        (phase(Phase.LOADING), Phase.IMPORTING, False),
        (peers_seen(), Phase.TRAINING, False),
        (peers_seen(2 << 20), Phase.JOINING, True),
        (MOVED, Phase.TRAINING, False),
    ],
)
def test_what_counts_as_getting_on(message, while_in, counts):
    vitals = Vitals(0.0)
    vitals.take(phase(while_in), 0.0)
    vitals.take(message, 100.0)
    assert vitals.signs(State.TRAINING, 100.0).idle_s == (0.0 if counts else 100.0)


def test_a_few_statements_by_turns_are_no_progress():
    vitals = Vitals(0.0)
    for second in range(1, 100):
        said = f"waiting, {second % 3}"
        vitals.take(phase(Phase.JOINING, said), float(second))
    assert vitals.signs(State.JOINING, 100.0).idle_s == 97.0
    assert vitals.signs(State.JOINING, 100.0).still_s == 1.0


def test_a_stated_pause_is_alive_for_as_long_as_it_is_stated():
    vitals = Vitals(0.0)
    for second in range(1, 100_000, 100):
        vitals.take(phase(Phase.PAUSED, "paused by you"), float(second))
        vitals.take(peers_seen(), float(second))
        assert judge(vitals.signs(State.PAUSED, second + 1.0), PATIENCE)[0] is Pulse.ALIVE
    assert judge(vitals.signs(State.PAUSED, 100_400.0), PATIENCE)[0] is Pulse.HUNG


def test_a_network_that_speaks_hides_no_training_thread_that_hangs():
    vitals = Vitals(0.0)
    vitals.take(progress(), 1.0)
    for second in range(1, 310):
        vitals.take(peers_seen(), float(second))
    pulse, reason = judge(vitals.signs(State.TRAINING, 310.0), PATIENCE)
    assert pulse is Pulse.HUNG
    assert "training stood still" in reason


def test_training_that_goes_on_hides_no_dht_that_is_silent():
    vitals = Vitals(0.0)
    vitals.take(peers_seen(), 1.0)
    for second in range(1, 70):
        vitals.take(progress(), float(second))
    pulse, reason = judge(vitals.signs(State.TRAINING, 70.0), PATIENCE)
    assert pulse is Pulse.HUNG
    assert "DHT" in reason


def test_without_a_network_no_dht_is_missed():
    vitals = Vitals(0.0)
    vitals.take(progress(), 500.0)
    assert judge(vitals.signs(State.TRAINING, 510.0), PATIENCE)[0] is Pulse.ALIVE


def test_a_new_worker_has_its_own_time_and_a_dht_of_its_own():
    vitals = Vitals(0.0)
    vitals.begin(0.0)
    vitals.take(phase(Phase.TRAINING), 50.0)
    vitals.take(progress(), 100.0)
    vitals.take(peers_seen(), 100.0)
    assert vitals.signs(State.TRAINING, 100.0).step_s == 50.0
    vitals.begin(2000.0)  # after a stall
    assert vitals.signs(State.STARTING, 2500.0) == signs(
        State.STARTING, silent_s=500.0, still_s=500.0, idle_s=500.0
    )
    vitals.take(phase(Phase.TRAINING), 2500.0)
    assert vitals.signs(State.TRAINING, 2500.0).step_s is None


def test_a_worker_that_follows_an_idle_one_has_as_much_time_as_that_one_had():
    vitals = Vitals(0.0)
    for start_s in (0.0, 2000.0, 4000.0):
        vitals.begin(start_s)
        vitals.take(phase(Phase.JOINING), start_s + 10.0)
        for now_s in range(0, 1700, 100):
            vitals.take(Heartbeat(), start_s + now_s)
            pulse, why = judge(vitals.signs(State.JOINING, start_s + now_s), PATIENCE)
            assert pulse is Pulse.ALIVE, why


def test_time_in_which_nobody_ran_counts_for_nobody():
    vitals = Vitals(0.0)
    vitals.begin(0.0)
    vitals.take(peers_seen(), 10.0)
    vitals.take(progress(), 10.0)
    vitals.sleep(400.0, 410.0)
    assert judge(vitals.signs(State.TRAINING, 415.0), PATIENCE)[0] is Pulse.ALIVE


def test_workers_that_die_before_they_do_anything_have_one_workers_time_together():
    vitals = Vitals(0.0)
    pulses = []
    for start_s in range(0, 1000, 50):
        vitals.begin(float(start_s))
        vitals.take(phase(Phase.IMPORTING), start_s + 1.0)
        vitals.take(phase(Phase.LOADING), start_s + 40.0)
        pulses.append(judge(vitals.signs(State.STARTING, start_s + 41.0), PATIENCE)[0])
    assert pulses == [Pulse.ALIVE] * 18 + [Pulse.LOST] * 2


class Story:
    """A worker's life as told by its words, each a number of seconds after the one before."""

    def __init__(self):
        self.now_s = 0.0
        self.vitals = Vitals(0.0)
        self.vitals.begin(0.0)

    def say(self, *messages, after_s=0.0):
        self.now_s += after_s
        for message in messages:
            self.vitals.take(message, self.now_s)

    def pulse(self, state=State.TRAINING, after_s=0.0):
        return judge(self.vitals.signs(state, self.now_s + after_s), PATIENCE)[0]

    def hung_after_s(self, state=State.TRAINING):
        """Return after how many seconds without another word it is taken for hung."""
        low_s, high_s = 0.0, 1e7
        assert self.pulse(state, low_s) is Pulse.ALIVE
        assert self.pulse(state, high_s) is Pulse.HUNG
        while high_s - low_s > 0.01:
            middle_s = (low_s + high_s) / 2
            alive = self.pulse(state, middle_s) is Pulse.ALIVE
            low_s, high_s = (middle_s, high_s) if alive else (low_s, middle_s)
        return pytest.approx(high_s, abs=0.1)


@pytest.fixture
def story():
    return Story()


@pytest.mark.parametrize("while_in", [Phase.TRAINING, Phase.EVALUATING, Phase.AVERAGING])
def test_the_first_step_of_each_kind_may_take_as_long_as_a_start(story, while_in):
    story.say(phase(while_in))
    assert story.hung_after_s() == 900.0
    story.say(Heartbeat() if while_in is Phase.EVALUATING else COMMITTED, progress(), after_s=1.0)
    assert story.hung_after_s() == 120.0


def test_waiting_for_the_data_tells_nothing_of_a_micro_batch(story):
    story.say(phase(Phase.TRAINING))
    for _ in range(10):
        story.say(Heartbeat(), after_s=1.0)
    assert story.hung_after_s() == 900.0


def test_micro_batches_of_minutes_are_waited_for_and_a_hang_is_caught(story):
    story.say(phase(Phase.TRAINING))
    assert story.pulse(after_s=200.0) is Pulse.ALIVE
    story.say(progress(), after_s=200.0)
    for _ in range(10):
        assert story.pulse(after_s=250.0) is Pulse.ALIVE
        story.say(progress(), after_s=250.0)
    assert story.hung_after_s() == 750.0


def test_an_outer_step_of_minutes_is_waited_for_after_micro_batches_of_seconds(story):
    for epoch in range(3):
        story.say(phase(Phase.TRAINING, f"epoch {epoch}"))
        story.say(progress(), after_s=2.0)
        story.say(phase(Phase.AVERAGING, f"a round on epoch {epoch}"))
        assert story.pulse(State.AVERAGING, after_s=400.0) is Pulse.ALIVE
        story.say(COMMITTED, after_s=400.0)
    assert story.hung_after_s(State.AVERAGING) == 1200.0
    story.say(phase(Phase.TRAINING))
    assert story.hung_after_s() == 120.0


def test_a_training_thread_with_long_steps_may_stand_still_while_the_network_speaks(story):
    story.say(phase(Phase.TRAINING))
    story.say(progress(), after_s=400.0)
    for _ in range(119):
        story.say(peers_seen(), after_s=10.0)
        assert story.pulse() is Pulse.ALIVE
    story.say(peers_seen(), after_s=20.0)
    assert story.pulse() is Pulse.HUNG


def test_no_step_is_so_long_that_a_hang_is_not_caught_within_half_an_hour(story):
    story.say(phase(Phase.TRAINING))
    story.say(progress(), after_s=890.0)
    for _ in range(180):
        story.say(peers_seen(2 << 20), after_s=10.0)  # others fetch from here all the while
        assert story.pulse() is Pulse.ALIVE
    story.say(peers_seen(2 << 20), after_s=10.0)
    assert story.pulse() is Pulse.HUNG


def test_time_in_which_nobody_ran_makes_no_step_longer(story):
    story.say(phase(Phase.TRAINING))
    story.say(progress(), after_s=1.0)
    story.vitals.sleep(500.0, story.now_s + 500.0)
    story.say(progress(), after_s=501.0)
    assert story.hung_after_s() == 120.0


def test_a_word_that_was_heard_only_after_such_a_time_makes_no_step_longer_either(story):
    story.say(phase(Phase.TRAINING))
    story.say(progress(), after_s=1.0)
    story.say(progress(), after_s=3600.0)
    story.vitals.sleep(3600.0, story.now_s)
    assert story.hung_after_s() == 120.0


WORDS = st.sampled_from(
    [progress(), COMMITTED, FAILED, SAVED, Heartbeat(), TOKENISED]
    + [phase(each) for each in Phase if each not in (Phase.IMPORTING, Phase.LOADING)]
)


@given(
    st.sampled_from(WORKING + RESTING),
    st.lists(st.tuples(WORDS, st.floats(0.0, 1e5)), max_size=20),
)
def test_a_worker_that_falls_silent_is_caught_within_half_an_hour_whatever_it_said(state, said):
    story = Story()
    for message, after_s in said:
        story.say(message, after_s=after_s)
    assert story.pulse(state, after_s=1800.1) is Pulse.HUNG


def test_a_last_evaluation_may_take_as_long_as_it_goes_on(story):
    story.say(phase(Phase.FINISHING), phase(Phase.EVALUATING, "scoring epoch 7"))
    for _ in range(3 * 3600):
        story.say(Heartbeat(), after_s=1.0)
        assert story.pulse(State.FINISHING) is Pulse.ALIVE
    assert story.hung_after_s(State.FINISHING) == 120.0


def test_a_last_round_that_only_waits_is_no_last_evaluation(story):
    story.say(phase(Phase.AVERAGING, "a round on epoch 7"))
    for _ in range(1800):
        story.say(Heartbeat(), after_s=1.0)
    assert story.pulse(State.FINISHING) is Pulse.ALIVE
    story.say(Heartbeat(), after_s=1.0)
    assert story.pulse(State.FINISHING) is Pulse.HUNG


def test_a_shard_that_takes_hours_to_tokenise_is_waited_for_while_that_goes_on(story):
    story.say(phase(Phase.TRAINING))
    for second in range(4 * 3600):
        story.say(Heartbeat(), after_s=1.0)  # the training thread waits for the shard
        if second % 60 == 0:
            story.say(TOKENISED)
        assert story.pulse() is Pulse.ALIVE
    for _ in range(1800):
        story.say(Heartbeat(), after_s=1.0)
    assert story.pulse() is Pulse.HUNG


def test_held_out_data_that_takes_hours_to_tokenise_are_no_start_that_leads_nowhere(story):
    story.say(phase(Phase.LOADING))
    for _ in range(4 * 60):
        story.say(TOKENISED, after_s=60.0)
        assert story.pulse(State.STARTING) is Pulse.ALIVE
    assert story.pulse(State.STARTING, after_s=899.0) is Pulse.ALIVE
    assert story.pulse(State.STARTING, after_s=901.0) is Pulse.HUNG


def test_a_shard_that_is_tokenised_ahead_hides_no_training_thread_that_hangs(story):
    story.say(phase(Phase.TRAINING))
    story.say(progress(), after_s=1.0)
    for _ in range(31):
        story.say(TOKENISED, after_s=10.0)
    assert story.pulse() is Pulse.HUNG
