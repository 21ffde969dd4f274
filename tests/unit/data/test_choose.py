"""A peer's choice of shards: within the budget, by the filters, least claimed first."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.data.choose import Preferences, choose
from peer.data.index import DataIndex, Shard

parts = st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=2)
names = parts.map(lambda found: "x" + "/".join(found))


def shard(name, size=1, split="train"):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Shard(name=name, format="text", bytes=size, examples=1, sha256=digest, split=split)


@st.composite
def cases(draw):
    """Draw an index, the others' claims, and preferences whose patterns are prefixes and a star."""
    sizes = draw(st.dictionaries(names, st.integers(1, 100), min_size=1, max_size=12))
    shards = [shard(name, size) for name, size in sizes.items()]
    index = DataIndex(name="tiny", shards=(*shards, shard("held", 1, "heldout")))
    claims = draw(st.dictionaries(st.sampled_from([*sizes, "gone"]), st.integers(0, 4)))
    patterns = st.lists(names.map(lambda name: name[:2] + "*"), max_size=2)
    preferences = Preferences(
        include=draw(patterns),
        exclude=draw(patterns),
        max_bytes=draw(st.none() | st.integers(0, 400)),
    )
    return index, claims, preferences


def wanted(index, preferences):
    def matches(shard, patterns):
        return any(shard.name.startswith(pattern[:-1]) for pattern in patterns)

    return [
        shard
        for shard in index.split("train")
        if (not preferences.include or matches(shard, preferences.include))
        and not matches(shard, preferences.exclude)
    ]


@given(cases())
def test_the_budget_is_never_exceeded(case):
    chosen = choose("me", *case)
    if case[2].max_bytes is not None:
        assert sum(choice.shard.bytes for choice in chosen) <= case[2].max_bytes


@given(cases())
def test_only_what_the_filters_leave_is_chosen_and_each_once(case):
    index, _, preferences = case
    chosen = [choice.shard for choice in choose("me", *case)]
    assert len({shard.name for shard in chosen}) == len(chosen)
    assert all(shard in wanted(index, preferences) for shard in chosen)
    if preferences.max_bytes is None:
        assert len(chosen) == len(wanted(index, preferences))


@given(cases())
def test_the_least_claimed_come_first_and_only_what_does_not_fit_is_left(case):
    index, claims, preferences = case
    chosen = [choice.shard for choice in choose("me", *case)]
    counts = [claims.get(shard.name, 0) for shard in chosen]
    assert counts == sorted(counts)
    for left in (shard for shard in wanted(index, preferences) if shard not in chosen):
        before = [s for s in chosen if claims.get(s.name, 0) <= claims.get(left.name, 0)]
        assert sum(shard.bytes for shard in before) + left.bytes > preferences.max_bytes


@given(cases(), st.randoms(use_true_random=False))
def test_the_same_arguments_give_the_same_answer_in_whatever_order(case, random):
    index, claims, preferences = case
    shards = list(index.shards)
    random.shuffle(shards)
    turned = index.model_copy(update={"shards": tuple(shards)})
    again = dict(reversed(claims.items()))
    assert choose("me", index, claims, preferences) == choose("me", turned, again, preferences)


@given(cases())
def test_every_choice_has_a_reason(case):
    _, claims, preferences = case
    for choice in choose("me", *case):
        assert choice.reason
        if preferences.max_bytes is not None:
            assert f"{claims.get(choice.shard.name, 0)} other peers claim it" in choice.reason


def test_with_equal_claims_many_peers_cover_every_shard():
    shards = [shard(f"{i}.txt", 10) for i in range(8)]
    index = DataIndex(name="tiny", shards=(*shards, shard("held", 1, "heldout")))
    budget = Preferences(max_bytes=10)
    taken = {choose(f"peer {i}", index, {}, budget)[0].shard.name for i in range(80)}
    assert taken == {shard.name for shard in shards}


def test_claims_of_others_send_a_peer_elsewhere():
    index = DataIndex(name="tiny", shards=(shard("a"), shard("b"), shard("held", 1, "heldout")))
    for claimed, free in ("ab", "ba"):
        [choice] = choose("me", index, {claimed: 3, free: 1}, Preferences(max_bytes=1))
        assert choice.shard.name == free


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), {"a/x.txt", "a/y.txt", "B.txt"}),
        (("a/*",), (), {"a/x.txt", "a/y.txt"}),
        (("A/*",), (), set()),
        (("[aB]*.txt",), ("?.txt",), {"a/x.txt", "a/y.txt"}),
        ((), ("*",), set()),
        (("*x*", "B*"), ("a/*",), {"B.txt"}),
        (("held",), (), set()),
    ],
)
def test_patterns_are_those_of_a_shell_with_case(include, exclude, expected):
    shards = map(shard, ["a/x.txt", "a/y.txt", "B.txt"])
    index = DataIndex(name="tiny", shards=(*shards, shard("held", 1, "heldout")))
    chosen = choose("me", index, {}, Preferences(include=include, exclude=exclude))
    assert {choice.shard.name for choice in chosen} == expected
