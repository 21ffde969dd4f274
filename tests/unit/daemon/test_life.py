"""What a worker died of."""

import pytest

from peer.daemon.life import Life, ending
from peer.daemon.restart import FailureClass

OVER = "the worker took 9 MB of memory where limits.memory_mb allows 1"


@pytest.mark.parametrize(
    ("life", "code", "failure"),
    [
        (Life(), 1, FailureClass.CRASH),
        (Life(), -11, FailureClass.CRASH),
        (Life(), 69, FailureClass.NETWORK),
        (Life(refused="it does not fit"), 78, FailureClass.CONFIGURATION),
        (Life(out_of_memory=True), 75, FailureClass.OUT_OF_MEMORY),
        (Life(hung=True), -9, FailureClass.HANG),
        (Life(loaded=True, micro_batch=2, over_limit=OVER), -9, FailureClass.OUT_OF_MEMORY),
        (Life(loaded=True, micro_batch=1, over_limit=OVER), -9, FailureClass.CONFIGURATION),
        (Life(micro_batch=16, over_limit=OVER), -9, FailureClass.CONFIGURATION),
    ],
)
def test_each_end_has_its_class_and_a_reason_exactly_if_another_worker_is_of_no_use(
    life, code, failure
):
    told, why = life.failure(code)
    assert told is failure
    assert (why is not None) == (failure is FailureClass.CONFIGURATION)


def test_a_limit_that_is_too_small_says_when_that_was_found():
    _, why = Life(over_limit=OVER).failure(-9)
    assert why == f"{OVER}, before it trained anything; raise limits.memory_mb"
    _, why = Life(loaded=True, micro_batch=1, over_limit=OVER).failure(-9)
    assert why == f"{OVER}, with no smaller micro-batch left; raise limits.memory_mb"


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (78, "exit code 78"), (-9, "killed by SIGKILL"), (-63, "by signal 63")],
)
def test_an_exit_code_is_told_in_words(code, words):
    assert ending(code).endswith(words)
