import pytest

from peer.sandbox.chronicle import Chronicle
from peer.sandbox.review import review
from peer.sandbox.scenario import ScenarioName, Unseated, make_scenario

POISONED, LYING, KILLED = ScenarioName
IDS = {index: f"id{index}" for index in range(8)}


@pytest.fixture
def look(make_ruling):
    """Review a scenario of eight peers whose verdicts have these decisions, on 5, 10 and so on."""

    def look(name, *verdicts, chronicle=None, live=range(8)):
        chronicle = chronicle or Chronicle()
        row = tuple(
            make_ruling(number, epoch, decision, **changed)
            for number, (epoch, decision, changed) in enumerate(verdicts, 1)
        )
        scenario = make_scenario(name, 8, 40, 5)
        told, wrong = review(scenario, row, chronicle, IDS, list(live))
        assert told["name"] == name
        return told, wrong

    return look


def ruled(epoch, decision="accept", **changed):
    return epoch, decision, changed


BEFORE = (ruled(5), ruled(10))
REJECTED = ruled(15, "reject")
LATER = ruled(20, generation=1)


@pytest.fixture
def back():
    """The swarm came to epoch 16; all are in generation 1 up to 7 s after the third verdict."""
    chronicle = Chronicle()
    chronicle.saw(16, 49.0)
    chronicle.saw_verdict(3, 50.0)
    for index in range(8):
        chronicle.saw_generation(index, 1, 50.0 + index)
    return chronicle


def test_a_poisoned_candidate_that_is_rejected_is_as_it_should_be(look, back):
    told, wrong = look(POISONED, *BEFORE, REJECTED, LATER, chronicle=back)
    assert wrong == []
    assert told == {
        "name": "poisoned-candidate",
        "hostile": [3, 4, 5, 6, 7],
        "poisoned_epochs": [11, 12, 13, 14, 15, 16],
        "rejected_epoch": 15,
        "back_s": 7.0,
    }


def test_the_candidate_after_a_superseded_one_is_rejected_in_its_place(look, back):
    told, wrong = look(POISONED, *BEFORE, ruled(20, "reject"), LATER, chronicle=back)
    assert (told["rejected_epoch"], wrong) == (20, [])


@pytest.mark.parametrize(
    ("verdicts", "why"),
    [
        (BEFORE, "there was no verdict on what was poisoned from epoch 10 on"),
        (
            (*BEFORE, ruled(15), LATER),
            "the poisoned epoch 15 was not rejected: for a reason",
        ),
        ((*BEFORE, REJECTED), "there was no verdict after the rejection"),
        (
            (*BEFORE, REJECTED, ruled(15, "inconclusive", generation=1)),
            "the verdict on epoch 15 is inconclusive: for a reason",
        ),
        (
            (ruled(5), ruled(10, "inconclusive"), REJECTED, LATER),
            "the verdict on epoch 10 is inconclusive: for a reason",
        ),
    ],
)
def test_any_other_verdict_on_a_poisoned_run_is_a_problem(verdicts, why, look, back):
    assert look(POISONED, *verdicts, chronicle=back)[1] == [why]


def test_who_is_not_back_in_a_minute_is_a_problem(look, back):
    why = "not all were back at the last good state in 60 s"
    late = Chronicle()
    late.saw_verdict(3, 50.0)
    late.saw_generation(0, 1, 111.0)
    for chronicle, live in ((late, [0]), (back, [0, 8])):
        verdicts = (*BEFORE, REJECTED, LATER)
        assert look(POISONED, *verdicts, chronicle=chronicle, live=live)[1] == [why]


def test_liars_that_are_struck_are_as_they_should_be(look):
    struck = ("id5", "id6", "id7")
    told, wrong = look(LYING, ruled(5, struck=struck), ruled(10, struck=("id5",)), ruled(15))
    assert wrong == []
    assert told["lies"] == {"5": "inflate", "6": "deflate", "7": "copy"}
    assert told["strikes"] == dict.fromkeys("01234", 0) | {"5": 2, "6": 1, "7": 1}


def test_a_struck_honest_peer_and_a_liar_that_got_away_are_problems(look):
    _, wrong = look(LYING, ruled(5, struck=("id2", "id5", "id6")))
    assert wrong == [
        "peer 2 was honest and was struck 1 times",
        "peer 7 lied and was not struck",
    ]


def test_a_rejection_for_liars_is_a_problem(look):
    _, wrong = look(LYING, ruled(5, "reject", struck=("id5", "id6", "id7")))
    assert wrong == ["the verdict on epoch 5 is reject: for a reason"]


@pytest.fixture
def unseated():
    """Three seats were killed; verdicts took 3 s, with a death 8 s."""
    chronicle = Chronicle()
    for number, epoch in enumerate((5, 10, 15, 20), 1):
        chronicle.saw(epoch, 10.0 * epoch)
        chronicle.saw_verdict(number, 10.0 * epoch + (3.0 if number == 1 else 8.0))
    chronicle.unseated += [
        Unseated(1, 10, "scoring"),
        Unseated(2, 15, "revealing"),
        Unseated(3, 20, "signing"),
    ]
    return chronicle


def test_killed_seats_with_a_verdict_each_are_as_they_should_be(look, unseated):
    verdicts = [ruled(epoch) for epoch in (5, 10, 15, 20)]
    told, wrong = look(KILLED, *verdicts, chronicle=unseated)
    assert wrong == []
    assert told["killed"][1] == {"peer": 2, "candidate_epoch": 15, "phase": "revealing"}
    assert (told["normal_s"], told["delayed_s"]) == ([3.0], [8.0, 8.0, 8.0])


def test_a_killed_seat_whose_candidate_got_no_verdict_is_a_problem(look, unseated):
    _, wrong = look(KILLED, ruled(5), ruled(10), ruled(20), chronicle=unseated)
    assert wrong == ["there was no verdict on epoch 15, where peer 2 was killed"]


def test_fewer_killed_seats_than_planned_are_a_problem(look, unseated):
    unseated.unseated.pop()
    verdicts = [ruled(epoch) for epoch in (5, 10, 15, 20)]
    assert look(KILLED, *verdicts, chronicle=unseated)[1] == ["2 seats were killed, 3 were to be"]


def test_seats_that_there_were_none_of_are_not_missed(look, unseated):
    del unseated.unseated[1:]
    assert look(KILLED, ruled(5), ruled(10), chronicle=unseated)[1] == []
    unseated.unseated.clear()
    why = ["0 seats were killed, 1 were to be"]
    assert look(KILLED, ruled(5), chronicle=unseated)[1] == why
