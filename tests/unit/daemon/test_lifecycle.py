import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.daemon.lifecycle import TRANSITIONS, TRIGGER_OF_PHASE, State, Trigger, follow
from peer.events import Phase

RUNNING = {
    State.STARTING,
    State.JOINING,
    State.TRAINING,
    State.AVERAGING,
    State.EVALUATING,
    State.PAUSED,
    State.FOLLOWING,
    State.HOLDING,
}


def test_every_state_has_its_row():
    assert set(TRANSITIONS) == set(State)


def test_every_phase_of_the_worker_is_a_trigger():
    assert set(TRIGGER_OF_PHASE) == set(Phase)


@pytest.mark.parametrize("state", sorted(RUNNING | {State.FINISHING, State.STOPPING}))
@pytest.mark.parametrize("phase", sorted(Phase))
def test_whatever_a_running_worker_says_is_followed(state, phase):
    follow(state, TRIGGER_OF_PHASE[phase])


def test_a_worker_can_be_in_the_state_of_each_of_its_phases():
    reached = {follow(State.STARTING, trigger) for trigger in TRIGGER_OF_PHASE.values()}
    assert reached == RUNNING | {State.FINISHING}


@pytest.mark.parametrize("state", sorted(RUNNING | {State.FINISHING}))
def test_a_running_worker_can_be_stopped_end_and_die(state):
    assert follow(state, Trigger.STOP) is State.STOPPING
    assert follow(state, Trigger.END) is State.STOPPED
    assert follow(state, Trigger.DIE) is State.RESTARTING


@given(st.lists(st.sampled_from(sorted(TRIGGER_OF_PHASE.values()))))
def test_after_a_stop_no_work_leads_out_of_stopping(triggers):
    state = follow(State.TRAINING, Trigger.STOP)
    for trigger in triggers:
        state = follow(state, trigger)
    assert state is State.STOPPING


@given(st.lists(st.sampled_from(sorted(TRIGGER_OF_PHASE.values()))))
def test_after_a_finish_the_state_is_finishing_until_the_end(triggers):
    state = follow(State.TRAINING, Trigger.FINISH)
    for trigger in triggers:
        state = follow(state, trigger)
    assert state is State.FINISHING
    assert follow(state, Trigger.END) is State.STOPPED


def test_a_worker_that_dies_while_stopping_is_not_started_again():
    assert follow(State.STOPPING, Trigger.DIE) is State.STOPPED


def test_a_transition_that_is_not_in_the_table_is_our_own_bug():
    with pytest.raises(ValueError, match="failed does not follow"):
        follow(State.FAILED, Trigger.TRAIN)
