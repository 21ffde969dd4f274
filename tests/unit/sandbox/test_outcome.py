import json

import pytest

from peer.sandbox.chronicle import Chronicle, Commit
from peer.sandbox.outcome import Final, conclude, merge_commits
from peer.sandbox.plan import Fault, Kind, make_plan
from peer.sandbox.rulings import most_held, superseded

LAST = 20
EVERYBODY = {"id0": 2048, "id1": 2048, "id2": 1024}


def status(**changed):
    fields = {
        "epoch": LAST,
        "generation": 0,
        "state_root": "a" * 64,
        "state_root_epoch": LAST,
        "heldout": {"value": 3.5},
        "rounds": {"committed": LAST, "failed_by_reason": {"no_group": 1}},
        "restarts_by_reason": {},
        "epochs_lost_in_branches": 0,
    }
    return fields | changed


def make_final(index, *, alive=True, commits=None, row=(), again=(), **changed):
    """Return a peer; `again` are commits of generation 1, which take the place of others."""
    if commits is None:
        commits = dict.fromkeys(range(1, LAST + 1), EVERYBODY)
    made = {e: Commit(0, terms) for e, terms in commits.items()}
    made |= {e: Commit(1, terms) for e, terms in dict(again).items()}
    return Final(index, alive, status(**changed), f"id{index}", made, row)


@pytest.fixture
def chronicle():
    """Three peers from the beginning; the last epoch was seen."""
    chronicle = Chronicle()
    for peer in range(3):
        chronicle.starts(peer)
    for epoch in range(1, LAST + 1):
        chronicle.saw(epoch, float(epoch))
    return chronicle


def judge(finals, chronicle, problems=(), every=0):
    plan = make_plan(3, LAST, validate_every=every)
    return conclude(finals, chronicle, plan, 25.0, problems)


def test_a_swarm_that_stayed_together_is_as_it_should_be(chronicle):
    outcome = judge([make_final(i) for i in range(3)], chronicle)
    assert outcome.ok
    report = json.loads(json.dumps(outcome.report))
    assert (report["ok"], report["problems"]) == (True, [])
    assert (report["schema"], report["epochs"], report["duration_s"]) == (1, LAST, 25.0)
    assert report["failed_rounds"] == {"no_group": 3}
    assert report["commits"][4] == {
        "epoch": 5,
        "generation": 0,
        "group": ["id0", "id1", "id2"],
        "loss_terms": EVERYBODY,
    }
    assert report["peers"][1] == {
        "index": 1,
        "peer_id": "id1",
        "alive": True,
        "epoch": LAST,
        "generation": 0,
        "state_root": "a" * 64,
        "heldout": 3.5,
        "rounds": {"committed": LAST, "failed_by_reason": {"no_group": 1}},
        "restarts": {},
        "commits_expected": LAST,
        "commits_contributed": LAST,
    }


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"epoch": 19}, "peer 1 ended at epoch 19, not at 20"),
        ({"epoch": None}, "peer 1 ended at epoch None, not at 20"),
        ({"state_root": None}, "peer 1 never said its root at epoch 20"),
        ({"state_root_epoch": 19}, "peer 1 never said its root at epoch 20"),
        (
            {"state_root": "b" * 64},
            (
                "the roots differ at epoch 20: peer 0 has aaaaaaaaaaaa of generation 0, "
                "peer 1 has bbbbbbbbbbbb of generation 0, peer 2 has aaaaaaaaaaaa of generation 0"
            ),
        ),
        (
            {"generation": 1},
            (
                "the roots differ at epoch 20: peer 0 has aaaaaaaaaaaa of generation 0, "
                "peer 1 has aaaaaaaaaaaa of generation 1, peer 2 has aaaaaaaaaaaa of generation 0"
            ),
        ),
    ],
)
def test_a_live_peer_that_ended_elsewhere_is_a_problem(changed, problem, chronicle):
    outcome = judge([make_final(0), make_final(1, **changed), make_final(2)], chronicle)
    assert outcome.report["problems"] == [problem]
    assert not outcome.ok


def test_where_a_killed_peer_ended_is_no_problem(chronicle):
    dead = Chronicle()
    for peer in range(3):
        dead.starts(peer)
    dead.saw(5, 5.0)
    dead.inject(Fault(Kind.KILL, 1, 5), 5.5)
    dead.saw(LAST, 9.0)
    finals = [
        make_final(0),
        make_final(1, alive=False, epoch=5, state_root="b" * 64, state_root_epoch=5),
        make_final(2),
    ]
    outcome = judge(finals, dead)
    assert outcome.ok
    assert outcome.report["peers"][1]["commits_expected"] == 5


def test_a_root_of_an_earlier_epoch_is_not_shown(chronicle):
    finals = [make_final(0), make_final(1, alive=False, epoch=5, state_root_epoch=4)]
    peers = judge(finals, chronicle).report["peers"]
    assert [peer["state_root"] for peer in peers] == ["a" * 64, None]


def test_epochs_that_nobody_reached_are_not_missed_one_by_one():
    started = Chronicle()
    started.starts(0)
    started.saw(2, 2.0)
    final = make_final(0, epoch=2, commits={1: {"id0": 1}, 2: {"id0": 1}})
    assert judge([final], started).report["problems"] == ["peer 0 ended at epoch 2, not at 20"]


def test_a_peer_that_never_spoke_is_reported_without_a_status(chronicle):
    outcome = judge([make_final(0), Final(1, True, None, None, {}), make_final(2)], chronicle)
    assert outcome.report["problems"][0] == "peer 1 ended at epoch None, not at 20"
    assert outcome.report["peers"][1]["rounds"] is None


def with_absences(count):
    absent = {"id0": 4096, "id2": 4096}
    return {epoch: absent if epoch <= count else EVERYBODY for epoch in range(1, LAST + 1)}


@pytest.mark.parametrize(("missed", "ok"), [(0, True), (1, True), (2, False)])
def test_a_live_peer_is_in_95_of_100_commits(missed, ok, chronicle):
    finals = [make_final(i, commits=with_absences(missed)) for i in range(3)]
    outcome = judge(finals, chronicle)
    assert outcome.ok is ok
    assert outcome.report["peers"][1]["commits_contributed"] == LAST - missed
    if not ok:
        (problem,) = outcome.report["problems"]
        assert problem.startswith("peer 1 was in 18 of the 20 commits at which it was live; 95%")


def test_a_weight_of_zero_counts_as_absent(chronicle):
    commits = dict.fromkeys(range(1, LAST + 1), EVERYBODY | {"id1": 0})
    outcome = judge([make_final(i, commits=commits) for i in range(3)], chronicle)
    (problem,) = outcome.report["problems"]
    assert problem.startswith("peer 1 was in 0 of the 20 commits")


def test_a_killed_peer_answers_for_the_commits_while_it_lived(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 20), 20.5)
    finals = [make_final(i, alive=i != 1, commits=with_absences(10)) for i in range(3)]
    (problem,) = judge(finals, chronicle).report["problems"]
    assert problem.startswith("peer 1 was in 10 of the 20 commits")


def test_epochs_that_nobody_knows_a_commit_of_are_a_problem(chronicle):
    commits = {e: EVERYBODY for e in range(1, LAST + 1) if e not in {3, 4, 5, 9}}
    outcome = judge([make_final(i, commits=commits) for i in range(3)], chronicle)
    assert outcome.report["problems"] == ["no commit is known of the epochs 3 to 5, 9"]


def test_problems_on_the_way_come_first(chronicle):
    finals = [make_final(i, epoch=19) for i in range(1)]
    problems = judge(finals, chronicle, ["interrupted"]).report["problems"]
    assert problems[:2] == ["interrupted", "peer 0 ended at epoch 19, not at 20"]


def test_nobody_alive_is_a_problem(chronicle):
    finals = [make_final(i, alive=False) for i in range(3)]
    assert judge(finals, chronicle).report["problems"] == ["no peer is alive at the end"]


def test_lost_epochs_and_failures_are_summed_over_the_dead_too(chronicle):
    finals = [make_final(i, alive=i != 1, epochs_lost_in_branches=i) for i in range(3)]
    report = judge(finals, chronicle).report
    assert report["lost_epochs"] == 3
    assert report["failed_rounds"] == {"no_group": 3}


def test_a_commit_is_what_most_live_peers_have():
    one, other = {"id0": 1}, {"id1": 2, "id2": 2}
    finals = [
        make_final(0, commits={7: one}),
        make_final(1, commits={7: other}),
        make_final(2, commits={7: dict(reversed(other.items()))}),
        make_final(3, alive=False, commits={7: one}),
        make_final(4, alive=False, commits={7: one}),
    ]
    assert merge_commits(finals) == {7: Commit(0, other)}


def test_of_equally_many_the_lowest_index_is_believed():
    finals = [make_final(1, commits={7: {"id1": 1}}), make_final(0, commits={7: {"id0": 1}})]
    assert merge_commits(finals) == {7: Commit(0, {"id0": 1})}


def test_a_commit_that_only_the_dead_knew_is_kept():
    finals = [
        make_final(0, commits={8: EVERYBODY}),
        make_final(1, alive=False, commits={7: {"x": 1}}),
    ]
    assert merge_commits(finals) == {7: Commit(0, {"x": 1}), 8: Commit(0, EVERYBODY)}


def test_events_say_what_was_done_and_when_the_next_round_committed():
    chronicle = Chronicle()
    for peer in range(2):
        chronicle.starts(peer)
    chronicle.saw(5, 5.0)
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.5)
    chronicle.inject(Fault(Kind.JOIN, 2, 5), 5.6)
    chronicle.inject(Fault(Kind.FREEZE, 0, 5, 2.0), 5.7)
    chronicle.saw(6, 6.0)
    chronicle.thaws(0, 7.7)
    chronicle.catches_up(2, 8.0)
    chronicle.catches_up(0, 8.7)
    chronicle.saw(LAST, 10.0)
    finals = [make_final(i, alive=i != 1) for i in range(3)]
    assert judge(finals, chronicle).report["events"] == [
        {
            "kind": "kill",
            "peer": 1,
            "epoch": 5,
            "swarm_epoch": 5,
            "at_s": 5.5,
            "next_commit_s": 0.5,
            "regrouped_s": None,
        },
        {
            "kind": "join",
            "peer": 2,
            "epoch": 5,
            "swarm_epoch": 5,
            "at_s": 5.6,
            "next_commit_s": 0.4,
            "regrouped_s": 0.4,
            "catch_up_s": 2.4,
        },
        {
            "kind": "freeze",
            "peer": 0,
            "epoch": 5,
            "swarm_epoch": 5,
            "at_s": 5.7,
            "next_commit_s": 0.3,
            "regrouped_s": None,
            "catch_up_s": 1.0,
            "seconds": 2.0,
            "returned_s": 2.3,
        },
    ]


def test_a_run_without_verdicts_reports_none(chronicle):
    report = judge([make_final(i) for i in range(3)], chronicle).report
    assert (report["verdicts"], report["generation"], report["rollbacks"]) == ([], 0, 0)
    assert (report["superseded"], report["last_good"]) == ([], None)


def test_the_verdicts_that_most_live_peers_hold_to_are_reported(chronicle, make_ruling):
    row = (make_ruling(1, 5), make_ruling(2, 10), make_ruling(3, 20))
    chronicle.saw_verdict(1, 7.5)
    finals = [make_final(0, row=row[:1], alive=False), make_final(1, row=row)]
    report = judge([*finals, make_final(2, row=row)], chronicle, every=5).report
    assert report["problems"] == []
    assert json.loads(json.dumps(report["verdicts"][0])) == {
        "round": 1,
        "epoch": 5,
        "candidate": "1" * 64,
        "decision": "accept",
        "reason": "for a reason",
        "difference_nats": -0.1,
        "generation": 0,
        "signers": ["id0", "id1"],
        "called": ["id1", "id0", "id2"],
        "struck": [],
        "hash": "hash 1",
        "small_swarm": True,
        "quorum": 2,
        "seconds_after_candidate": 2.5,
    }
    assert report["verdicts"][1]["seconds_after_candidate"] is None
    assert report["superseded"] == [15]
    assert report["last_good"] == {"epoch": 20, "root": "g" * 64}


def test_live_peers_that_hold_to_different_verdicts_are_a_problem(chronicle, make_ruling):
    row = (make_ruling(1, 5), make_ruling(2, 10))
    finals = [make_final(0, row=row), make_final(1, row=row[:1]), make_final(2)]
    assert judge(finals, chronicle, every=5).report["problems"] == [
        (
            "the newest verdicts differ: peer 0 holds to 2 hash 2, peer 1 holds to 1 hash 1, "
            "peer 2 holds to none"
        )
    ]


def test_after_a_rollback_the_last_commit_of_an_epoch_counts(chronicle):
    chronicle.inject(Fault(Kind.KILL, 2, LAST), 20.5)
    chronicle.saw(10, 21.0, generation=1)
    chronicle.saw(LAST, 30.0, generation=1)
    again = {epoch: {"id0": 1, "id1": 1} for epoch in range(11, LAST + 1)}
    finals = [make_final(i, again=again, generation=1) for i in range(2)]
    outcome = judge([*finals, make_final(2, alive=False)], chronicle)
    assert outcome.report["problems"] == []
    assert [peer["commits_expected"] for peer in outcome.report["peers"]] == [LAST, LAST, 10]
    generations = [commit["generation"] for commit in outcome.report["commits"]]
    assert generations == [0] * 10 + [1] * 10


def test_of_two_commits_of_an_epoch_the_newer_generation_stands():
    old = [make_final(i, commits={3: {"id0": 1}}) for i in range(2)]
    new = make_final(2, commits={}, again={3: {"id2": 1}})
    assert merge_commits([*old, new]) == {3: Commit(1, {"id2": 1})}


def test_candidates_that_no_verdict_is_about_are_superseded(make_ruling):
    row = [make_ruling(1, 10), make_ruling(2, 25, "reject", goes_on_from=10), make_ruling(3, 20)]
    assert superseded(row, 5, 0) == [5, 15, 20, 15]
    assert superseded(row, 5, 10) == [15, 20, 15]
    assert superseded([], 5, 0) == []


def test_the_row_that_most_hold_to_is_the_lowest_index_s_where_votes_are_even(make_ruling):
    one, other = (make_ruling(1, 5),), (make_ruling(1, 5, hash="other"),)
    assert most_held({0: one, 1: other, 2: other}) == other
    assert most_held({0: one, 1: other}) == one
    assert most_held({}) == ()
