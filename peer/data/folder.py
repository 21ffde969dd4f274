"""Indexing a folder of one's own text."""

import dataclasses
import fnmatch
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from peer.config.section import explain
from peer.data.index import DataIndex, Shard, Split, parse_index
from peer.data.reader import FORMATS, parse
from peer.errors import ConfigurationError, DamagedError

INDEX_NAME = "index.json"
_HELD_OUT_ONE_IN = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How to index a folder.

    Attributes:
        name: The data set's name; the folder's if empty.
        licence: The data's licence, in words.
        attribution: Whom to name.
        heldout: Patterns of the names to hold out; about one file in twenty if empty.
        column: Where the text stands in jsonl, csv and parquet files.
    """

    name: str = ""
    licence: str = ""
    attribution: str = ""
    heldout: Sequence[str] = ()
    column: str = "text"


def index_folder(folder: Path, options: IndexOptions) -> DataIndex:
    """Return the index of all files in `folder` and below that can be read as text.

    Raises:
        ConfigurationError: There is none, one is broken, or nothing is left to hold out.
    """
    shards = scan(folder, options.column)
    named = _held_out(shards, options.heldout)
    if not named:
        raise ConfigurationError(
            f"no file in {folder} is named by --heldout {' '.join(options.heldout)}"
        )
    # By content, so that a copy of a held-out file is not trained on.
    held = {shard.sha256 for shard in shards if shard.name in named}
    if all(shard.sha256 in held for shard in shards):
        raise ConfigurationError(
            f"{folder} needs two files at least: one to train on and one to hold out for scoring; "
            "split the text in two files, or name what to hold out with --heldout"
        )
    splits: dict[bool, Split] = {True: "heldout", False: "train"}
    try:
        return DataIndex(
            name=options.name or folder.resolve().name,
            licence=options.licence,
            attribution=options.attribution,
            shards=tuple(s.model_copy(update={"split": splits[s.sha256 in held]}) for s in shards),
        )
    except ValidationError as error:
        raise ConfigurationError(
            f"the index cannot say that: {explain(error, DataIndex)}"
        ) from error


def read_index(folder: Path) -> DataIndex:
    """Return the index that stands in `folder`.

    Raises:
        ConfigurationError: There is none, or it makes no sense.
    """
    path = folder / INDEX_NAME
    try:
        return parse_index(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigurationError(
            f"{folder} has no {INDEX_NAME}; make one with `ctpeer data index {folder}`"
        ) from error


def scan(folder: Path, column: str) -> list[Shard]:
    """Return a shard for every readable file in `folder`, by name; dot files are left out.

    Raises:
        ConfigurationError: There is none, or one is broken.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; give one that holds your text files")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in FORMATS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        endings = ", ".join(sorted(FORMATS))
        raise ConfigurationError(f"{folder} holds no file to train on; looked for {endings}")
    return [_shard(path, folder, column) for path in paths]


def _shard(path: Path, folder: Path, column: str) -> Shard:
    kind = FORMATS[path.suffix.lower()]
    try:
        data = path.read_bytes()
        examples = len(parse(kind, column, data))
        return Shard(
            name=path.relative_to(folder).as_posix(),
            format=kind,
            bytes=len(data),
            examples=examples,
            sha256=hashlib.sha256(data).hexdigest(),
            column=column,
        )
    except (DamagedError, OSError, ValidationError) as error:
        reason = explain(error, Shard) if isinstance(error, ValidationError) else str(error)
        shown = str(path) if str(path).isprintable() else repr(str(path))
        raise ConfigurationError(
            f"{shown} cannot be used: {reason}; mend it, or move it out of the folder"
        ) from error


def _held_out(shards: Sequence[Shard], patterns: Sequence[str]) -> set[str]:
    if patterns:
        return {s.name for s in shards if any(fnmatch.fnmatch(s.name, p) for p in patterns)}
    # By hash, so that adding a file moves few others from one side to the other.
    by_hash = sorted(shards, key=lambda shard: shard.sha256)
    return {shard.name for shard in by_hash[: max(1, len(shards) // _HELD_OUT_ONE_IN)]}
