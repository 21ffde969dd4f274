"""The stream: every row once a pass, and exactly the same ones wherever it is resumed."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.data.index import Shard
from peer.data.stream import Cursor, RowKey, Stream
from peer.errors import ConfigurationError, DamagedError

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def shard(number):
    digest = f"{number:064x}"
    return Shard(name=f"{number}.txt", format="text", bytes=1, examples=1, sha256=digest)


class Data:
    """Shards by number, each with so many rows; the damaged ones cannot be opened."""

    def __init__(self, sizes, damaged=()):
        self.sizes = sizes
        self.damaged = set(damaged)
        self.shards = [shard(number) for number in range(len(sizes))]
        self.quarantined = []
        self.opened = 0

    def rows(self, number):
        return [f"{number}:{row}" for row in range(self.sizes[number])]

    def open(self, shard):
        self.opened += 1
        if self.opened > 1000:
            raise AssertionError("the stream opens shards without end")
        number = int(shard.sha256, 16)
        if number in self.damaged:
            raise DamagedError(f"{shard.name} is damaged")
        return self.rows(number)

    def stream(self, cursor=None, seed=b"seed", shards=None):
        return Stream(
            self.shards if shards is None else shards,
            self.open,
            seed,
            cursor,
            lambda shard, reason: self.quarantined.append((shard.name, reason)),
        )

    def all_rows(self, numbers=None):
        numbers = range(len(self.sizes)) if numbers is None else numbers
        return sorted(row for number in numbers for row in self.rows(number))


def rows(taken):
    return [row for _, row in taken]


def through_json(cursor):
    return Cursor.from_json(json.loads(json.dumps(cursor.to_json())))


@settings(deadline=None)
@given(sizes)
def test_each_pass_holds_every_row_exactly_once(sizes):
    data = Data(sizes)
    stream = data.stream()
    for number in range(3):
        taken = stream.take(sum(sizes))
        assert sorted(rows(taken)) == data.all_rows()
        assert {key.pass_number for key, _ in taken} == {number}
        assert stream.cursor == Cursor(number + 1, stream.cursor.shards, 0, 0)


@settings(deadline=None)
@given(sizes)
def test_a_key_names_the_row_it_comes_with(sizes):
    data = Data(sizes)
    for key, row in data.stream().take(2 * sum(sizes)):
        assert row == data.rows(int(key.shard_sha256, 16))[key.row]


@settings(deadline=None)
@given(sizes, st.data())
def test_a_stream_resumed_anywhere_continues_the_same_sequence(sizes, draw):
    total = 3 * sum(sizes)
    cut = draw.draw(st.integers(0, total))
    data = Data(sizes)
    whole = data.stream().take(total)
    first = data.stream()
    assert first.take(cut) == whole[:cut]
    resumed = data.stream(through_json(first.cursor))
    assert resumed.cursor == first.cursor
    assert resumed.take(total - cut) == whole[cut:]
    assert first.take(total - cut) == whole[cut:]


@settings(deadline=None)
@given(sizes, st.lists(st.integers(0, 20), max_size=8))
def test_rows_taken_in_parts_are_the_rows_taken_at_once(sizes, counts):
    data = Data(sizes)
    parts = data.stream()
    taken = [row for count in counts for row in parts.take(count)]
    assert taken == data.stream().take(sum(counts))


@settings(deadline=None)
@given(sizes, st.data())
def test_a_stream_sent_back_gives_the_same_rows_again(sizes, draw):
    total = 2 * sum(sizes)
    stream = Data(sizes).stream()
    stream.take(draw.draw(st.integers(0, total)))
    place = stream.cursor
    once = stream.take(total)
    stream.seek(place)
    assert stream.take(total) == once


def test_the_order_is_another_in_each_pass_and_for_each_seed():
    data = Data([20, 20, 20])
    stream = data.stream()
    first, second = rows(stream.take(60)), rows(stream.take(60))
    other = rows(data.stream(seed=b"other").take(60))
    assert len({tuple(order) for order in (first, second, other, data.all_rows())}) == 4
    assert rows(data.stream().take(60)) == first


def test_the_order_of_shards_is_another_in_other_passes():
    stream = Data([2] * 6).stream()
    orders = set()
    for _ in range(5):
        orders.add(stream.cursor.shards)
        stream.take(12)
    assert len(orders) == 5


def test_the_order_of_a_seed_is_the_same_in_every_release():
    taken = Data([5, 3]).stream().take(8)
    assert rows(taken) == ["1:0", "1:2", "1:1", "0:2", "0:1", "0:4", "0:0", "0:3"]
    assert taken[0][0].seed() == 0x9E675C8626CD8E322C804F7494112BEA


def test_the_seed_of_a_row_is_its_own():
    keys = [RowKey(p, f"{s:064x}", r) for p in range(3) for s in range(3) for r in range(30)]
    assert len({key.seed() for key in keys}) == len(keys)
    assert all(0 <= key.seed() < 2**128 for key in keys)


@pytest.mark.parametrize("damaged", [{0}, {1}, {2}, {3}, {0, 3}, {0, 1, 2}])
def test_a_damaged_shard_is_quarantined_with_a_reason_and_the_others_go_on(damaged):
    data = Data([4, 4, 4, 4], damaged)
    good = set(range(4)) - damaged
    stream = data.stream()
    for _ in range(3):
        assert sorted(rows(stream.take(4 * len(good)))) == data.all_rows(good)
    assert sorted(data.quarantined) == [
        (f"{n}.txt", f"{n}.txt is damaged") for n in sorted(damaged)
    ]


@pytest.mark.parametrize("cut", range(12))
def test_a_shard_damaged_after_the_cut_is_left_out_of_the_rest(cut):
    data = Data([4, 4, 4])
    whole = data.stream().take(12)
    first = data.stream()
    first.take(cut)
    data.damaged = {1}
    after = data.stream(through_json(first.cursor))
    left = [row for row in rows(whole[cut:]) if not row.startswith("1:")]
    assert rows(after.take(len(left))) == left
    assert sorted(rows(after.take(8))) == data.all_rows({0, 2})
    assert data.quarantined == [("1.txt", "1.txt is damaged")]


def test_a_stream_resumed_after_a_quarantine_continues_the_same_sequence():
    data = Data([4, 4, 4], {1})
    whole = data.stream().take(24)
    for cut in range(24):
        first = data.stream()
        first.take(cut)
        assert data.stream(through_json(first.cursor)).take(24 - cut) == whole[cut:]


def test_with_no_usable_shard_left_the_person_is_told():
    data = Data([4, 4], {0, 1})
    stream = data.stream()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="none of the chosen shards can be trained on"):
            stream.take(1)
    assert len(data.quarantined) == 2


def test_with_no_shard_chosen_the_person_is_told():
    with pytest.raises(ConfigurationError, match="none of the chosen shards can be trained on"):
        Data([]).stream()


def test_shards_without_rows_are_passed_over():
    data = Data([0, 3, 0])
    stream = data.stream()
    assert sorted(rows(stream.take(3))) == data.all_rows({1})
    assert sorted(rows(stream.take(3))) == data.all_rows({1})


def test_with_no_row_in_any_shard_the_person_is_told():
    with pytest.raises(ConfigurationError, match="none of the chosen shards can be trained on"):
        Data([0, 0]).stream().take(1)


def test_a_shard_added_to_the_choice_comes_with_the_next_pass():
    data = Data([4, 4, 4])
    first = data.stream(shards=data.shards[:2])
    begun = rows(first.take(3))
    after = data.stream(through_json(first.cursor))
    assert sorted(begun + rows(after.take(5))) == data.all_rows({0, 1})
    assert sorted(rows(after.take(12))) == data.all_rows()


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_shard_dropped_from_the_choice_is_left_out_without_blame(dropped):
    data = Data([4, 4, 4])
    first = data.stream()
    begun = rows(first.take(2))
    kept = [shard for number, shard in enumerate(data.shards) if number != dropped]
    after = data.stream(through_json(first.cursor), shards=kept)
    others = {0, 1, 2} - {dropped}
    left = set(data.all_rows(others)) - set(begun)
    assert sorted(rows(after.take(len(left)))) == sorted(left)
    assert sorted(rows(after.take(8))) == data.all_rows(others)
    assert data.quarantined == []


def test_a_wholly_new_choice_begins_with_a_new_pass():
    data = Data([4, 4])
    first = data.stream(shards=data.shards[:1])
    first.take(2)
    after = data.stream(through_json(first.cursor), shards=data.shards[1:])
    taken = after.take(4)
    assert sorted(rows(taken)) == data.all_rows({1})
    assert {key.pass_number for key, _ in taken} == {1}


def test_an_error_of_our_own_is_not_taken_for_a_damaged_shard():
    data = Data([4, 4])

    def broken(_shard):
        raise RuntimeError("a bug")

    stream = Stream(data.shards, broken, b"seed")
    with pytest.raises(RuntimeError, match="a bug"):
        stream.take(1)


def test_the_next_shard_is_opened_ahead_and_no_other():
    data, opened, second = Data([2, 2, 2]), [], threading.Event()

    def open_shard(shard):
        opened.append(shard.sha256)
        if len(opened) == 2:
            second.set()
        return data.open(shard)

    stream = Stream(data.shards, open_shard, b"seed")
    stream.take(1)
    assert second.wait(30)
    assert opened == list(stream.cursor.shards[:2])
