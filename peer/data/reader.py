"""From a shard's bytes to its examples, whatever its format."""

import io
import json
import re

from peer.data.index import Shard, ShardFormat
from peer.errors import DamagedError

_MAX_CSV_BYTES = (1 << 31) - 1
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""A lone surrogate, which JSON can spell and UTF-8 cannot."""

FORMATS: dict[str, ShardFormat] = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
"""Which file endings are read, and how."""


def read_examples(shard: Shard, data: bytes) -> list[str]:
    """Return the examples that `data`, the verified bytes of `shard`, holds.

    A text file is one example; a line of jsonl or a row of csv or parquet is one each. Empty
    ones are left out.

    Raises:
        DamagedError: The bytes cannot be read as `shard.format`; the message says where.
    """
    return parse(shard.format, shard.column, data)


def parse(kind: ShardFormat, column: str, data: bytes) -> list[str]:
    """Return the non-empty examples in `data`; see `read_examples`."""
    match kind:
        case "text":
            texts = [_decode(data)]
        case "jsonl":
            texts = _jsonl(column, data)
        case "csv" | "parquet":
            texts = _table(kind, column, data)
    examples = [text for text in texts if text.strip()]
    if not examples:
        raise DamagedError("it holds no text")
    return examples


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedError(f"it is not UTF-8 at byte {error.start}") from error


def _jsonl(column: str, data: bytes) -> list[str]:
    texts = []
    for number, line in enumerate(_decode(data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[column]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError(f"line {number} is not a JSON object with {column!r}") from error
        if not isinstance(text, str) or _HALF_A_CHARACTER.search(text):
            raise DamagedError(f"line {number} has a {column!r} that is not text")
        texts.append(text)
    return texts


def _table(kind: ShardFormat, column: str, data: bytes) -> list[str]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if kind == "csv" and len(data) > _MAX_CSV_BYTES:
        raise DamagedError("it is larger than 2 GiB; split it, or make it parquet")
    try:
        if kind == "csv":
            options = pyarrow.csv.ConvertOptions(
                include_columns=[column], column_types={column: pa.string()}
            )
            parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
            # One block, for a row may not straddle two; no threads, for after an error pyarrow's
            # now and then abort the process at its end.
            block_bytes = max(len(data), 1 << 20)
            reading = pyarrow.csv.ReadOptions(use_threads=False, block_size=block_bytes)
            table = pyarrow.csv.read_csv(io.BytesIO(data), reading, parsing, options)
        else:
            table = pyarrow.parquet.read_table(
                io.BytesIO(data), columns=[column], use_threads=False
            )
        texts = table.column(column).cast(pa.string()).to_pylist()
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedError(f"it is no {kind} file with a column {column!r}: {reason}") from error
    return [text for text in texts if text is not None]
