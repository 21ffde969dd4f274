"""`ctpeer checkpoint export`: to a directory, to a git repository, or to both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peer.checkpoint.export import Order, built, export
from peer.checkpoint.lineage import Entry
from peer.checkpoint.repository import Repository, commit_message
from peer.checkpoint.shelf import Shelf
from peer.run.directory import RunDirectory


def run_export(
    run: RunDirectory,
    shelf: Shelf,
    lineage: Sequence[Entry],
    licence: str | None,
    directory: Path | None,
    repository: Path | None,
) -> tuple[dict[str, Any], str]:
    """Export to `directory` and to the git `repository`; return what was done, as JSON and words.

    Either may be None.

    Raises:
        ConfigurationError: One of them cannot take it; the other one may have it already.
    """
    order = Order(run=run, shelf=shelf, lineage=tuple(lineage), licence=licence)
    root = lineage[0].state_root
    body: dict[str, Any] = {"state_root": root, "path": None, "files": {}, "git": None}
    lines = []
    opened = Repository(repository) if repository is not None else None
    if directory is not None:
        body |= {"path": str(directory.absolute()), "files": export(order, directory)}
        lines.append(f"exported {root[:12]} to {directory}")
    if opened is not None:
        with built(order, opened.path) as (staging, files):
            annotation = lineage[0].annotation
            when_s = annotation.notes.written_s if annotation is not None else None
            message = commit_message(run.run_id, lineage)
            commit = opened.commit(staging, files, message, when_s)
        body |= {"files": files}
        body["git"] = {
            "path": str(opened.path),
            "commit": commit.commit_id,
            "fresh": commit.fresh,
        }
        verb = "committed" if commit.fresh else "nothing changed:"
        lines.append(f"{verb} {root[:12]} is {commit.commit_id[:12]} in {opened.path}")
    return body, "\n".join(lines)
