"""What an export says of itself: a model card for people, and ctpeer.json for machines.

Names and words in it come from strangers (the data index, scores by other code), so nothing of them
may become markup or another field.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from peer import __version__
from peer.checkpoint.annotation import Notes
from peer.checkpoint.lineage import Entry
from peer.data.index import DataIndex
from peer.run.directory import RunDirectory

SHOWN_ANCESTORS = 20
_SHORT = 12
_MARKUP = set("\\`*_{}[]<>()#+!|~$&")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about.

    Attributes:
        run: The run.
        index: The data that it was trained on.
        lineage: The state and its ancestors, newest first, as far as they are known.
        pipeline: The pipeline of transformers that runs it.
        licence: What whoever exports states as the model's licence; None if nothing.
    """

    run: RunDirectory
    index: DataIndex
    lineage: Sequence[Entry]
    pipeline: str
    licence: str | None

    @property
    def entry(self) -> Entry:
        """The state."""
        return self.lineage[0]

    @property
    def notes(self) -> Notes | None:
        """What its writer says of it."""
        annotation = self.entry.annotation
        return annotation.notes if annotation is not None else None

    @property
    def scores(self) -> Mapping[str, float]:
        """On held-out data, by name."""
        return self.notes.scores if self.notes is not None else {}


def model_card(subject: Subject) -> str:
    """Return README.md: YAML front matter as hubs read it, and the same in words."""
    front = "\n".join(f"{key}: {_json(value)}" for key, value in _front_matter(subject).items())
    return f"---\n{front}\n---\n\n" + "\n".join(_body(subject)) + "\n"


def provenance(subject: Subject, files: Mapping[str, str]) -> str:
    """Return ctpeer.json: where the export comes from, with the proofs, and its `files` by hash."""
    entry = subject.entry
    annotation = entry.annotation
    certificate = entry.head.certificate if entry.head is not None else None
    body = {
        "schema": 1,
        "ctpeer": __version__,
        "run_id": subject.run.run_id,
        "manifest_hash": subject.run.manifest_hash,
        "state_root": entry.state_root,
        "epoch": entry.epoch,
        "generation": entry.generation,
        "lineage": [facts_of(ancestor) for ancestor in subject.lineage],
        "annotation": json.loads(annotation.to_bytes()) if annotation is not None else None,
        "certificate": json.loads(certificate) if certificate is not None else None,
        "files": dict(files),
    }
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def facts_of(entry: Entry) -> dict[str, Any]:
    """Return what is known of a state in the lineage, as JSON has it."""
    notes = entry.annotation.notes if entry.annotation is not None else None
    parent = entry.parent
    return {
        "state_root": entry.state_root,
        "epoch": entry.epoch,
        "generation": entry.generation,
        "parent": dataclasses.asdict(parent) if parent is not None else None,
        "author": entry.annotation.writer if entry.annotation is not None else None,
        "written_unix_s": notes.written_s if notes is not None else None,
        "code_version": notes.code_version if notes is not None else None,
        "loss_terms": notes.loss_terms if notes is not None else None,
        "own_samples": notes.own_samples if notes is not None else None,
        "own_tokens": notes.own_tokens if notes is not None else None,
        "scores": dict(notes.scores) if notes is not None else {},
        "accepted_by": notes.accepted_by if notes is not None else None,
    }


def lineage_lines(lineage: Sequence[Entry]) -> Iterator[str]:
    """Yield a line for each of the newest states in a lineage, and one for what is left out."""
    for entry in lineage[:SHOWN_ANCESTORS]:
        parts = [f"epoch {entry.epoch}", f"generation {entry.generation}"]
        if entry.annotation is not None:
            notes = entry.annotation.notes
            parts += [date(notes.written_s), *score_texts(notes.scores)]
        yield f"{entry.state_root[:_SHORT]}  {', '.join(parts)}"
    if len(lineage) > SHOWN_ANCESTORS:
        yield f"and {len(lineage) - SHOWN_ANCESTORS} more before that"


def score_texts(scores: Mapping[str, float]) -> list[str]:
    """Return each score with its name."""
    return [f"{name} {value:.4f}" for name, value in scores.items()]


def date(unix_s: float) -> str:
    """Return a moment in UTC."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _front_matter(subject: Subject) -> dict[str, Any]:
    manifest = subject.run.manifest
    licence: dict[str, Any] = {"license": subject.licence}
    if subject.licence is None:
        licence = {"license": "other", "license_name": "not-stated"}
    front = {
        "library_name": "transformers",
        "pipeline_tag": subject.pipeline,
        "tags": ["ctpeer", manifest.task.name],
        **licence,
        "ctpeer": {
            "run_id": subject.run.run_id,
            "epoch": subject.entry.epoch,
            "generation": subject.entry.generation,
            "state_root": subject.entry.state_root,
        },
    }
    if subject.scores:
        front["model-index"] = [{"name": manifest.name, "results": [_result(subject)]}]
    return front


def _result(subject: Subject) -> dict[str, Any]:
    return {
        "task": {"type": subject.pipeline},
        "dataset": {"name": subject.index.name or "held out", "type": "held-out"},
        "metrics": [
            {"type": name, "name": name, "value": value} for name, value in subject.scores.items()
        ],
    }


def _body(subject: Subject) -> Iterator[str]:
    entry, run = subject.entry, subject.run
    yield f"# {run.manifest.name}, epoch {entry.epoch}"
    yield ""
    yield (
        "Trained by a community without a master, with ctpeer. This is the state that the peers of "
        "the run agreed on, bit for bit, after the epoch named here."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    for label, text in _rows(subject):
        yield f"| {label} | {text} |"
    yield ""
    yield from _scores(subject)
    yield from _data(subject)
    yield "## Lineage"
    yield ""
    yield "Newest first; each state comes from the one below it."
    yield ""
    for line in lineage_lines(subject.lineage):
        yield f"    {line}"
    yield ""
    yield (
        "`ctpeer.json` holds the signed annotation and the certificate of the state, and the "
        "hash of every file here."
    )


def _rows(subject: Subject) -> Iterator[tuple[str, str]]:
    entry, run, notes = subject.entry, subject.run, subject.notes
    yield "run", f"`{run.run_id}`"
    yield "epoch", f"{entry.epoch:,} of generation {entry.generation}"
    yield "state root", f"`{entry.state_root}`"
    if entry.parent is not None:
        yield "parent", f"`{entry.parent.state_root}` of epoch {entry.parent.epoch:,}"
    yield "task", f"{run.manifest.task.name}, rows of {run.manifest.task.sequence_length} tokens"
    if entry.annotation is not None and notes is not None:
        yield "written by", f"`{entry.annotation.writer}`"
        yield "written on", date(notes.written_s)
        yield "accepted by", f"verdict `{notes.accepted_by}`" if notes.accepted_by else "no verdict"
    yield "licence", _plain(subject.licence or "not stated by the run; ask its founders")


def _scores(subject: Subject) -> Iterator[str]:
    yield "## Scores"
    yield ""
    baselines = subject.run.manifest.evaluation.baselines
    if not subject.scores:
        yield "It was not scored when it was written."
    else:
        yield "On text that was held out of training:"
        yield ""
        for name, value in subject.scores.items():
            yield f"- {_plain(name)}: {value:.4f}"
    if baselines:
        known = ", ".join(f"{_plain(name)} {value:.4f}" for name, value in baselines.items())
        yield ""
        yield f"What counting tokens reaches there, in bits per byte: {known}."
    yield ""


def _data(subject: Subject) -> Iterator[str]:
    index = subject.index
    train = index.split("train")
    total = sum(shard.bytes for shard in train)
    yield "## Data"
    yield ""
    yield (
        f"{_plain(index.name) or 'The data set'}: {len(train)} shards of {total:,} bytes to train "
        f"on, {len(index.split('heldout'))} held out. Peers may have added private text of theirs."
    )
    yield ""
    yield f"- licence of the data: {_plain(index.licence) or 'not stated'}"
    if index.attribution:
        yield f"- attribution: {_plain(index.attribution)}"
    if subject.notes is not None:
        seen = sum(
            ancestor.annotation.notes.loss_terms
            for ancestor in subject.lineage
            if ancestor.annotation is not None
        )
        yield f"- seen in the lineage below: {seen:,} loss terms, of all peers together"
    yield ""


def _plain(text: str) -> str:
    """Return a stranger's `text` on one line, with nothing in it that Markdown or HTML obeys."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in _MARKUP else c for c in line)


def _json(value: object) -> str:
    """Return `value` as JSON on one line, which is YAML as well, whatever is in it."""
    return json.dumps(value, allow_nan=False, ensure_ascii=True)
