from hypothesis import given
from hypothesis import strategies as st

from peer.daemon.restart import Death, FailureClass, GiveUp, Restart, decide

CURABLE = [FailureClass.CRASH, FailureClass.HANG, FailureClass.OUT_OF_MEMORY]


def deaths(*at_s, failure=FailureClass.CRASH):
    return [Death(failure, at) for at in at_s]


def test_a_bad_configuration_is_given_up_at_once():
    decision, reason = decide([Death(FailureClass.CONFIGURATION, 0.0)], 1)
    assert isinstance(decision, GiveUp)
    assert "configured" in reason


def test_the_delay_doubles_while_deaths_follow_each_other():
    delays = [decide(deaths(*range(n)), 1)[0].delay_s for n in range(1, 9)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_death_long_after_the_last_one_begins_anew():
    assert decide(deaths(0, 1, 2, 700), 1)[0].delay_s == 1.0


def test_out_of_memory_halves_the_micro_batch():
    decision, reason = decide(deaths(0, failure=FailureClass.OUT_OF_MEMORY), 4)
    assert decision == Restart(1.0, 8)
    assert "half the micro-batch" in reason


@given(
    st.lists(st.tuples(st.sampled_from(CURABLE), st.floats(0, 1e6)), min_size=1, max_size=200),
    st.integers(0, 20),
)
def test_any_history_of_curable_deaths_leads_to_a_bounded_restart(history, exponent):
    past = [Death(failure, at) for failure, at in sorted(history, key=lambda death: death[1])]
    decision, reason = decide(past, 1 << exponent)
    assert isinstance(decision, Restart)
    assert 1.0 <= decision.delay_s <= 60.0
    assert 1 <= decision.micro_batch_divisor <= max(1 << 16, 1 << exponent)
    assert reason
