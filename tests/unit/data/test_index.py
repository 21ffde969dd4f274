"""The data index, as strangers may have written it."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.data.index import MAX_SHARD_BYTES, DataIndex, parse_index
from peer.errors import ConfigurationError


@pytest.fixture
def body(make_shard):
    """Return an index of one training shard and one held-out one, as JSON has it."""
    shards = (make_shard("a.txt", b"a"), make_shard("b.txt", b"b", split="heldout"))
    return DataIndex(name="tiny", shards=shards).model_dump(mode="json")


def parse(body):
    return parse_index(json.dumps(body).encode(), "the index")


@pytest.mark.parametrize(
    "name",
    ["a.txt", "folder/a.txt", "two words.txt", "曹操.txt", "a..b", "..a", "x" * 255],
)
def test_a_plain_relative_name_is_taken(name, body):
    body["shards"][0]["name"] = name
    assert parse(body).shards[0].name == name


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "a/..",
        "..",
        "/x",
        "//x",
        "a\\b",
        "..\\x",
        "a\nb",
        "a\x00b",
        "a\x1b[2Jb",
        "a\x7fb",
        "a\u202eb",
        "a\ud800b",
        "",
        "x" * 256,
        ".",
        "./a",
        "a/./b",
        "a//b",
        "a/",
    ],
)
def test_a_name_that_could_leave_its_folder_or_deceive_is_refused(name, body):
    body["shards"][0]["name"] = name
    with pytest.raises(ConfigurationError, match=r"^the index: shards\.0\.name: "):
        parse(body)


def test_two_shards_of_one_name_are_refused(body):
    body["shards"][1]["name"] = body["shards"][0]["name"]
    with pytest.raises(ConfigurationError, match=r"^the index: .*two shards have one name"):
        parse(body)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_an_index_without_one_of_the_splits_is_refused(split, body):
    for shard in body["shards"]:
        shard["split"] = split
    with pytest.raises(ConfigurationError, match=r"shards to train on and shards held out"):
        parse(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "exe"),
        ("bytes", 0),
        ("bytes", -1),
        ("bytes", MAX_SHARD_BYTES + 1),
        ("bytes", 1.5),
        ("examples", 0),
        ("examples", None),
        ("sha256", "0" * 63),
        ("sha256", "F" * 64),
        ("split", "test"),
        ("column", ""),
    ],
)
def test_a_shards_field_that_makes_no_sense_is_refused_by_name(field, value, body):
    body["shards"][1][field] = value
    with pytest.raises(ConfigurationError, match=rf"^the index: shards\.1\.{field}: "):
        parse(body)


def test_an_unknown_field_is_named_with_a_suggestion(body):
    with pytest.raises(ConfigurationError, match=r"the field license is unknown; did you mean lic"):
        parse(body | {"license": "MIT"})
    body["shards"][0]["splits"] = "train"
    with pytest.raises(ConfigurationError, match=r"shards\.0\.splits is unknown; did you mean spl"):
        parse(body)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe\xff", b"[" * 200_000, b'{"schema_version": 1' + b"0" * 5000]
)
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ConfigurationError, match=r"^the index is not JSON: "):
        parse_index(data, "the index")


@pytest.mark.parametrize("value", [None, 5, [], {}, {"name": "x", "shards": []}])
def test_json_that_is_no_index_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"^the index: "):
        parse(value)


def test_an_index_of_more_than_64_mib_is_refused():
    with pytest.raises(ConfigurationError, match="the index is larger than 64 MiB"):
        parse_index(b" " * ((64 << 20) + 1), "the index")


@given(spaces=st.sampled_from([None, 1, 4]), random=st.randoms(use_true_random=False))
def test_the_hash_names_the_meaning_and_not_the_spelling(make_shard, spaces, random):
    shards = (make_shard("a.txt", b"a"), make_shard("b.txt", b"b", split="heldout"))
    index = DataIndex(name="é", shards=shards)
    items = list(index.model_dump(mode="json").items())
    random.shuffle(items)
    again = parse_index(json.dumps(dict(items), indent=spaces).encode(), "the index")
    assert again.index_hash == index.index_hash
    assert hashlib.sha256(index.to_bytes()).hexdigest() == index.index_hash
    assert parse_index(index.to_bytes(), "the index") == index


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"licence": "MIT"},
        {"attribution": "me"},
        {"shards.name": "c.txt"},
        {"shards.bytes": 2},
        {"shards.examples": 2},
        {"shards.sha256": "0" * 64},
        {"shards.format": "jsonl"},
        {"shards.column": "body"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_any_field_changes_the_hash(change, body):
    before = parse(body).index_hash
    for path, value in change.items():
        place = body["shards"][0] if path.startswith("shards.") else body
        place[path.removeprefix("shards.")] = value
    assert parse(body).index_hash != before
