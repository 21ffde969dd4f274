"""Only bytes that have their hash come out of a source."""

import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.data.source import ShardSources
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
