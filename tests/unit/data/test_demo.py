"""The data that comes with ctpeer is what its indices say."""

import hashlib
import lzma

import pytest

from peer.data.demo import DEMO_PATH, data_folder, demo_names
from peer.data.folder import read_index
from peer.data.reader import read_examples
from peer.data.source import ShardSources
from peer.errors import UsageError

HELD_OUT = {
    "chinese-classics": {"mencius.txt"},
    "shakespeare": {"macbeth.txt", "tempest.txt"},
}


def test_the_demo_data_sets_are_found_by_name():
    assert demo_names() == sorted(HELD_OUT)
    for name in demo_names():
        assert read_index(data_folder(f"demo:{name}")).name == name


def test_an_unknown_demo_is_refused_with_the_known_ones():
    with pytest.raises(
        UsageError, match=r"'demo:milton'; there are demo:chinese-classics, demo:sh"
    ):
        data_folder("demo:milton")


def test_what_is_no_demo_is_a_path(tmp_path):
    assert data_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", HELD_OUT)
def test_every_demo_shard_has_its_size_and_hash(name):
    folder = DEMO_PATH / name
    for shard in read_index(folder).shards:
        data = lzma.decompress((folder / f"{shard.name}.xz").read_bytes())
        assert len(data) == shard.bytes
        assert hashlib.sha256(data).hexdigest() == shard.sha256
        assert ShardSources(()).read(shard) == data
        assert len(read_examples(shard, data)) == shard.examples


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_demo_folder_holds_its_index_and_shards_only(name):
    folder = DEMO_PATH / name
    shards = {f"{shard.name}.xz" for shard in read_index(folder).shards}
    assert {path.name for path in folder.iterdir()} == shards | {"index.json"}


@pytest.mark.parametrize(("name", "expected"), HELD_OUT.items())
def test_the_known_works_are_held_out_and_no_copy_of_them_trained_on(name, expected):
    index = read_index(DEMO_PATH / name)
    heldout = index.split("heldout")
    assert {shard.name for shard in heldout} == expected
    trained = {shard.sha256 for shard in index.split("train")}
    assert trained.isdisjoint(shard.sha256 for shard in heldout)


@pytest.mark.parametrize(
    ("file", "words"),
    [("macbeth.txt", "tale told by an idiot"), ("tempest.txt", "brave new world")],
)
def test_a_held_out_play_is_the_one_it_is_called(file, words):
    index = read_index(DEMO_PATH / "shakespeare")
    texts = {s.name: ShardSources(()).read(s).decode().lower() for s in index.shards}
    assert [name for name, text in texts.items() if words in " ".join(text.split())] == [file]


def test_the_demo_data_is_enough_to_learn_from_and_small_enough_to_ship():
    index = read_index(DEMO_PATH / "shakespeare")
    assert sum(shard.bytes for shard in index.split("train")) > 4_000_000
    assert sum(shard.bytes for shard in index.split("heldout")) > 100_000
    files = [path for path in DEMO_PATH.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if "__pycache__" not in path.parts) < 3_000_000
    assert (DEMO_PATH / "ATTRIBUTION.md").exists()
