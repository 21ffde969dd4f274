"""From bytes to examples in each format, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.data.reader import parse, read_examples
from peer.errors import DamagedError

TEXTS = ["one", 'two "quoted", with a comma', "three\nlines\r\nlong", "学而时习之", "NA", "null"]

texts = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5)


def to_jsonl(rows):
    return "\n".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows).encode()


def test_a_text_file_is_one_example():
    assert parse("text", "text", "a\n\nb é".encode()) == ["a\n\nb é"]


def test_a_byte_order_mark_is_no_text():
    assert parse("text", "text", b"\xef\xbb\xbfa") == ["a"]
    assert parse("jsonl", "text", b'\xef\xbb\xbf{"text": "a"}') == ["a"]
    assert parse("csv", "text", b"\xef\xbb\xbftext\na\n") == ["a"]


@given(texts)
def test_jsonl_gives_back_every_line(rows):
    assert parse("jsonl", "text", to_jsonl(rows)) == rows


def test_tables_give_back_every_row(to_csv, to_parquet):
    assert parse("csv", "text", to_csv(text=TEXTS)) == TEXTS
    assert parse("parquet", "text", to_parquet(text=TEXTS)) == TEXTS


def test_the_named_column_is_read_and_no_other(to_csv, to_parquet):
    columns = {"text": ["no", "no"], "body": ["a", "b"], "number": [1, 2]}
    lines = b'{"text": "no", "body": "a"}\n{"number": 2, "body": "b"}\r\n'
    assert parse("csv", "body", to_csv(**columns)) == ["a", "b"]
    assert parse("parquet", "body", to_parquet(**columns)) == ["a", "b"]
    assert parse("jsonl", "body", lines) == ["a", "b"]


def test_numbers_in_a_text_column_are_text(to_csv, to_parquet):
    assert parse("csv", "text", to_csv(text=["007", "1e5"])) == ["007", "1e5"]
    assert parse("parquet", "text", to_parquet(text=[7, 8])) == ["7", "8"]


def test_empty_examples_are_left_out(to_csv, to_parquet):
    assert parse("jsonl", "text", b'{"text": ""}\n\n{"text": "a"}\n{"text": " \\n"}\n') == ["a"]
    assert parse("csv", "text", to_csv(text=["", "a", " "])) == ["a"]
    assert parse("parquet", "text", to_parquet(text=["", None, "a", " "])) == ["a"]


@pytest.mark.parametrize("kind", ["large_string", "dictionary"])
def test_every_kind_of_parquet_text_is_read(kind, to_parquet):
    column = pa.array(["a", "b", "a"])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(pa.large_string())
    assert parse("parquet", "text", to_parquet(text=column)) == ["a", "b", "a"]


def test_an_example_of_many_megabytes_is_read_from_every_format(to_csv, to_parquet):
    long = "a line of a long book\n" * 200_000
    assert parse("jsonl", "text", to_jsonl([long, "b"])) == [long, "b"]
    assert parse("parquet", "text", to_parquet(text=[long, "b"])) == [long, "b"]
    assert parse("csv", "text", to_csv(text=[long, "b"])) == [long, "b"]


@pytest.mark.parametrize("kind", ["text", "jsonl"])
@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_a_file_without_text_is_refused(kind, data):
    with pytest.raises(DamagedError, match="it holds no text"):
        parse(kind, "text", data)


def test_a_table_without_text_is_refused(to_csv, to_parquet):
    for kind, data in (("csv", to_csv(text=[""])), ("parquet", to_parquet(text=[None, ""]))):
        with pytest.raises(DamagedError, match="it holds no text"):
            parse(kind, "text", data)


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_bytes_that_are_no_utf8_are_refused_with_their_place(kind):
    with pytest.raises(DamagedError, match="it is not UTF-8 at byte 4"):
        parse(kind, "text", b"abcd\xff")


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        '{"text": "a"',
        '{"body": "a"}',
        '["text"]',
        '"text"',
        "5",
        '{"text": 5}',
        '{"text": null}',
        '{"text": ["a"]}',
        '{"text": "\\ud800"}',
        "[" * 200_000,
    ],
    ids=lambda line: line[:20],
)
def test_a_broken_line_of_jsonl_is_refused_with_its_number(line):
    with pytest.raises(DamagedError, match=r"^line 3 .*'text'"):
        parse("jsonl", "text", f'{{"text": "a"}}\n\n{line}\n'.encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"body\na\n", b"text\na,b\n", b"text\nh\xe9\n"],
    ids=["empty", "no column", "ragged", "no UTF-8"],
)
def test_a_broken_csv_is_refused(data):
    with pytest.raises(DamagedError, match=r"it is no csv file with a column 'text': ."):
        parse("csv", "text", data)


@pytest.mark.parametrize("harm", ["junk", "truncated", "no column", "binary", "nested"])
def test_a_broken_parquet_is_refused(harm, to_parquet):
    data = {
        "junk": lambda: b"PAR1 junk",
        "truncated": lambda: to_parquet(text=["a" * 100])[:-20],
        "no column": lambda: to_parquet(body=["a"]),
        "binary": lambda: to_parquet(text=pa.array([b"\xff"])),
        "nested": lambda: to_parquet(text=[["a"]]),
    }[harm]()
    with pytest.raises(DamagedError, match=r"it is no parquet file with a column 'text': ."):
        parse("parquet", "text", data)


def test_a_parquet_of_text_that_is_no_utf8_is_refused(to_parquet):
    ends = pa.py_buffer(np.array([0, 2], np.int32).tobytes())
    column = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(DamagedError, match="it is no parquet file"):
        parse("parquet", "text", to_parquet(text=column))


def test_a_shards_own_format_and_column_decide(make_shard):
    data = b'{"body": "a"}'
    shard = make_shard("a.txt", data, format="jsonl", column="body")
    assert read_examples(shard, data) == ["a"]
    assert read_examples(make_shard("a.txt", data), data) == [data.decode()]
