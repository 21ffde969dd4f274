"""Indexing a folder of one's own text."""

import hashlib
import re

import pytest

from peer.data.folder import INDEX_NAME, IndexOptions, index_folder, read_index, scan
from peer.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path, to_csv, to_parquet):
    """Return a folder with a good file of each kind, and some that are no data."""
    files = {
        "a.txt": b"a text",
        "b.MD": b"# a heading",
        "deep/er/c.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
        "d.csv": to_csv(text=["one", "two", "three"]),
        "e.parquet": to_parquet(text=["one", "two", "three", "four"]),
        "image.png": b"no text",
        "index.json": b"{}",
        ".hidden.txt": b"hidden",
        ".git/config.txt": b"hidden",
    }
    for name, data in files.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "mine"


@pytest.fixture
def numbered(tmp_path):
    """Write so many text files and return their folder."""

    def make(count):
        for i in range(count):
            (tmp_path / f"{i:03}.txt").write_text(f"text {i}")
        return tmp_path

    return make


def heldout(index):
    return {shard.name for shard in index.split("heldout")}


def test_every_readable_file_becomes_a_shard_and_no_other(folder):
    index = index_folder(folder, IndexOptions())
    found = {shard.name: (shard.format, shard.examples) for shard in index.shards}
    assert found == {
        "a.txt": ("text", 1),
        "b.MD": ("text", 1),
        "deep/er/c.jsonl": ("jsonl", 2),
        "d.csv": ("csv", 3),
        "e.parquet": ("parquet", 4),
    }
    for shard in index.shards:
        data = (folder / shard.name).read_bytes()
        assert shard.bytes == len(data)
        assert shard.sha256 == hashlib.sha256(data).hexdigest()


def test_an_index_is_named_after_its_folder_unless_told(folder):
    assert index_folder(folder, IndexOptions()).name == "mine"
    told = index_folder(folder, IndexOptions(name="books", licence="MIT", attribution="me"))
    assert (told.name, told.licence, told.attribution) == ("books", "MIT", "me")


def test_an_index_written_into_its_folder_is_read_back(folder):
    index = index_folder(folder, IndexOptions())
    (folder / INDEX_NAME).write_bytes(index.to_bytes())
    assert read_index(folder) == index
    assert index_folder(folder, IndexOptions()) == index


def test_a_folder_without_an_index_is_told_how_to_make_one(tmp_path):
    with pytest.raises(ConfigurationError, match=r"ctpeer data index"):
        read_index(tmp_path)


def test_the_named_files_are_held_out(folder):
    assert heldout(index_folder(folder, IndexOptions(heldout=["deep/*", "a.*"]))) == {
        "a.txt",
        "deep/er/c.jsonl",
    }


@pytest.mark.parametrize(("count", "held"), [(2, 1), (19, 1), (39, 1), (40, 2), (100, 5)])
def test_one_file_in_twenty_is_held_out(count, held, numbered):
    assert len(heldout(index_folder(numbered(count), IndexOptions()))) == held


def test_one_more_file_moves_at_most_one_other_between_the_splits(numbered):
    before = heldout(index_folder(numbered(59), IndexOptions()))
    after = heldout(index_folder(numbered(60), IndexOptions()))
    assert len(before) == 2
    assert len(before & after) >= 1
    assert len(after) == 3


def test_a_copy_of_a_held_out_file_is_not_trained_on(numbered):
    folder = numbered(4)
    (folder / "copy.txt").write_bytes((folder / "000.txt").read_bytes())
    index = index_folder(folder, IndexOptions(heldout=["000.txt"]))
    held = {shard.sha256 for shard in index.split("heldout")}
    assert held.isdisjoint(shard.sha256 for shard in index.split("train"))


def test_a_pattern_that_names_no_file_is_refused(folder):
    with pytest.raises(ConfigurationError, match=r"no file in .* is named by --heldout x\* y"):
        index_folder(folder, IndexOptions(heldout=["x*", "y"]))


@pytest.mark.parametrize(("count", "patterns"), [(1, ()), (3, ("*",))])
def test_a_folder_with_nothing_left_to_train_on_is_refused(count, patterns, numbered):
    with pytest.raises(ConfigurationError, match="needs two files at least"):
        index_folder(numbered(count), IndexOptions(heldout=patterns))


@pytest.mark.parametrize("name", ["", "notes.docx", ".hidden.txt", ".git/a.txt", "a.txt/b.png"])
def test_a_folder_without_data_is_refused_with_what_is_looked_for(name, tmp_path):
    if name:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    with pytest.raises(ConfigurationError, match=r"no file to train on; looked for \.csv, \.jsonl"):
        scan(tmp_path, "text")


@pytest.mark.parametrize("name", ["nowhere", "file.txt"])
def test_what_is_no_folder_is_refused(name, tmp_path):
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ConfigurationError, match=f"{name} is not a folder"):
        index_folder(tmp_path / name, IndexOptions())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bad.txt", b""),
        ("bad.txt", b" \n"),
        ("bad.md", b"caf\xe9"),
        ("bad.jsonl", b'{"text": "a"}\n{"text"'),
        ("bad.jsonl", b'{"body": "a"}'),
        ("bad.csv", b"body\na\n"),
        ("bad.csv", b"text\na,b\n"),
        ("bad.parquet", b"PAR1"),
        ("deep/bad.parquet", b""),
        ("bad\nname.txt", b"text"),
        ("bad\\name.txt", b"text"),
        ("\x1b[2Jbad.txt", b"text"),
    ],
)
def test_a_broken_file_is_refused_by_path(name, data, folder):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    shown = str(path) if str(path).isprintable() else repr(str(path))
    message = f"^{re.escape(shown)} cannot be used: .*; mend it, or move it out"
    with pytest.raises(ConfigurationError, match=message):
        index_folder(folder, IndexOptions())


def test_another_column_is_read_where_told(tmp_path, to_csv):
    (tmp_path / "a.csv").write_bytes(to_csv(body=["one", "two"]))
    [shard] = scan(tmp_path, "body")
    assert (shard.column, shard.examples) == ("body", 2)
    with pytest.raises(ConfigurationError, match=r"a\.csv cannot be used: .* column 'text'"):
        scan(tmp_path, "text")


@pytest.mark.parametrize(
    ("field", "length"), [("name", 101), ("licence", 201), ("attribution", 2001)]
)
def test_words_too_long_for_an_index_are_refused_by_name(field, length, folder):
    with pytest.raises(ConfigurationError, match=f"{field}.* at most {length - 1}"):
        index_folder(folder, IndexOptions(**{field: "x" * length}))


def test_a_folder_whose_name_is_too_long_for_an_index_is_refused(folder):
    long = folder.rename(folder.with_name("x" * 101))
    with pytest.raises(ConfigurationError, match=r"name.* at most 100"):
        index_folder(long, IndexOptions())
