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
    ValidationMoved,
)

PATIENCE = Patience(silence_s=120.0, still_s=300.0, start_s=900.0, idle_s=1800.0, dht_s=60.0)
WORKING = [State.JOINING, State.TRAINING, State.AVERAGING, State.EVALUATING, State.FINISHING]
RESTING = [State.PAUSED, State.HOLDING, State.FOLLOWING]
AGE = st.floats(0.0, 1e6)


def signs(state, silent_s=0.0, still_s=0.0, idle_s=0.0, dht_silent_s=None, futile_s=None):
    return Signs(
        state=state,
        silent_s=silent_s,
        still_s=still_s,
        idle_s=idle_s,
        futile_s=idle_s if futile_s is None else futile_s,
        dht_silent_s=dht_silent_s,
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
    assert judge(signs(State.RESTARTING, silent_s=500.0), PATIENCE)[0] is Pulse.ALIVE
    assert judge(signs(State.STARTING, silent_s=500.0), PATIENCE)[0] is Pulse.HUNG


def test_a_worker_that_is_told_to_stop_must_only_go_on_speaking():
    long = {"still_s": 1e5, "idle_s": 1e5, "dht_silent_s": 1e5}
    assert judge(signs(State.STOPPING, **long), PATIENCE)[0] is Pulse.ALIVE
    assert judge(signs(State.STOPPING, silent_s=121.0), PATIENCE)[0] is Pulse.HUNG


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
    ("message", "state", "counts"),
    [
        (progress(), State.TRAINING, True),
        (progress(tokens=0), State.TRAINING, False),
        (COMMITTED, State.AVERAGING, True),
        (FAILED, State.AVERAGING, True),
        (SAVED, State.TRAINING, True),
        (Heartbeat(), State.TRAINING, False),
        (Heartbeat(), State.AVERAGING, False),
        (Heartbeat(), State.EVALUATING, True),
        (Heartbeat(), State.FOLLOWING, True),
        (phase(Phase.PAUSED), State.PAUSED, True),
        (phase(Phase.HOLDING), State.HOLDING, True),
        (phase(Phase.FOLLOWING), State.FOLLOWING, True),
        (phase(Phase.AVERAGING, "a round on epoch 7"), State.TRAINING, True),
        (phase(Phase.JOINING, "fetching the state: 7.0 of 9.0 MB"), State.JOINING, True),
        (phase(Phase.IMPORTING), State.STARTING, False),
        (phase(Phase.LOADING), State.STARTING, False),
        (peers_seen(), State.TRAINING, False),
        (peers_seen(2 << 20), State.JOINING, True),
        (MOVED, State.TRAINING, False),
    ],
)
def test_what_counts_as_getting_on(message, state, counts):
    vitals = Vitals(0.0)
    vitals.take(message, state, 100.0)
    assert vitals.signs(state, 100.0).idle_s == (0.0 if counts else 100.0)


def test_a_few_statements_by_turns_are_no_progress():
    vitals = Vitals(0.0)
    for second in range(1, 100):
        said = f"waiting, {second % 3}"
        vitals.take(phase(Phase.JOINING, said), State.JOINING, float(second))
    assert vitals.signs(State.JOINING, 100.0).idle_s == 97.0
    assert vitals.signs(State.JOINING, 100.0).still_s == 1.0


def test_a_stated_pause_is_alive_for_as_long_as_it_is_stated():
    vitals = Vitals(0.0)
    for second in range(1, 100_000, 100):
        vitals.take(phase(Phase.PAUSED, "paused by you"), State.PAUSED, float(second))
        vitals.take(peers_seen(), State.PAUSED, float(second))
        assert judge(vitals.signs(State.PAUSED, second + 1.0), PATIENCE)[0] is Pulse.ALIVE
    assert judge(vitals.signs(State.PAUSED, 100_400.0), PATIENCE)[0] is Pulse.HUNG


def test_a_network_that_speaks_hides_no_training_thread_that_hangs():
    vitals = Vitals(0.0)
    vitals.take(progress(), State.TRAINING, 1.0)
    for second in range(1, 310):
        vitals.take(peers_seen(), State.TRAINING, float(second))
    pulse, reason = judge(vitals.signs(State.TRAINING, 310.0), PATIENCE)
    assert pulse is Pulse.HUNG
    assert "training stood still" in reason


def test_training_that_goes_on_hides_no_dht_that_is_silent():
    vitals = Vitals(0.0)
    vitals.take(peers_seen(), State.TRAINING, 1.0)
    for second in range(1, 70):
        vitals.take(progress(), State.TRAINING, float(second))
    pulse, reason = judge(vitals.signs(State.TRAINING, 70.0), PATIENCE)
    assert pulse is Pulse.HUNG
    assert "DHT" in reason


def test_without_a_network_no_dht_is_missed():
    vitals = Vitals(0.0)
    vitals.take(progress(), State.TRAINING, 500.0)
    assert judge(vitals.signs(State.TRAINING, 510.0), PATIENCE)[0] is Pulse.ALIVE


def test_a_new_worker_has_its_own_time_and_a_dht_of_its_own():
    vitals = Vitals(0.0)
    vitals.begin(0.0)
    vitals.take(progress(), State.TRAINING, 100.0)
    vitals.take(peers_seen(), State.TRAINING, 100.0)
    vitals.begin(2000.0)  # after a stall
    assert vitals.signs(State.STARTING, 2500.0) == signs(
        State.STARTING, silent_s=500.0, still_s=500.0, idle_s=500.0
    )


def test_a_worker_that_follows_an_idle_one_has_as_much_time_as_that_one_had():
    vitals = Vitals(0.0)
    for start_s in (0.0, 2000.0, 4000.0):
        vitals.begin(start_s)
        vitals.take(phase(Phase.JOINING), State.STARTING, start_s + 10.0)
        for now_s in range(0, 1700, 100):
            vitals.take(Heartbeat(), State.JOINING, start_s + now_s)
            pulse, why = judge(vitals.signs(State.JOINING, start_s + now_s), PATIENCE)
            assert pulse is Pulse.ALIVE, why


def test_time_in_which_nobody_ran_counts_for_nobody():
    vitals = Vitals(0.0)
    vitals.begin(0.0)
    vitals.take(peers_seen(), State.TRAINING, 10.0)
    vitals.take(progress(), State.TRAINING, 10.0)
    vitals.sleep(400.0)
    assert judge(vitals.signs(State.TRAINING, 415.0), PATIENCE)[0] is Pulse.ALIVE


def test_workers_that_die_before_they_do_anything_have_one_workers_time_together():
    vitals = Vitals(0.0)
    pulses = []
    for start_s in range(0, 1000, 50):
        vitals.begin(float(start_s))
        vitals.take(phase(Phase.IMPORTING), State.STARTING, start_s + 1.0)
        vitals.take(phase(Phase.LOADING), State.STARTING, start_s + 40.0)
        pulses.append(judge(vitals.signs(State.STARTING, start_s + 41.0), PATIENCE)[0])
    assert pulses == [Pulse.ALIVE] * 18 + [Pulse.LOST] * 2
