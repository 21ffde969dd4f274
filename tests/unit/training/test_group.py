"""Who leads, who is in the group, and that a proposal of another kind is refused."""

import base64
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import MisbehavedError
from peer.training.certificate import MAX_GROUP, Base
from peer.training.group import (
    Group,
    Ready,
    check_proposal,
    close,
    leaders,
    limit,
    lone_accusations,
    parse_ready,
    settle,
    sign_ready,
)

BASE = Base("tiny-1", 0, 7, "ab" * 32)
PEERS = st.sets(st.sampled_from("abcdefghij"), min_size=1)
WORDS = st.dictionaries(st.sampled_from("abcdefghij"), st.sets(st.sampled_from("abcdefghij")))
MAX_WEIGHT = 100


@pytest.fixture(scope="module")
def words(identities):
    """Return four peers' words of being ready, the last by one that nobody can dial."""
    return [
        sign_ready(identity, BASE, f"c{i}", 10 + i, attempt=0, reduces=i != 3)
        for i, identity in enumerate(identities)
    ]


# ---- leaders


@given(PEERS, st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 3)))
def test_everybody_who_knows_the_same_draws_the_same_order(peers, failures):
    order = leaders(BASE, peers, failures)
    assert set(order) == peers
    assert order == leaders(BASE, sorted(peers, reverse=True), dict(failures))


@given(PEERS, st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 3)))
def test_leaders_under_whom_rounds_failed_come_last(peers, failures):
    counts = [failures.get(peer, 0) for peer in leaders(BASE, peers, failures)]
    assert counts == sorted(counts)


@given(PEERS, PEERS)
def test_the_order_of_two_does_not_hang_on_who_else_is_there(some, more):
    order = leaders(BASE, some | more, {})
    assert [peer for peer in order if peer in some] == leaders(BASE, some, {})


@given(PEERS, PEERS)
def test_newcomers_lead_only_where_there_is_nobody_else(peers, tenured):
    order = leaders(BASE, peers, {}, tenured)
    new = [peer not in tenured for peer in order]
    assert new == sorted(new)


def test_everybody_leads_now_and_then():
    first = [
        leaders(dataclasses.replace(BASE, state_root=f"{i:064x}"), "abcd", {})[0]
        for i in range(400)
    ]
    assert all(70 < first.count(peer) < 130 for peer in "abcd")


# ---- limit and settle


def test_a_flood_of_newcomers_does_not_push_out_the_last_group():
    veterans = [f"v{i}" for i in range(MAX_GROUP - 2)]
    flood = [f"n{i}" for i in range(10 * MAX_GROUP)]
    kept = limit([*flood, *veterans], BASE, veterans)
    assert len(kept) == MAX_GROUP
    assert set(veterans) <= set(kept)
    assert limit(reversed([*flood, *veterans]), BASE, veterans) == kept


@given(PEERS, WORDS)
def test_the_settled_can_all_reach_each_other(peers, unreachable):
    left = settle(BASE, peers, unreachable)
    assert left <= peers
    assert not any(b in unreachable.get(a, ()) for a in left for b in left if a != b)


@given(PEERS, WORDS)
def test_nobody_is_dropped_whom_nobody_speaks_of_and_who_speaks_of_nobody(peers, unreachable):
    named = {peer for names in unreachable.values() for peer in names}
    easy = {peer for peer in peers if peer not in named and not unreachable.get(peer)}
    assert easy <= settle(BASE, peers, unreachable)


@given(PEERS, WORDS)
def test_settling_does_not_hang_on_the_order(peers, unreachable):
    turned = {peer: sorted(unreachable[peer]) for peer in reversed(list(unreachable))}
    assert settle(BASE, sorted(peers, reverse=True), turned) == settle(BASE, peers, unreachable)


@pytest.mark.parametrize(
    ("unreachable", "left"),
    [
        ({}, "abcd"),
        ({"a": "d", "b": "d", "c": "d"}, "abc"),
        ({"d": "abc"}, "abc"),
        ({"d": "abc", "a": "d", "b": "d", "c": "d"}, "abc"),
        ({"a": "b", "c": "b"}, "acd"),
        ({"a": "x", "b": "y"}, "abcd"),
        ({"a": "a"}, "abcd"),
    ],
)
def test_as_few_are_dropped_as_have_to_be(unreachable, left):
    named = {peer: set(names) for peer, names in unreachable.items()}
    assert settle(BASE, "abcd", named) == set(left)


def test_of_two_words_against_each_other_now_one_counts_and_now_the_other():
    bases = [dataclasses.replace(BASE, state_root=f"{n:064x}") for n in range(100)]
    for unreachable in ({"a": "b"}, {"a": "b", "b": "a"}):
        left = [settle(base, "abcd", unreachable) for base in bases]
        assert {"c", "d"} <= set.intersection(*left)
        assert 30 < sum("a" in peers for peers in left) < 70
        assert all(("a" in peers) != ("b" in peers) for peers in left)


@pytest.mark.parametrize("clients", ["ab", "abc"])
def test_clients_that_cannot_reach_each_other_are_no_trouble(clients):
    assert settle(BASE, "abcd", {"a": "b", "b": "a"}, clients) == set("abcd")
    assert settle(BASE, "abcd", {"a": "bd"}, clients) != set("abcd")


@pytest.mark.parametrize(
    ("unreachable", "clients", "lone"),
    [
        ({"a": "b"}, "", {("a", "b")}),
        ({"a": "b", "b": "a"}, "", set()),
        ({"a": "b", "c": "b"}, "", set()),
        ({"a": "bc"}, "", {("a", "b"), ("a", "c")}),
        ({"a": "b", "c": "d", "d": "c"}, "", {("a", "b")}),
        ({"a": "x"}, "", set()),
        ({"a": "b"}, "ab", set()),
        ({"a": "b", "c": "b"}, "ab", {("c", "b")}),
    ],
)
def test_only_who_stands_alone_against_one_that_denies_it_is_an_accuser(unreachable, clients, lone):
    assert lone_accusations("abcd", unreachable, clients) == lone


@given(PEERS, WORDS)
def test_one_peer_that_speaks_to_nobody_makes_no_accuser_of_those_it_refuses(peers, unreachable):
    refused = peers - {"b"}
    words = {peer: {*unreachable.get(peer, ()), "b"} for peer in refused}
    lone = lone_accusations(peers | {"b"}, words)
    assert len(refused) == 1 or not any(accused == "b" for _, accused in lone)


# ---- the word


def test_a_word_comes_back_from_json_and_names_its_peer(words, identities):
    for word, identity in zip(words, identities, strict=True):
        assert parse_ready(word.to_json(), MAX_WEIGHT) == word
        assert word.peer_id == word.entry.peer_id == identity.peer_id


@pytest.mark.parametrize(
    "change",
    [
        {"base": dataclasses.replace(BASE, run_id="tiny-2")},
        {"base": dataclasses.replace(BASE, generation=1)},
        {"base": dataclasses.replace(BASE, epoch=8)},
        {"base": dataclasses.replace(BASE, state_root="cd" * 32)},
        {"contribution_id": "c9"},
        {"weight": 11},
        {"reduces": False},
        {"signature": base64.b64encode(b"x" * 256).decode()},
        {"signature": ""},
        {"public_key": ""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_word_is_not_signed(words, change):
    with pytest.raises(MisbehavedError):
        parse_ready(dataclasses.replace(words[0], **change).to_json(), MAX_WEIGHT)


def test_a_word_under_anothers_key_is_not_signed(words):
    stolen = dataclasses.replace(words[0], public_key=words[1].public_key)
    with pytest.raises(MisbehavedError, match="not signed by its peer"):
        parse_ready(stolen.to_json(), MAX_WEIGHT)


@pytest.mark.parametrize("weight", [0, -1, MAX_WEIGHT + 1, 10**30])
def test_a_weight_that_is_none_is_refused_though_it_is_signed(identities, weight):
    word = sign_ready(identities[0], BASE, "c", weight, attempt=0, reduces=True)
    with pytest.raises(MisbehavedError):
        parse_ready(word.to_json(), MAX_WEIGHT)


JUNK = [None, 5, "x", [], {}, {"base": {}}, {"base": None, "weight": 1}]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_what_is_no_word_is_refused(junk):
    with pytest.raises(MisbehavedError):
        parse_ready(junk, MAX_WEIGHT)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Ready)])
@pytest.mark.parametrize("value", [None, -1.5, [], {}, "é", "\ud800", True, 10**400])
def test_a_field_of_another_kind_is_refused(words, field, value):
    if (field, value) == ("reduces", True):
        return
    with pytest.raises(MisbehavedError):
        parse_ready(words[0].to_json() | {field: value}, MAX_WEIGHT)


# ---- the group


def test_a_group_is_the_same_in_whatever_order_its_words_came(words):
    group = Group.close(BASE, words)
    again = Group.close(BASE, reversed(words))
    assert again.group_id == group.group_id
    assert again.entries == group.entries
    assert list(group.members) == sorted(group.members)
    assert group.weights == {word.peer_id: word.weight for word in words}


def test_only_those_who_can_be_dialled_reduce_unless_nobody_can(words):
    group = Group.close(BASE, words)
    assert set(group.reducers) == {word.peer_id for word in words[:3]}
    assert Group.close(BASE, words[3:]).reducers == (words[3].peer_id,)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_parts_are_all_elements_once_and_evenly(elements, count):
    group = Group(BASE, {}, tuple(f"r{i}" for i in range(count)))
    parts = group.parts(elements)
    assert [peer for peer, _ in parts] == list(group.reducers)
    covered = [i for _, place in parts for i in range(place.start, place.stop)]
    assert covered == list(range(elements))
    sizes = [place.stop - place.start for _, place in parts]
    assert max(sizes) - min(sizes) <= 1


# ---- the proposal


def proposal(words):
    return [word.to_json() for word in words]


def test_a_good_proposal_is_the_group_of_its_words(words):
    group = check_proposal(proposal(words), words[1], MAX_WEIGHT)
    assert group == Group.close(BASE, words)


@pytest.mark.parametrize(
    "body", [None, 5, "abc", b"abc", {}, [], [{}], [None], {"0": {}}], ids=repr
)
def test_what_is_no_list_of_words_is_refused(words, body):
    with pytest.raises(MisbehavedError):
        check_proposal(body, words[0], MAX_WEIGHT)


def test_a_proposal_without_us_or_with_another_word_of_ours_is_refused(words, identities):
    other = sign_ready(identities[0], BASE, "older", 10, attempt=0, reduces=True)
    for members in (words[1:], [other, *words[1:]]):
        with pytest.raises(MisbehavedError, match="leaves out whom it answers"):
            check_proposal(proposal(members), words[0], MAX_WEIGHT)


def test_a_proposal_that_names_a_peer_twice_is_refused(words, identities):
    again = sign_ready(identities[2], BASE, "another", 5, attempt=0, reduces=True)
    for twice in (words[2], again):
        with pytest.raises(MisbehavedError, match="names a peer twice"):
            check_proposal(proposal([*words, twice]), words[0], MAX_WEIGHT)


@pytest.mark.parametrize("change", [{"epoch": 6}, {"run_id": "tiny-2"}, {"state_root": "cd" * 32}])
def test_a_proposal_of_peers_on_another_base_is_refused(words, identities, change):
    elsewhere = dataclasses.replace(BASE, **change)
    stray = sign_ready(identities[1], elsewhere, "c1", 10, attempt=0, reduces=True)
    with pytest.raises(MisbehavedError, match="mixes peers of different states"):
        check_proposal(proposal([words[0], stray]), words[0], MAX_WEIGHT)


def test_a_proposal_with_a_forged_or_heavy_word_is_refused(words, identities):
    forged = dataclasses.replace(words[1], weight=99)
    heavy = sign_ready(identities[1], BASE, "c1", MAX_WEIGHT + 1, attempt=0, reduces=True)
    for word in (forged, heavy):
        with pytest.raises(MisbehavedError):
            check_proposal(proposal([words[0], word]), words[0], MAX_WEIGHT)


def test_a_proposal_that_is_too_large_is_refused_before_it_is_verified(words):
    body = proposal(words)[:1] * (MAX_GROUP + 1)
    with pytest.raises(MisbehavedError, match="no list of members"):
        check_proposal(body, words[0], MAX_WEIGHT)


# ---- closing


def closed(words, unreachable, doubted=()):
    by_peer = {word.peer_id: word for word in words}
    mine = words[0]
    said = {peer: frozenset() for peer in by_peer} | unreachable
    return close(mine, by_peer, said, doubted, last_group=()).members


def test_all_who_reach_each_other_are_in_the_group(words):
    assert set(closed(words, {})) == {word.peer_id for word in words}


def test_whose_word_is_doubted_stays_outside(words):
    assert words[1].peer_id not in closed(words, {}, doubted={words[1].peer_id})


def test_whom_the_leader_cannot_reach_stays_outside_whoever_of_them_says_so(words):
    leader, other = words[0].peer_id, words[1].peer_id
    assert other not in closed(words, {leader: frozenset({other})})
    assert other not in closed(words, {other: frozenset({leader})})


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.sets(st.integers(1, 3)))
def test_a_closed_group_holds_its_leader_and_nobody_who_cannot_reach_another(words, links, doubted):
    said = {word.peer_id: set() for word in words}
    for one, other in links:
        said[words[one].peer_id].add(words[other].peer_id)
    members = closed(words, said, {words[i].peer_id for i in doubted})
    assert words[0].peer_id in members
    reducing = {peer for peer, word in members.items() if word.reduces}
    for one in members:
        for other in said[one] & reducing - {one}:
            raise AssertionError(f"{one} cannot reach {other}")
