"""Only bytes that have their hash come out of a source, and only the run's leave the machine."""

import asyncio
import hashlib
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.data import source
from peer.data.index import DataIndex
from peer.data.source import PeerShards, PublicShards, ShardSources
from peer.errors import DamagedError

DATA = b"To be, or not to be, that is the question: " * 20


@pytest.fixture
def shard(make_shard):
    return make_shard("deep/a.txt", DATA)


@pytest.fixture(params=["plain", "xz"])
def write(request, tmp_path):
    """Write data as the shard's file into a folder and return the folder."""

    def write(data, folder="one"):
        path = tmp_path / folder / "deep" / "a.txt"
        path.parent.mkdir(parents=True)
        if request.param == "plain":
            path.write_bytes(data)
        else:
            path.with_name("a.txt.xz").write_bytes(lzma.compress(data))
        return tmp_path / folder

    return write


@pytest.fixture(scope="session")
def sources_of(tmp_path_factory, make_shard):
    """Return the sources that hold `data` as the file of a shard of DATA, and the shard."""
    folder = tmp_path_factory.mktemp("source")

    def make(data, name="a.txt"):
        (folder / name).write_bytes(data)
        return ShardSources([folder]), make_shard("a.txt", DATA)

    return make


def test_a_shard_is_read_plain_or_packed(write, shard):
    assert ShardSources([write(DATA)]).read(shard) == DATA


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"!", DATA.lower(), DATA * 1000])
def test_other_bytes_are_refused_by_path(data, write, shard):
    folder = write(data)
    with pytest.raises(DamagedError, match=f"{folder}/deep/a.txt is not the file that the data in"):
        ShardSources([folder]).read(shard)


@settings(deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_flipped_bit_is_refused(sources_of, place, mask):
    sources, shard = sources_of(DATA[:place] + bytes([DATA[place] ^ mask]) + DATA[place + 1 :])
    with pytest.raises(DamagedError, match="is not the file"):
        sources.read(shard)


@settings(deadline=None)
@given(st.integers(0, len(lzma.compress(DATA)) - 1), st.integers(1, 255))
def test_a_damaged_packed_shard_never_gives_other_bytes(tmp_path_factory, make_shard, place, mask):
    folder = tmp_path_factory.getbasetemp()
    packed = lzma.compress(DATA)
    damaged = packed[:place] + bytes([packed[place] ^ mask]) + packed[place + 1 :]
    for data in (damaged, packed[:place]):
        (folder / "packed.txt.xz").write_bytes(data)
        try:
            assert ShardSources([folder]).read(make_shard("packed.txt", DATA)) == DATA
        except DamagedError:
            continue


def test_a_good_file_is_found_behind_a_damaged_one(write, shard):
    assert ShardSources([write(b"damaged"), write(DATA, "two")]).read(shard) == DATA
    assert ShardSources([write(DATA, "three"), write(b"damaged", "four")]).read(shard) == DATA


@pytest.mark.parametrize("name", ["missing.txt", "x" * 255, "folder"])
def test_a_shard_that_is_nowhere_is_named(name, tmp_path, make_shard):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DamagedError, match=f"{name} is in none of the run's data folders"):
        ShardSources([tmp_path, tmp_path / "gone"]).read(make_shard(name))


def test_the_demo_data_is_a_source_of_every_run(demo_shards, tmp_path):
    for shard, text in demo_shards:
        assert ShardSources([tmp_path]).read(shard).decode() == text


@pytest.fixture
def index(shard, make_shard):
    return DataIndex(name="tiny", shards=(shard, make_shard("held.txt", b"held", split="heldout")))


@pytest.fixture
def peers(index, tmp_path):
    """Return a fallback to peers that give `data` and note what they are asked for."""

    def make(data):
        asked = []

        def fetch(shard):
            asked.append(shard.name)
            if data is None:
                return None
            path = tmp_path / "kept" / shard.sha256
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            return path

        return PeerShards(index, tmp_path / "kept", fetch), asked

    return make


def test_a_shard_that_no_folder_has_comes_from_peers_once(peers, shard, tmp_path):
    fallback, asked = peers(DATA)
    sources = ShardSources([tmp_path], fallback)
    assert sources.read(shard) == sources.read(shard) == DATA
    assert asked == [shard.name]


def test_a_shard_that_a_folder_has_is_not_asked_for(peers, shard, write):
    fallback, asked = peers(DATA)
    assert ShardSources([write(DATA)], fallback).read(shard) == DATA
    assert asked == []


def test_a_damaged_shard_is_taken_from_peers_instead(peers, shard, write, tmp_path):
    fallback, asked = peers(DATA)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / shard.sha256).write_bytes(b"damaged")
    assert ShardSources([write(b"damaged")], fallback).read(shard) == DATA
    assert asked == [shard.name]


@pytest.mark.parametrize("data", [None, b"", DATA[:-1], DATA + b"!"])
def test_what_peers_do_not_give_rightly_is_missing(data, peers, shard, tmp_path):
    fallback, asked = peers(data)
    with pytest.raises(
        DamagedError, match="in none of the run's data folders, and no peer gave it"
    ):
        ShardSources([tmp_path], fallback).read(shard)
    assert asked == [shard.name]


def test_not_even_the_hash_of_a_private_file_leaves(peers, make_shard, tmp_path):
    fallback, asked = peers(DATA)
    with pytest.raises(DamagedError):
        ShardSources([tmp_path], fallback).read(make_shard("deep/a.txt", b"a secret"))
    assert asked == []


def find(public, sha256):
    return asyncio.run(public.find(sha256))


def test_a_shard_is_given_plain_and_unpacked(write, shard, index, tmp_path):
    public = PublicShards(index, [write(DATA)], tmp_path / "kept")
    for _ in range(2):
        path = find(public, shard.sha256)
        assert path.read_bytes() == DATA
    assert [p.name for p in tmp_path.glob("kept/*")] in ([], [shard.sha256])


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"!", DATA.lower(), DATA * 1000])
def test_a_file_that_was_changed_stays_here(data, write, shard, index, tmp_path):
    public = PublicShards(index, [write(data)], tmp_path / "kept")
    assert find(public, shard.sha256) is None
    assert not list(tmp_path.glob("kept/*"))


def test_a_file_that_is_changed_after_it_was_given_stays_here(shard, index, tmp_path):
    path = tmp_path / "one" / shard.name
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    public = PublicShards(index, [tmp_path / "one"], tmp_path / "kept")
    assert find(public, shard.sha256) == path
    path.write_bytes(DATA.swapcase())
    assert find(public, shard.sha256) is None
    path.write_bytes(DATA)
    assert find(public, shard.sha256) == path


def test_a_file_is_read_once_until_it_changes(shard, index, tmp_path, monkeypatch):
    path = tmp_path / "one" / shard.name
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    public = PublicShards(index, [tmp_path / "one"], tmp_path / "kept")
    assert find(public, shard.sha256) == path
    monkeypatch.setattr("peer.data.source.hashlib.sha256", None)
    assert find(public, shard.sha256) == path


def test_of_a_packed_file_no_more_is_unpacked_than_the_shard_may_hold(
    shard, index, tmp_path, monkeypatch
):
    path = tmp_path / "one" / f"{shard.name}.xz"
    path.parent.mkdir(parents=True)
    path.write_bytes(lzma.compress(bytes(10_000_000)))
    unpacked = []
    slices = source._slices

    async def counted(file):
        async for piece in slices(file):
            unpacked.append(len(piece))
            yield piece

    monkeypatch.setattr(source, "_slices", counted)
    public = PublicShards(index, [tmp_path / "one"], tmp_path / "kept")
    assert find(public, shard.sha256) is None
    assert sum(unpacked) <= shard.bytes + (1 << 20)
    assert not list(tmp_path.glob("kept/*"))


def test_what_the_index_does_not_name_is_not_given_whatever_is_asked(index, shard, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / shard.name).write_bytes(DATA)
    (tmp_path / "secret.txt").write_bytes(b"a secret")
    (tmp_path / "kept").mkdir()
    sha256 = hashlib.sha256(b"a secret").hexdigest()
    (tmp_path / "kept" / sha256).write_bytes(b"a secret")
    public = PublicShards(index, [tmp_path], tmp_path / "kept")
    for asked in (sha256, "secret.txt", "../secret.txt", str(tmp_path / "secret.txt"), ""):
        assert find(public, asked) is None


def test_a_shard_from_peers_is_given_on(shard, index, tmp_path):
    (tmp_path / "kept").mkdir()
    kept = tmp_path / "kept" / shard.sha256
    kept.write_bytes(DATA)
    public = PublicShards(index, [], tmp_path / "kept")
    assert find(public, shard.sha256) == kept
    kept.write_bytes(DATA[:-1])
    assert find(public, shard.sha256) is None


def test_the_demo_data_is_given_unpacked(demo_shards, tmp_path):
    for number, (shard, text) in enumerate(demo_shards):
        held = shard.model_copy(update={"split": "heldout", "name": "other"})
        index = DataIndex(name="demo", shards=(shard, held.model_copy(update={"sha256": "0" * 64})))
        path = find(PublicShards(index, [], tmp_path / str(number)), shard.sha256)
        assert path.read_text(encoding="utf-8") == text


def test_without_room_a_packed_shard_is_not_given(shard, index, tmp_path):
    path = tmp_path / "one" / f"{shard.name}.xz"
    path.parent.mkdir(parents=True)
    path.write_bytes(lzma.compress(DATA))
    (tmp_path / "kept").write_text("a file in the way")
    public = PublicShards(index, [tmp_path / "one"], tmp_path / "kept")
    assert find(public, shard.sha256) is None


def test_many_who_ask_at_once_get_the_same(write, shard, index, tmp_path):
    public = PublicShards(index, [write(DATA)], tmp_path / "kept")

    async def go():
        return await asyncio.gather(*(public.find(shard.sha256) for _ in range(8)))

    paths = asyncio.run(go())
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == DATA
