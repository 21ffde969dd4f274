"""Claims fit their record, junk claims nothing, and choosing by them evens coverage out."""

import base64
import hashlib
import random
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peer.data.choose import Preferences, choose
from peer.data.claims import MAX_CHARS, count, decode, encode
from peer.data.index import DataIndex, Shard


def shard(name, size=1, split="train"):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Shard(name=name, format="text", bytes=size, examples=1, sha256=digest, split=split)


def index_of(*sizes):
    shards = (shard(f"{i}.txt", size) for i, size in enumerate(sizes))
    return DataIndex(name="tiny", shards=(shard("held", 1, "heldout"), *shards))


def names_of(index):
    return [shard.name for shard in index.split("train")]


INDEX = index_of(*[1] * 20)
LARGE = index_of(*[1] * 40_000)


def text_of(raw):
    return base64.b64encode(zlib.compress(raw)).decode()


@given(st.sets(st.sampled_from(names_of(INDEX))))
def test_a_claim_says_which_shards(names):
    assert decode(encode("me", INDEX, names), INDEX) == names


def test_held_out_and_unknown_names_are_not_claimed():
    assert decode(encode("me", INDEX, ["held", "gone", "3.txt"]), INDEX) == {"3.txt"}


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0, 1))
@example(0, 0.0)
@example(0, 1.0)
def test_a_claim_on_many_shards_fits_its_record_and_invents_nothing(seed, share):
    chance = random.Random(seed)
    names = {name for name in names_of(LARGE) if chance.random() < share}
    text = encode("me", LARGE, names)
    assert len(text) <= MAX_CHARS
    claimed = decode(text, LARGE)
    assert claimed <= names
    assert len(claimed) >= min(len(names), 1000)


def test_peers_whose_claims_do_not_fit_claim_different_parts():
    names = names_of(LARGE)[::2][:9000] + names_of(LARGE)[20_001::3]
    random_half = [n for n in names if hashlib.sha256(n.encode()).digest()[0] & 1]
    claimed = [decode(encode(f"peer {i}", LARGE, random_half), LARGE) for i in range(12)]
    assert all(set(some) < set(random_half) for some in claimed)
    assert set.union(*map(set, claimed)) == set(random_half)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        "AAAA",
        text_of(b""),
        text_of(b"\0\0\0"),
        text_of(b"\0\0\0\x14\1"),
        text_of(b"\xff\xff\xff\xff\1"),
        text_of(b"\0\0\0\0\0\0\0\0\1"),
        text_of(b"\0\0\0\0\0\0\x10"),
        text_of(bytes(4) + b"\xff" * 10_000_000)[:MAX_CHARS],
        text_of(bytes(4) + b"\xff" * 100_000),
        text_of(b"\0\0\0\0\1") + "\n",
        base64.b64encode(zlib.compress(b"\0\0\0\0\1") + b"more").decode(),
        base64.b64encode(zlib.compress(b"\0\0\0\0\1")[:-1]).decode(),
        "é" * 20,
        "A" * (MAX_CHARS + 1),
    ],
    ids=range(16),
)
def test_junk_claims_nothing(text):
    assert decode(text, INDEX) == frozenset()


def test_a_claim_larger_than_its_record_claims_nothing():
    bits = random.Random(0).randbytes(40_000 // 8)
    assert len(text_of(bytes(4) + bits)) > MAX_CHARS
    assert decode(text_of(bytes(4) + bits), LARGE) == frozenset()


@given(st.text(max_size=100) | st.binary(max_size=50).map(text_of))
def test_whatever_comes_only_known_shards_are_claimed(text):
    assert decode(text, INDEX) <= set(names_of(INDEX))


def test_others_claims_are_counted_and_ones_own_is_not():
    claims = {
        "me": encode("me", INDEX, ["0.txt", "1.txt"]),
        "a": encode("a", INDEX, ["1.txt", "2.txt"]),
        "b": encode("b", INDEX, ["2.txt"]),
        "junk": "junk",
    }
    assert dict(count(claims, INDEX, "me")) == {"1.txt": 1, "2.txt": 2}


class Swarm:
    """Peers that choose by the claims they see; a claim is a lease that ends by itself."""

    def __init__(self, index, budget, lease=10):
        self.index, self.budget, self.lease = index, budget, lease
        self.records = {}
        self.now = 0

    def claims(self):
        return {peer: text for peer, (text, end) in self.records.items() if end > self.now}

    def choose(self, peer):
        claims = count(self.claims(), self.index, peer)
        chosen = choose(peer, self.index, claims, Preferences(max_bytes=self.budget))
        names = [choice.shard.name for choice in chosen]
        self.records[peer] = (encode(peer, self.index, names), self.now + self.lease)

    def coverage(self):
        counts = count(self.claims(), self.index, "nobody")
        return [counts[name] for name in names_of(self.index)]


peers = st.lists(st.text("abcdef", min_size=3, max_size=6), min_size=8, max_size=8, unique=True)
orders = st.lists(st.permutations(range(8)), min_size=3, max_size=5)


@settings(max_examples=50)
@given(peers, orders, st.integers(1, 10))
def test_eight_peers_with_a_quarter_each_cover_all_shards_evenly(names, orders, quarter):
    swarm = Swarm(index_of(*[7] * (4 * quarter)), 7 * quarter)
    for order in orders:
        for peer in order:
            swarm.choose(names[peer])
        coverage = swarm.coverage()
        assert sum(coverage) == 8 * quarter
        assert min(coverage) >= 1
        assert max(coverage) - min(coverage) <= 1


@settings(max_examples=50)
@given(peers, orders, st.lists(st.integers(50, 100), min_size=16, max_size=40))
def test_of_shards_of_unequal_size_none_is_left_out(names, orders, sizes):
    swarm = Swarm(index_of(*sizes), sum(sizes) // 4 + 100)
    for order in orders:
        for peer in order:
            swarm.choose(names[peer])
    # Not as evenly: small ones fill what a budget has left.
    assert min(swarm.coverage()) >= 1


@settings(max_examples=50)
@given(peers, st.permutations(range(8)), st.integers(1, 6))
def test_the_shards_of_the_dead_are_taken_over_when_their_leases_end(names, order, dead):
    index = index_of(*[1] * 8)
    swarm = Swarm(index, 2)
    for peer in names:
        swarm.choose(peer)
    alive = [names[i] for i in order[dead:]]
    swarm.now = 5
    for peer in alive:
        swarm.choose(peer)
    swarm.now = 12  # the dead renewed nothing since 0; the others' leases still hold
    assert set(swarm.claims()) == set(alive)
    for peer in alive:
        swarm.choose(peer)
    coverage = swarm.coverage()
    assert sum(coverage) == 2 * len(alive)
    assert max(coverage) - min(coverage) <= 1
    assert min(coverage) >= min(1, len(alive) // 4)
