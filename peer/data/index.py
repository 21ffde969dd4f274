"""The data index: every shard of a data set by name, size and hash.

The index itself is named by the hash of its canonical form, so a manifest that names it names the
data. It comes from strangers: names and sizes are checked before anything is opened.
"""

import hashlib
import json
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from peer.config.section import Section, explain
from peer.errors import ConfigurationError
from peer.run.canonical import canonical
from peer.run.manifest import Hash

MAX_SHARDS = 100_000
MAX_SHARD_BYTES = 1 << 33
_MAX_INDEX_BYTES = 64 << 20

ShardFormat = Literal["text", "jsonl", "csv", "parquet"]
Split = Literal["train", "heldout"]


class Shard(Section):
    """A slice of the data set: one file.

    Attributes:
        name: Its relative path, with slashes.
        format: How examples are found in it.
        bytes: Its size.
        examples: How many examples it holds.
        sha256: The hash of its bytes.
        split: Whether it is trained on or held out.
        column: Where the text stands in a jsonl, csv or parquet file.
    """

    name: str = Field(min_length=1, max_length=255)
    format: ShardFormat
    bytes: int = Field(ge=1, le=MAX_SHARD_BYTES)
    examples: int = Field(ge=1, le=10**10)
    sha256: Hash
    split: Split = "train"
    column: str = Field(default="text", min_length=1, max_length=100)

    @field_validator("name")
    @classmethod
    def _name_stays_below_its_folder(cls, name: str) -> str:
        path = PurePosixPath(name)
        plain = path.parts and path.as_posix() == name and name.isprintable()
        if not plain or path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ValueError(f"{name!r} is not a plain relative path")
        return name


class DataIndex(Section):
    """All shards of a data set."""

    schema_version: Literal[1] = 1
    name: str = Field(max_length=100)
    licence: str = Field(default="", max_length=200)
    attribution: str = Field(default="", max_length=2000)
    shards: Annotated[tuple[Shard, ...], Field(min_length=1, max_length=MAX_SHARDS)]

    @model_validator(mode="after")
    def _names_are_distinct_and_both_splits_there(self) -> "DataIndex":
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("two shards have one name")
        if not self.split("train") or not self.split("heldout"):
            raise ValueError("an index needs shards to train on and shards held out")
        return self

    def split(self, split: Split) -> tuple[Shard, ...]:
        """Return the shards of one split, in the index's order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes, whose hash names the index."""
        return canonical(self.model_dump(mode="json"))

    @property
    def index_hash(self) -> str:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_index(data: bytes, origin: str) -> DataIndex:
    """Return the index in the JSON `data`; `origin` names it in errors.

    Raises:
        ConfigurationError: It is too large, no JSON, or makes no sense.
    """
    if len(data) > _MAX_INDEX_BYTES:
        raise ConfigurationError(f"{origin} is larger than {_MAX_INDEX_BYTES >> 20} MiB")
    try:
        return DataIndex.model_validate(json.loads(data))
    except ValidationError as error:
        raise ConfigurationError(f"{origin}: {explain(error, DataIndex)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{origin} is not JSON: {error}") from error
