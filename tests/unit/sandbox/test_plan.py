import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import UsageError
from peer.sandbox.plan import MAX_PEERS, Fault, Kind, inviter, make_plan, parse_freeze, parse_kill


def test_kills_and_freezes_are_read_as_they_are_spelled():
    assert parse_kill("1@5") == Fault(Kind.KILL, 1, 5)
    assert parse_freeze("2@14:20") == Fault(Kind.FREEZE, 2, 14, 20.0)
    assert parse_freeze("2@14:0.5") == Fault(Kind.FREEZE, 2, 14, 0.5)


@pytest.mark.parametrize(
    "text", ["", "1", "1@", "@5", "a@5", "1@5:2", "-1@5", "1@5 ", "1@5\n", "٣@5"]
)
def test_a_kill_spelled_otherwise_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="such as 1@5"):
        parse_kill(text)


@pytest.mark.parametrize("text", ["2@14", "2@14:", "2@14:x", "2:14@20", "2@14:1e3", "2@14:-1"])
def test_a_freeze_spelled_otherwise_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="such as 2@14:20"):
        parse_freeze(text)


@pytest.mark.parametrize("text", ["2@14:0", "2@14:86401"])
def test_a_freeze_of_no_sensible_length_is_refused(text):
    with pytest.raises(UsageError, match="a freeze lasts between"):
        parse_freeze(text)


def test_the_issues_example_is_planned_in_its_order():
    hurts = [parse_kill("1@5"), Fault(Kind.KILL, 0, 9), parse_freeze("2@14:20")]
    plan = make_plan(4, 20, hurts=reversed(hurts), join_at=[12])
    kinds = [(fault.kind, fault.peer, fault.epoch) for fault in plan.faults]
    assert kinds == [("kill", 1, 5), ("kill", 0, 9), ("join", 4, 12), ("freeze", 2, 14)]
    assert plan.timeout_s == 300 + 5 * 20 + 20


def test_of_several_faults_at_one_epoch_peers_join_before_others_die():
    plan = make_plan(1, 9, hurts=[parse_kill("0@3"), parse_freeze("0@3:1")], join_at=[3])
    assert [fault.kind for fault in plan.faults] == [Kind.JOIN, Kind.FREEZE, Kind.KILL]


def test_joiners_get_the_next_indices_in_the_order_of_their_epochs():
    plan = make_plan(2, 9, join_at=[7, 3])
    assert [(fault.peer, fault.epoch) for fault in plan.faults] == [(2, 3), (3, 7)]


def test_a_given_timeout_is_kept():
    assert make_plan(2, 9, timeout_s=5.0).timeout_s == 5.0


@pytest.mark.parametrize(
    ("hurts", "join_at", "why"),
    [
        (["1@10"], [], "never reached"),
        ([], [10], "never reached"),
        (["2@5"], [], "there is no peer 2 at epoch 5"),
        (["2@5"], [6], "there is no peer 2 at epoch 5"),
        (["1@5", "1@6"], [], "peer 1 is dead by epoch 6"),
        (["1@5", "0@6"], [], "nobody is left at epoch 6"),
        (["1@5", "0@6"], [7], "nobody is left at epoch 6"),
        (["1@5", "1@6:3"], [], "peer 1 is dead by epoch 6"),
        (["1@5:3", "1@6:3"], [], "frozen twice"),
        ([], [1] * MAX_PEERS, "at most 64"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_starts(hurts, join_at, why):
    faults = [parse_freeze(text) if ":" in text else parse_kill(text) for text in hurts]
    with pytest.raises(UsageError, match=why):
        make_plan(2, 9, hurts=faults, join_at=join_at)


def test_all_but_a_joiner_may_die():
    plan = make_plan(2, 9, hurts=[parse_kill("0@6"), parse_kill("1@6")], join_at=[5])
    assert len(plan.faults) == 3


def test_whom_nobody_hurts_invites():
    coming = [Fault(Kind.KILL, 0, 9), Fault(Kind.FREEZE, 2, 14, 20.0)]
    assert inviter([0, 2, 3], coming) == 3
    assert inviter([0, 2], coming) == 2
    assert inviter([0], coming) == 0
    assert inviter([1, 3], coming) == 1
    assert inviter([0, 2], [Fault(Kind.JOIN, 0, 9), Fault(Kind.KILL, 2, 9)]) == 0


@given(st.integers(0, 999), st.integers(0, 10**9 - 1))
def test_any_peer_and_epoch_can_be_spelled(peer, epoch):
    assert parse_kill(f"{peer}@{epoch}") == Fault(Kind.KILL, peer, epoch)


@pytest.mark.parametrize(("every", "judged"), [(0, False), (3, True), (9, True), (4, False)])
def test_the_last_epoch_is_judged_if_it_is_a_candidate(every, judged):
    assert make_plan(2, 9, validate_every=every).ends_judged is judged
