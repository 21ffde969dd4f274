"""A verdict proves itself to whoever knows the one before, and no field of it can be changed."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import MisbehavedError
from peer.run.canonical import to_base64
from peer.swarm.testimony import Good
from peer.training.chain import Fork
from peer.validation.choice import Branch, choose, most_good, most_held, prefer
from peer.validation.judge import build, follow, problem, verdict_problem
from peer.validation.score import Decision, Reason
from peer.validation.ticket import DoubleTicket, lot
from peer.validation.verdict import MAX_VERDICT_BYTES, Judgement, Tip, Verdict


@pytest.fixture(scope="module")
def crowd(stand_in):
    return [stand_in(f"validator {i}") for i in range(12)]


@pytest.fixture(scope="module")
def told(rules, genesis, identities, make_case, sign):
    """Return a verdict of four real peers, of whom one did not score."""
    case = make_case(genesis, identities, said={3: None})
    return sign(build(rules, genesis, case), identities)


def check(verdict, rules, tip, crowd, **known):
    return verdict_problem(verdict, rules, tip, verify=crowd[0].verify, **known)


# ---- building and checking


def test_a_verdict_is_good_from_outside_also_after_json(told, rules, genesis, identities):
    assert verdict_problem(told, rules, genesis) is None
    again = Verdict.from_bytes(told.to_bytes())
    assert again == told
    assert again.judgement.hash == told.judgement.hash
    members = {each.peer_id for each in identities}
    assert verdict_problem(again, rules, genesis, members=members) is None
    assert told.judgement.decision is Decision.ACCEPT
    assert told.judgement.committee.size.is_small


def places(value, path=()):
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def altered(value):
    match value:
        case bool() | None:
            return 1
        case str():
            return ("1" if value[:1] != "1" else "2") + value[1:]
        case int() | float():
            return value + 1
        case list():
            return value[:-1] if value else [value]
        case dict():
            return {} if value else {"loss": 1.0}
    raise AssertionError(value)


UNPROVEN = {("assents", "seed")}
"""The seed beside a signature only says to which round a record belongs."""


def is_refused(body, rules, tip):
    try:
        verdict = Verdict.from_bytes(json.dumps(body).encode())
    except MisbehavedError:
        return True
    return verdict_problem(verdict, rules, tip) is not None


def test_no_field_of_a_verdict_can_be_changed(told, rules, genesis, identities, sign):
    # Just enough signatures, so that none of them can be spared.
    body = json.loads(sign(told.judgement, identities[:3]).to_bytes())
    accepted = []
    for path in places(body):
        if tuple(part for part in path if isinstance(part, str)) in UNPROVEN:
            continue
        changed = copy.deepcopy(body)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = altered(inner[path[-1]])
        if not is_refused(changed, rules, genesis):
            accepted.append(path)
    assert accepted == []


def test_each_peer_that_signs_the_same_changed_judgement_is_in_vain(
    told, rules, genesis, identities, sign
):
    for change in (
        {"decision": Decision.REJECT},
        {"reason": Reason.WORSE},
        {"difference_points": -1000},
        {"struck": (identities[0].peer_id,)},
        {"candidate": "ab" * 32},
        {"roster": told.judgement.roster[1:]},
        {"seats": told.judgement.seats[1:]},
        {"after": told.judgement.after.model_copy(update={"generation": 1})},
        {"epoch": 7},
        {"epoch": 0},
    ):
        lie = told.judgement.model_copy(update=change)
        lie.__dict__.pop("hash", None)
        assert lie.hash != told.judgement.hash
        assert verdict_problem(sign(lie, identities), rules, genesis) is not None, change


def test_too_few_signatures_are_no_verdict(told, rules, genesis, identities, sign):
    judgement = told.judgement
    assert verdict_problem(sign(judgement, identities[:3]), rules, genesis) is None
    two = sign(judgement, identities[:2])
    assert verdict_problem(two, rules, genesis) == "2 of those called signed it, 3 must"
    twice = sign(judgement, [identities[0], identities[0], identities[1]])
    assert verdict_problem(twice, rules, genesis) == "2 of those called signed it, 3 must"


def test_a_stranger_that_signs_does_not_count(rules, genesis, crowd, make_case, sign):
    judgement = build(rules, genesis, make_case(genesis, crowd[:3]))
    assert check(sign(judgement, crowd[:3]), rules, genesis, crowd) is None
    assert check(sign(judgement, [*crowd[:2], crowd[9]]), rules, genesis, crowd) is not None


def test_a_roster_of_ones_friends_is_refused_by_who_has_the_certificate(
    rules, genesis, crowd, make_verdict
):
    verdict, _ = make_verdict(genesis, crowd[:3])
    everybody = {each.peer_id for each in crowd}
    wrong = check(verdict, rules, genesis, crowd, members=everybody)
    assert wrong == "its roster does not follow from its evidence"


def test_false_attendance_is_refused_by_who_has_the_certificates(
    rules, genesis, crowd, make_verdict
):
    friends = {each.peer_id: 5 for each in crowd[:3]}
    verdict, _ = make_verdict(genesis, crowd[:6], attendance=friends)
    truth = {each.peer_id: 5 for each in crowd[:6]}
    wrong = check(verdict, rules, genesis, crowd, attendance=truth)
    assert wrong == "its attendance does not follow from its evidence"
    too_much, _ = make_verdict(genesis, crowd[:6], attendance={crowd[0].peer_id: 6})
    wrong = check(too_much, rules, genesis, crowd)
    assert wrong == "a peer attended more epochs than there were"


def test_what_another_peer_or_round_said_is_refused(rules, genesis, crowd, make_case):
    case = make_case(genesis, crowd)
    other = make_case(genesis, crowd, name="another candidate")
    seats = [each.model_copy() for each in case.seats]
    foreign = seats[0].model_copy(update={"commit": case.seats[1].commit})
    elsewhere = seats[0].model_copy(
        update={"commit": other.seats[0].commit, "reveal": other.seats[0].reveal}
    )
    forged = [
        seats[0].model_copy(update={name: said.model_copy(update={"signature": "aaaa"})})
        for name, said in (("commit", seats[0].commit), ("reveal", seats[0].reveal))
    ]
    unfounded = seats[0].model_copy(update={"commit": None})
    for seat, reason in (
        (foreign, "another peer"),
        (elsewhere, "another question"),
        (forged[0], "not signed by its peer"),
        (forged[1], "not signed by its peer"),
        (unfounded, "has no commit"),
    ):
        bad = dataclasses.replace(case, seats=[seat, *seats[1:]])
        judgement = build(rules, genesis, bad)
        assert reason in problem(judgement, rules, genesis, verify=crowd[0].verify)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'{"judgement":{}}', b"[" * 10**5, b"\xff", b"{" * 99]
)
def test_bytes_that_are_no_verdict_are_refused(data):
    with pytest.raises(MisbehavedError):
        Verdict.from_bytes(data)


def test_a_verdict_beyond_all_size_is_not_read():
    with pytest.raises(MisbehavedError, match="bytes"):
        Verdict.from_bytes(b" " * (MAX_VERDICT_BYTES + 1))


# ---- strikes


def test_the_broken_and_the_outlying_are_struck_and_the_absent_are_not(
    rules, genesis, crowd, make_case, losses
):
    said = {
        0: None,  # never committed
        1: (losses(), None),  # never revealed
        2: (losses(), losses(1)),  # revealed something else
        3: losses(900),  # lied
    }
    judgement = build(rules, genesis, make_case(genesis, crowd, said=said))
    assert set(judgement.struck) == {crowd[i].peer_id for i in (1, 2, 3)}
    assert judgement.decision is Decision.ACCEPT
    assert set(judgement.cluster) == {each.peer_id for each in crowd[4:]}


def test_no_score_at_all_is_inconclusive(rules, genesis, crowd, make_case):
    said = dict.fromkeys(range(12))
    judgement = build(rules, genesis, make_case(genesis, crowd, said=said))
    assert (judgement.decision, judgement.reason) == (Decision.INCONCLUSIVE, Reason.TOO_FEW)
    assert judgement.struck == ()


def test_strangers_with_two_tickets_do_not_fill_the_ledger(rules, genesis, crowd, make_case, sign):
    seed = genesis.ledger.seed(rules.run_id, 5)
    proofs = [
        DoubleTicket(seed=seed, public_key=to_base64(key), first="aaaa", second="bbbb")
        for key in (b"stranger", crowd[0].public_key)
    ]
    case = make_case(genesis, crowd, doubles=proofs)
    judgement = build(rules, genesis, case)
    assert [each.peer_id for each in judgement.doubles] == [crowd[0].peer_id]
    assert {s.peer_id for s in judgement.after.standings} == {p.peer_id for p in crowd}


# ---- chains


def test_a_chain_is_followed_to_its_end(rules, genesis, crowd, make_verdict):
    tip, row = genesis, []
    for worse in (0, 2000, -100, 300, 0):
        verdict, tip = make_verdict(tip, crowd, worse)
        row.append(verdict)
    end = follow(rules, genesis, row, crowd[0].verify)
    assert end == tip
    assert end.ledger.generation == 1
    decisions = [verdict.judgement.decision for verdict in row]
    assert decisions.count(Decision.REJECT) == 1
    assert decisions.count(Decision.INCONCLUSIVE) == 1
    for gap in (row[1:], [row[0], *row[2:]], [row[1], row[0]]):
        with pytest.raises(MisbehavedError):
            follow(rules, genesis, gap, crowd[0].verify)


def test_the_roster_of_later_rounds_is_the_ledgers_and_no_one_elses(
    rules, genesis, crowd, make_case, make_verdict
):
    tip = genesis
    for _ in range(3):
        _, tip = make_verdict(tip, crowd[:8])
    case = make_case(tip, crowd[:8])
    assert problem(build(rules, tip, case), rules, tip, verify=crowd[0].verify) is None
    strangers = make_case(tip, crowd[6:])
    lie = build(rules, tip, strangers)
    assert problem(lie, rules, tip, verify=crowd[0].verify) is not None


# ---- which of two


@pytest.fixture(scope="module")
def several(rules, genesis, crowd, make_case):
    """Return judgements of one round that rest on different evidence."""
    cases = [make_case(genesis, crowd, members={p.peer_id for p in crowd})]
    in_order = sorted(cases[0].seats, key=lambda seat: lot(seat.ticket))
    for gap in (0, 3, 6, 11):
        seats = [seat for i, seat in enumerate(in_order) if i != gap]
        cases.append(dataclasses.replace(cases[0], seats=seats))
    silent = [cases[0].seats[0].model_copy(update={"reveal": None}), *cases[0].seats[1:]]
    cases.append(dataclasses.replace(cases[0], seats=silent))
    return [build(rules, genesis, case) for case in cases]


@given(data=st.data())
def test_of_two_judgements_both_sides_choose_the_same(several, data):
    one, other = (data.draw(st.sampled_from(several)) for _ in "ab")
    assert prefer(one, other).hash == prefer(other, one).hash


def test_who_leaves_out_a_ticket_or_a_score_loses(several):
    whole = several[0]
    assert all(prefer(whole, each) is whole for each in several[1:])
    assert lot(whole.seats[0].ticket) == min(lot(seat.ticket) for seat in whole.seats)


def test_the_chain_to_which_more_peers_hold_wins_however_long_the_other_is(
    genesis, crowd, make_verdict
):
    together, _ = make_verdict(genesis, crowd)
    tip, alone = genesis, []
    for _ in range(5):
        verdict, tip = make_verdict(tip, crowd[:1])
        alone.append(verdict)
    many = Branch(dict.fromkeys((p.peer_id for p in crowd), 1), together.judgement)
    one = Branch({crowd[0].peer_id: 5}, alone[0].judgement)
    assert choose(one, many, ())[0] is Fork.SWITCH
    assert choose(many, one, ())[0] is Fork.STAY
    fresh = Branch({f"fresh {i}": 9 for i in range(100)}, alone[0].judgement)
    assert choose(many, fresh, [p.peer_id for p in crowd])[0] is Fork.STAY


def test_between_equal_chains_the_lower_lots_decide(genesis, crowd, make_verdict):
    one, _ = make_verdict(genesis, crowd[:6])
    other, _ = make_verdict(genesis, crowd[6:])
    branches = [Branch({"a": 1}, one.judgement), Branch({"b": 1}, other.judgement)]
    both = [choose(*branches, ())[0], choose(*reversed(branches), ())[0]]
    assert sorted(both) == [Fork.STAY, Fork.SWITCH]


@pytest.mark.parametrize(
    ("held", "eligible", "needed", "verdict"),
    [
        ("aaab", "wxyz", 1, "a"),
        ("aabb", "wxyz", 1, None),
        ("aaab", "wxyz", 4, None),
        ("aaab", "", 1, "a"),
        ("aaab", "z", 1, "b"),
        ("", "wxyz", 1, None),
    ],
)
def test_a_verdict_is_held_when_more_than_half_of_the_eligible_say_so(
    held, eligible, needed, verdict
):
    good = {
        peer: Good(round=1, verdict=name * 64, state_root="00" * 32, generation=0)
        for peer, name in zip("wxyz", held, strict=False)
    }
    expected = verdict * 64 if verdict else None
    assert most_held(good, eligible, needed) == expected


def test_what_is_good_is_said_by_most_of_those_who_hold_to_the_verdict_of_most():
    def say(verdict, state):
        return Good(round=1, verdict=verdict * 64, state_root=state * 64, generation=0)

    good = {"w": say("a", "1"), "x": say("a", "1"), "y": say("a", "2"), "z": say("b", "3")}
    assert most_good(good) == say("a", "1")
    assert most_good({peer: good[peer] for peer in "yz"}) is None
    assert most_good({}) is None


def test_a_branch_counts_signatures_and_what_peers_hold_to(told, identities):
    branch = Branch.of([told], {"somebody": 1})
    assert set(branch.last_held) == {"somebody", *(each.peer_id for each in identities)}


def test_a_judgements_hash_is_of_all_its_fields(several):
    assert len({each.hash for each in several}) == len(several)
    assert all(Judgement.model_validate_json(e.model_dump_json()).hash == e.hash for e in several)
    assert isinstance(Tip.genesis("tiny-1", "00" * 32).hash, str)
