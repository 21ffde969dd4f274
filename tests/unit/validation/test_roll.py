"""What a person is told of validators follows from the verdicts."""

import pytest

from peer.validation.ledger import Standing
from peer.validation.roll import places, prospect, roll
from peer.validation.rules import Rules
from peer.validation.verdict import Verdict

PEERS = [letter * 46 for letter in "abcde"]


@pytest.fixture
def make_ledger(genesis):
    """Return a ledger of some round."""

    def make(round_number=30, **change):
        return genesis.ledger.model_copy(update={"round": round_number} | change)

    return make


def standing(number, **change):
    return Standing(**{"peer_id": PEERS[number], "epochs": 50, "last_round": 30} | change)


def test_before_anybody_is_drawn_whoever_contributes_may_sit(make_ledger, rules):
    ledger = make_ledger(1)
    for one in (standing(0, last_round=1), Standing(peer_id=PEERS[1])):
        may, remark = prospect(ledger, one, rules)
        assert may
        assert "contributes to the candidate" in remark


def test_the_drawn_may_sit_whatever_came_after(make_ledger, rules):
    away = standing(0, last_round=2)
    ledger = make_ledger(drawn=(PEERS[0],), standings=(away,))
    assert prospect(ledger, away, rules) == (True, None)


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"barred_until": 31}, "barred until round 31"),
        ({"last_round": 10}, "away since round 10"),
        ({"epochs": 2}, "contributed to 2 of 5 epochs needed"),
        ({"epochs": 0, "last_round": 0}, "no verdict counts a contribution of it yet"),
    ],
)
def test_who_may_not_sit_is_told_why(make_ledger, rules, change, remark):
    one = standing(0, **change)
    ledger = make_ledger(drawn=tuple(PEERS[1:]), standings=(one, standing(1)))
    assert prospect(ledger, one, rules) == (False, remark)


def test_a_bar_that_is_over_is_none(make_ledger, rules):
    one = standing(0, barred_until=30)
    ledger = make_ledger(drawn=(PEERS[0],), standings=(one,))
    assert prospect(ledger, one, rules) == (True, None)


def test_a_barred_peer_that_is_drawn_may_not_sit(make_ledger, rules):
    one = standing(0, barred_until=40)
    ledger = make_ledger(drawn=tuple(PEERS), standings=(one,))
    assert prospect(ledger, one, rules) == (False, "barred until round 40")


def test_who_has_just_become_eligible_sits_a_round_later(make_ledger, rules):
    one = standing(0)
    ledger = make_ledger(
        drawn=tuple(PEERS[1:]), drawn_after=(PEERS[0],), standings=(one, standing(1))
    )
    may, remark = prospect(ledger, one, rules)
    assert not may
    assert remark.startswith("from round 32")


def test_what_the_roll_says_of_the_next_roster_is_what_the_ledger_draws(
    rules, genesis, stand_in, make_verdict
):
    """Newcomers come in the fourth round, and old ones leave in the seventh."""
    old, new = ([stand_in(f"{age} {i}") for i in range(5)] for age in ("old", "new"))
    tip, chain = genesis, []
    for round_number in range(1, 12):
        there = {p.peer_id: 5 for p in (*old[: 5 if round_number < 7 else 2], *new)}
        if round_number < 4:
            there = {p.peer_id: 5 for p in old}
        verdict, tip = make_verdict(tip, old, attendance=there)
        chain.append(verdict)
        ledger = tip.ledger
        roster, ground = ledger.roster(ledger.epoch + rules.every_epochs, (), rules)
        members = roll(chain, rules)
        if ground == "tenure":
            assert {m.peer_id for m in members if m.eligible} == set(roster)
            assert all((m.remark is None) == m.eligible for m in members)
    assert {p.peer_id for p in new} <= {m.peer_id for m in members if m.eligible}


@pytest.mark.parametrize("keeps", [False, True], ids=["does not score", "does not show it"])
def test_reserves_sit_for_who_shows_no_score(rules, genesis, stand_in, make_verdict, losses, keeps):
    crowd = [stand_in(f"validator {i}") for i in range(12)]
    plain, _ = make_verdict(genesis, crowd)
    order = plain.judgement.called
    absent = next(i for i, peer in enumerate(crowd) if peer.peer_id == order[2])
    said = {absent: (losses(), None) if keeps else None}
    verdict, _ = make_verdict(genesis, crowd, said=said)
    members = {member.peer_id: member for member in roll([verdict], rules)}
    assert [members[peer].sat for peer in order] == [1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert members[order[2]].agreement is None
    found = places(verdict)
    assert [each.place for each in found[6:8]] == ["validator 7 of 7", "reserve 1 of 5"]
    assert [each.peer_id for each in found if each.stood_in] == [order[7]]
    assert [each.did for each in found].count("agreed") == 11


def test_what_became_of_each_score_is_told(rules, genesis, stand_in, make_verdict, losses):
    crowd = [stand_in(f"validator {i}") for i in range(9)]
    said = {0: losses(900), 1: (losses(), None), 2: None}
    verdict, _ = make_verdict(genesis, crowd, said=said)
    told = {each.peer_id: (each.did, each.struck) for each in places(verdict)}
    assert told[crowd[0].peer_id] == ("does not agree", True)
    assert told[crowd[1].peer_id] == ("did not show its score", True)
    assert told[crowd[2].peer_id] == ("did not score", False)
    assert told[crowd[3].peer_id] == ("agreed", False)
    members = {member.peer_id: member for member in roll([verdict], rules)}
    assert members[crowd[0].peer_id].agreement == 0.0
    assert members[crowd[0].peer_id].strikes == (1,)


def test_only_good_signatures_count_as_signed(rules, genesis, identities, make_verdict):
    verdict, _ = make_verdict(genesis, identities)
    assert all(each.signed for each in places(verdict))
    few = Verdict(judgement=verdict.judgement, assents=verdict.assents[:2])
    assert sum(each.signed for each in places(few)) == 2


def test_whom_no_verdict_knows_is_on_the_roll_when_asked_for(
    rules, genesis, stand_in, make_verdict
):
    verdict, _ = make_verdict(genesis, [stand_in("a")])
    (known, asked) = roll([verdict], rules, others=("1" * 46,))
    assert (asked.peer_id, asked.epochs, asked.called) == ("1" * 46, 0, 0)
    assert known.barred_until is None


def test_tenure_is_short_while_the_run_is_young(make_ledger):
    rules = Rules(run_id="tiny-1", every_epochs=100, tenure_epochs=100)
    ledger = make_ledger(standings=(standing(0, epochs=60),))
    assert ledger.tenure(rules) == 31
    assert make_ledger(standings=(standing(0, epochs=999),)).tenure(rules) == 100
