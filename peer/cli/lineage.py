"""Checkpoints and their lineage for a person: what `ctpeer checkpoint` prints without --json."""

from collections.abc import Iterator, Sequence

from peer.checkpoint.card import date, score_texts
from peer.checkpoint.collect import Outcome
from peer.checkpoint.lineage import Entry
from peer.checkpoint.verify import Report
from peer.training.certificate import Certificate

_SHORT = 12
_NONE = "-"


def listed(entries: Sequence[Entry], set_aside: Sequence[str], run_id: str) -> str:
    """Return a line for each checkpoint here."""
    if not entries and not set_aside:
        return f"there is no checkpoint of {run_id} here yet; `ctpeer start` writes them"
    lines = [_line(entry) for entry in entries]
    lines += [f"{name}  set aside: it failed to load" for name in set_aside]
    return "\n".join(lines)


def described(entry: Entry) -> str:
    """Return all that is known of a checkpoint, a line each."""
    return "\n".join(f"{label:<12}{text}" for label, text in _rows(entry))


def logged(entries: Sequence[Entry], more: int) -> str:
    """Return a lineage as `git log` prints one."""
    blocks = ["\n".join(_block(entry)) for entry in entries]
    last = entries[-1].parent if entries else None
    if more:
        blocks.append(f"and {more} more")
    elif last is not None:
        root = last.state_root[:_SHORT]
        blocks.append(f"before that: {root} of epoch {last.epoch:,}, of which nothing is kept here")
    return "\n\n".join(blocks)


def verified(reports: Sequence[Report]) -> str:
    """Return what verifying found; what is wrong is said elsewhere."""
    lines = []
    for report in reports:
        if report.good:
            signed = (
                f"a certificate of {len(report.signers)}" if report.signers else "no certificate"
            )
            lines.append(f"{report.name} is good: {report.chunks} chunks, {signed}")
        else:
            lines.append(f"{report.name} is damaged")
        lines += [f"    note: {note}" for note in report.notes]
    return "\n".join(lines) if reports else "there is nothing to verify"


def collected(outcomes: Sequence[Outcome], *, dry_run: bool) -> str:
    """Return what became of each checkpoint, and why."""
    verb = "would go" if dry_run else "dropped"
    lines = [
        f"{outcome.name}  {verb if outcome.dropped else 'stays'}: {outcome.reason}"
        for outcome in outcomes
    ]
    freed = sum(outcome.size_bytes for outcome in outcomes if outcome.dropped)
    count = sum(outcome.dropped for outcome in outcomes)
    return "\n".join([*lines, f"{count} {verb}, {freed:,} bytes"])


def certificate_of(entry: Entry) -> Certificate | None:
    """Return the certificate that led to a checkpoint, if it can be read."""
    if entry.head is None or entry.head.certificate is None:
        return None
    try:
        return Certificate.from_json(entry.head.certificate)
    except ValueError:
        return None


def _line(entry: Entry) -> str:
    notes = entry.annotation.notes if entry.annotation is not None else None
    generation = _NONE if entry.generation is None else str(entry.generation)
    cells = [
        f"{entry.state_root[:_SHORT]}",
        f"epoch {entry.epoch:>7,}",
        f"generation {generation}",
        f"{entry.size_bytes:>13,} bytes",
        date(notes.written_s) if notes is not None else _NONE,
        ", ".join(score_texts(notes.scores)) if notes is not None and notes.scores else _NONE,
    ]
    if notes is not None and notes.accepted_by is not None:
        cells.append("accepted")
    if entry.fetched:
        cells.append("fetched")
    if entry.problem is not None:
        cells.append(f"damaged: {entry.problem}")
    return "  ".join(cells)


def _block(entry: Entry) -> Iterator[str]:
    here = "" if entry.name is not None else " (dropped)"
    yield f"checkpoint {entry.state_root}{here}"
    if entry.parent is not None:
        yield f"Parent: {entry.parent.state_root[:_SHORT]} of epoch {entry.parent.epoch:,}"
    if entry.annotation is not None:
        yield f"Author: {entry.annotation.writer}"
        yield f"Date:   {date(entry.annotation.notes.written_s)}"
    yield ""
    yield f"    epoch {entry.epoch:,}, generation {entry.generation}"
    if entry.annotation is None:
        yield "    not annotated"
    else:
        notes = entry.annotation.notes
        if notes.scores:
            yield f"    {', '.join(score_texts(notes.scores))}"
        if notes.parent is not None:
            yield f"    {notes.loss_terms:,} loss terms since its parent"
        if notes.accepted_by is not None:
            yield f"    accepted by verdict {notes.accepted_by[:_SHORT]}"
    if entry.problem is not None:
        yield f"    damaged: {entry.problem}"


def _rows(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "root", entry.state_root
    yield "epoch", f"{entry.epoch:,} of generation {entry.generation}"
    if entry.parent is not None:
        yield "parent", f"{entry.parent.state_root} of epoch {entry.parent.epoch:,}"
    if entry.annotation is not None:
        notes = entry.annotation.notes
        yield "author", entry.annotation.writer
        yield "date", date(notes.written_s)
        yield "code", f"ctpeer {notes.code_version}"
        yield (
            "data",
            f"{notes.loss_terms:,} loss terms of all peers since the parent; by the author",
        )
        yield "", f"{notes.own_samples:,} samples and {notes.own_tokens:,} tokens in all"
        yield "scores", ", ".join(score_texts(notes.scores)) or "not scored yet"
        yield (
            "accepted",
            f"by verdict {notes.accepted_by}" if notes.accepted_by else "by no verdict",
        )
    else:
        yield "annotation", "none"
    certificate = certificate_of(entry)
    if certificate is not None:
        group = certificate.vote.group
        yield "certificate", f"signed by {len(certificate.signers)} of a group of {len(group)}"
    elif entry.epoch:
        yield "certificate", "none"
    if entry.fetched:
        yield "fetched", "by hand; training does not go on from it"
    yield "here", f"{entry.name}, {entry.size_bytes:,} bytes"
    if entry.problem is not None:
        yield "damaged", entry.problem
