"""What the tests of the data share."""

import hashlib
import io

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from peer.data.index import Shard


@pytest.fixture(scope="session")
def make_shard():
    """Return a shard of `data`, under any name and with any other field changed."""

    def make(name="a.txt", data=b"text", **fields):
        digest = hashlib.sha256(data).hexdigest()
        body = {"format": "text", "bytes": len(data), "examples": 1, "sha256": digest}
        return Shard(name=name, **body | fields)

    return make


@pytest.fixture(scope="session")
def to_csv():
    """Return the bytes of a CSV file with the given columns."""

    def write(**columns):
        out = io.BytesIO()
        pyarrow.csv.write_csv(pa.table(columns), out)
        return out.getvalue()

    return write


@pytest.fixture(scope="session")
def to_parquet():
    """Return the bytes of a Parquet file with the given columns."""

    def write(**columns):
        out = io.BytesIO()
        pyarrow.parquet.write_table(pa.table(columns), out)
        return out.getvalue()

    return write
