import pytest

from peer.errors import UsageError
from peer.sandbox.scenario import (
    Scenario,
    ScenarioName,
    Unseated,
    find_seat,
    make_scenario,
    parse_poison,
)

POISONED, LYING, KILLED = ScenarioName


def test_a_hostile_majority_poisons_the_third_candidate():
    scenario = make_scenario(POISONED, 8, 40, 5)
    assert set(scenario.roles) == {3, 4, 5, 6, 7}
    assert set(scenario.roles.values()) == {"poison:10"}
    assert scenario.poison_from == 10


def test_in_a_short_run_the_last_candidate_is_poisoned():
    scenario = make_scenario(POISONED, 4, 10, 5)
    assert (set(scenario.roles), scenario.poison_from) == ({1, 2, 3}, 5)


def test_as_many_lie_as_leave_a_quorum_of_honest_ones():
    assert make_scenario(LYING, 8, 40, 5).roles == {5: "inflate", 6: "deflate", 7: "copy"}
    assert make_scenario(LYING, 9, 40, 5).roles[8] == "random"
    assert make_scenario(LYING, 4, 40, 5).roles == {3: "inflate"}


def test_as_many_are_killed_as_leave_a_quorum_and_the_first_candidate_alone():
    assert make_scenario(KILLED, 8, 40, 5).kills == 3
    assert make_scenario(KILLED, 8, 15, 5).kills == 2
    assert make_scenario(KILLED, 4, 40, 5).kills == 1


@pytest.mark.parametrize("name", list(ScenarioName))
@pytest.mark.parametrize("peers", range(4, 20))
def test_the_founder_is_never_hostile(name, peers):
    roles = make_scenario(name, peers, 40, 5).roles
    assert 0 not in roles
    assert all(index < peers for index in roles)


@pytest.mark.parametrize(
    ("name", "peers", "max_epochs", "every", "why"),
    [
        (POISONED, 8, 9, 5, "two candidates at least"),
        (KILLED, 8, 40, 0, "two candidates at least"),
        (POISONED, 2, 40, 5, "needs 3 peers"),
        (LYING, 3, 40, 5, "needs 4 peers"),
        (KILLED, 3, 40, 5, "needs 4 peers"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused(name, peers, max_epochs, every, why):
    with pytest.raises(UsageError, match=why):
        make_scenario(name, peers, max_epochs, every)


def test_the_role_of_a_poisoner_names_its_first_epoch():
    assert parse_poison("poison:10") == 10
    assert parse_poison("inflate") is None


def says(epoch, phase, seat="validator 1 of 7", number=1):
    return {"candidate_epoch": epoch, "phase": phase, "seat": seat, "round": number}


def test_seats_are_killed_while_they_score_then_reveal_then_sign():
    done = []
    for epoch, phase in ((10, "scoring"), (15, "revealing"), (20, "signing")):
        for early in ("gathering tickets", *("scoring", "revealing")[: len(done)]):
            assert find_seat({2: says(epoch, early)}, done, 3) is None
        seat = find_seat({2: says(epoch, phase)}, done, 3)
        assert seat == Unseated(2, epoch, phase)
        done.append(seat)
    assert find_seat({2: says(25, "scoring")}, done, 3) is None


def test_who_was_missed_while_it_scored_is_killed_a_little_later():
    assert find_seat({3: says(10, "signing")}, [], 1) == Unseated(3, 10, "signing")


@pytest.mark.parametrize(
    "judging",
    [
        {},
        {2: {}},
        {2: says(5, "scoring", number=0)},
        {2: says(10, "scoring", seat=None)},
        {2: says(10, "done")},
        {2: says(15, "signing")},
    ],
)
def test_who_is_in_no_seat_and_who_lost_one_before_is_let_be(judging):
    assert find_seat(judging, [Unseated(1, 15, "scoring")], 3) is None


def test_without_a_scenario_of_killed_seats_nobody_is_killed():
    scenario = Scenario(name=LYING)
    assert find_seat({2: says(10, "scoring")}, [], scenario.kills) is None
