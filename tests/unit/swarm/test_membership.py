"""Who else is there: bounded whatever is claimed, forgiving to the unlucky, wary of the others."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import MisbehavedError
from peer.swarm.membership import (
    MAX_PEERS,
    Member,
    Report,
    Roster,
    describe,
    load_known_peers,
    parse_report,
    save_known_peers,
)

ME = "Qm" + "1" * 44
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
FIRST_DISTRUST_S, LONGEST_DISTRUST_S = 20.0, 600.0
STALE_S = 30.0


def name(number):
    digits = str(number).replace("0", "z")  # base58 has no zero
    return "Qm" + "A" * (44 - len(digits)) + digits


def address(number, host="203.0.113.7"):
    return f"/ip4/{host}/tcp/31337/p2p/{name(number)}"


A, B, C = name(1), name(2), name(3)


@pytest.fixture
def roster():
    return Roster(ME)


def heard(roster, peer, now_s, *, answered=True, **fields):
    roster.heard(peer, Report(**fields), now_s, answered=answered)


# ---- reports


def test_a_report_comes_back_as_it_was():
    report = Report(
        generation=1,
        epoch=7,
        root="ab" * 32,
        weight=64,
        rate=1.5,
        ready=True,
        leader=A,
        abreast=True,
        client=True,
        resting=True,
        addresses=(address(1),),
        now_s=1.7e9,
    )
    assert parse_report(json.loads(report.model_dump_json())) == report


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 10**9 + 1},
        {"epoch": 10**400},
        {"epoch": 1.5},
        {"epoch": "7"},
        {"epoch": True},
        {"epoch": None},
        {"generation": -1},
        {"generation": 10**10},
        {"weight": -1},
        {"weight": 10**13},
        {"rate": -1.0},
        {"rate": 1e13},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"rate": "1"},
        {"now_s": float("nan")},
        {"now_s": -1.0},
        {"root": "ab"},
        {"root": "AB" * 32},
        {"root": 5},
        {"ready": 1},
        {"ready": None},
        {"leader": "nobody"},
        {"leader": "\ud800" * 46},
        {"addresses": "x"},
        {"addresses": ["x"] * 9},
        {"addresses": ["x" * 201]},
        {"addresses": [""]},
        {"addresses": [None]},
        {"addresses": None},
        {"protocol": 0},
        {"protocol": 10**7},
        {"version": "x" * 41},
        {"more": 1},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_a_report_that_makes_no_sense_is_refused(change):
    body = Report().model_dump(mode="json") | change
    with pytest.raises(MisbehavedError, match="makes no sense"):
        parse_report(body)


@pytest.mark.parametrize("body", [None, 5, "x", [], [[]], {1: 2}, {"x": {"y": []}}], ids=repr)
def test_what_is_no_report_is_refused(body):
    with pytest.raises(MisbehavedError):
        parse_report(body)


def test_a_report_nested_without_end_is_refused():
    body = deep = []
    for _ in range(100_000):
        deep.append([])
        deep = deep[0]
    with pytest.raises(MisbehavedError):
        parse_report({"addresses": body})


# ---- the roster


def test_nobody_is_believed_to_be_there_before_it_answered(roster):
    roster.learn(A, [address(1)])
    assert roster.live(0.0) == set()
    assert roster.report(A) is None
    assert roster.addresses(A) == (address(1),)
    heard(roster, A, 1.0, epoch=3)
    assert roster.live(1.0) == {A}
    assert roster.report(A).epoch == 3


def test_we_are_not_on_our_own_roster(roster):
    roster.learn(ME, [address(1)])
    heard(roster, ME, 0.0)
    assert roster.members() == []


def test_whoever_is_silent_for_too_long_is_not_live(roster):
    heard(roster, A, 0.0)
    assert roster.live(STALE_S) == {A}
    assert roster.live(STALE_S + 0.1) == set()


def test_whoever_failed_is_not_live_until_it_answers(roster):
    heard(roster, A, 0.0)
    roster.failed(A, "no way", 1.0)
    assert roster.live(1.0) == set()
    heard(roster, A, 2.0, answered=False)
    assert roster.live(2.0) == set()
    heard(roster, A, 3.0)
    assert roster.live(3.0) == {A}
    assert roster.members()[0].problem == ""


def test_the_pause_after_a_failure_doubles_up_to_a_minute(roster):
    roster.learn(A, [])
    now_s, pauses = 0.0, []
    for _ in range(12):
        roster.failed(A, "no way", now_s)
        pauses.append(roster.members()[0].down_until_s - now_s)
        now_s += 1000.0
    assert pauses[:4] == [FIRST_PAUSE_S * 2**i for i in range(4)]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert pauses == sorted(pauses)


def test_a_failed_peer_is_asked_again_after_its_pause_and_when_it_called(roster):
    heard(roster, A, 0.0)
    roster.failed(A, "no way", 10.0)
    assert roster.due(10.0 + FIRST_PAUSE_S - 0.1, 5.0) == []
    assert roster.due(10.0 + FIRST_PAUSE_S, 5.0) == [A]
    roster.failed(A, "no way", 20.0)
    heard(roster, A, 20.5, answered=False)
    assert roster.due(20.5, 5.0) == [A]


def test_only_those_who_have_been_quiet_are_asked_again(roster):
    heard(roster, A, 0.0)
    heard(roster, B, 4.0)
    roster.learn(C, [])
    assert sorted(roster.due(5.0, 5.0)) == sorted([A, C])


def test_the_pause_after_misbehaviour_doubles_up_to_ten_minutes(roster):
    now_s, pauses = 0.0, []
    heard(roster, A, 0.0)
    for _ in range(12):
        roster.distrust(A, "not finite", now_s)
        heard(roster, A, now_s)
        assert roster.live(now_s) == {A}
        assert roster.trusted(now_s) == set()
        pauses.append(roster.members()[0].distrusted_until_s - now_s)
        now_s += 1000.0
    assert pauses[:4] == [FIRST_DISTRUST_S * 2**i for i in range(4)]
    assert pauses[-1] == LONGEST_DISTRUST_S
    heard(roster, A, now_s)
    assert roster.trusted(now_s) == {A}


def test_what_happens_to_a_peer_that_nobody_knows_is_nothing(roster):
    roster.failed(A, "no way", 0.0)
    roster.distrust(A, "not finite", 0.0)
    assert roster.members() == []


def test_only_addresses_of_the_peer_itself_are_learned(roster):
    roster.learn(A, [address(2), "/ip4/203.0.113.7/tcp/31337", "junk", address(1)])
    assert roster.addresses(A) == (address(1),)


def test_the_newest_addresses_come_first_and_eight_are_kept(roster):
    for i in range(20):
        roster.learn(A, [address(1, f"203.0.113.{i}")])
    assert len(roster.addresses(A)) == 8
    assert roster.addresses(A)[0] == address(1, "203.0.113.19")


def test_a_peers_own_addresses_take_the_place_of_hearsay(roster):
    roster.learn(A, [address(1, "203.0.113.1")])
    heard(roster, A, 0.0, addresses=(address(1, "203.0.113.2"),))
    assert roster.addresses(A) == (address(1, "203.0.113.2"),)
    heard(roster, A, 1.0)
    assert roster.addresses(A) == (address(1, "203.0.113.2"),)


def test_a_flood_of_names_pushes_out_nobody_who_answers(roster):
    heard(roster, A, 0.0)
    for i in range(10, 10 + 3 * MAX_PEERS):
        roster.learn(name(i), [address(i)])
    assert len(roster.members()) == MAX_PEERS
    assert roster.live(1.0) == {A}


def test_a_flood_of_peers_that_answer_pushes_out_nobody_either(roster):
    heard(roster, A, 0.0)
    for i in range(10, 10 + 3 * MAX_PEERS):
        heard(roster, name(i), 1.0)
    assert len(roster.members()) == MAX_PEERS
    assert A in roster.live(1.0)


def test_in_a_full_roster_the_dead_make_room(roster):
    for i in range(10, 10 + MAX_PEERS):
        heard(roster, name(i), float(i))
    roster.failed(name(10), "no way", 1000.0)
    heard(roster, A, 1001.0)
    names = {member.peer_id for member in roster.members()}
    assert A in names
    assert name(10) not in names
    heard(roster, B, 1001.0)
    assert B not in {member.peer_id for member in roster.members()}


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("lhfdc")), max_size=60))
def test_whatever_happens_the_trusted_are_live_and_the_live_are_known(steps):
    roster, now_s = Roster(ME), 0.0
    for number, step in steps:
        peer = name(number)
        now_s += 3.0
        match step:
            case "l":
                roster.learn(peer, [address(number)])
            case "h":
                heard(roster, peer, now_s)
            case "c":
                heard(roster, peer, now_s, answered=False)
            case "f":
                roster.failed(peer, "no way", now_s)
            case "d":
                roster.distrust(peer, "bad", now_s)
        known = {member.peer_id for member in roster.members()}
        assert roster.trusted(now_s) <= roster.live(now_s) <= known
        assert set(roster.due(now_s, 5.0)) <= known
        down = {m.peer_id for m in roster.members() if m.down_until_s > now_s}
        assert not set(roster.due(now_s, 5.0)) & down


# ---- the file of known peers


def test_known_peers_come_back_and_only_those_that_answered(roster, tmp_path):
    heard(roster, A, 0.0, addresses=(address(1),))
    roster.learn(B, [address(2)])
    heard(roster, C, 0.0)
    save_known_peers(tmp_path / "peers.json", roster.members())
    assert load_known_peers(tmp_path / "peers.json") == {A: (address(1),)}


def test_whatever_a_roster_holds_can_be_read_again(roster, tmp_path):
    for i in range(1, MAX_PEERS + 1):
        long = address(i, "203.0.113.7").replace("/ip4/203.0.113.7", "/dns4/" + "a" * 150)
        roster.learn(name(i), [long, address(i)])
        heard(roster, name(i), 0.0)
    save_known_peers(tmp_path / "peers.json", roster.members())
    assert len(load_known_peers(tmp_path / "peers.json")) == MAX_PEERS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"peers": []}',
        b'{"peers": {"x": []}}',
        json.dumps({"peers": {A: ["x"] * 9}}).encode(),
        json.dumps({"peers": {A: [5]}}).encode(),
        json.dumps({"peers": {A: ["x" * 201]}}).encode(),
        json.dumps({"peers": {name(i): [] for i in range(MAX_PEERS + 1)}}).encode(),
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_junk_file_of_known_peers_is_no_peers(tmp_path, content):
    (tmp_path / "peers.json").write_bytes(content)
    assert load_known_peers(tmp_path / "peers.json") == {}


def test_no_file_is_no_peers(tmp_path):
    assert load_known_peers(tmp_path / "peers.json") == {}


# ---- what a person sees

MINE = Report(epoch=5)


@pytest.mark.parametrize(
    ("changes", "in_group", "state"),
    [
        ({"report": None}, False, "not asked yet"),
        ({"report": None, "failures": 1}, False, "unreachable"),
        ({"failures": 2}, True, "unreachable"),
        ({"distrusted_until_s": 20.0}, True, "left out"),
        ({"distrusted_until_s": 10.0}, True, "in group"),
        ({}, True, "in group"),
        ({}, False, "reachable"),
        ({"report": Report(epoch=4)}, False, "behind"),
        ({"report": Report(epoch=6)}, False, "ahead"),
        ({"report": Report(epoch=9, generation=0)}, False, "ahead"),
    ],
)
def test_a_peer_is_described_in_one_word(changes, in_group, state):
    member = Member(A, (address(1),), Report(epoch=5), 4.0)
    shown = describe(dataclasses.replace(member, **changes), MINE, in_group=in_group, now_s=10.0)
    assert shown["state"] == state
    assert shown["address"] == address(1)
    json.dumps(shown, allow_nan=False)


def test_a_description_says_when_and_where_a_peer_was_last():
    member = Member(A, (), Report(epoch=5, generation=2, rate=7.5), 4.0, problem="slow")
    shown = describe(member, MINE, in_group=False, now_s=10.0)
    assert shown == {
        "peer_id": A,
        "address": None,
        "epoch": 5,
        "generation": 2,
        "state": "ahead",
        "problem": "slow",
        "loss_terms_per_second": 7.5,
        "seen_s": 6.0,
    }
