"""`ctpeer verdicts`: what committees found of the checkpoints, and whether all of it is proven."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import click

from peer.cli.chosen import run_option
from peer.cli.columns import columns
from peer.cli.kept import Kept, size_word
from peer.cli.options import home_option, json_option
from peer.errors import ConfigurationError, DamagedError, MisbehavedError
from peer.validation.judge import resume
from peer.validation.rules import POINTS_A_NAT
from peer.validation.score import Reason
from peer.validation.verdict import Judgement, Tip, Verdict

_SHORT = 12
_NO_NUMBER = frozenset({Reason.TOO_FEW, Reason.BEYOND, Reason.BAD_BASELINE})
"""With these reasons there is no difference: nothing was agreed on, or a loss is none."""


@dataclasses.dataclass(frozen=True)
class _Checked:
    """What recomputing the kept chain found: what is wrong, and what could not be checked."""

    problem: str | None
    notes: tuple[str, ...]


@click.command()
@click.option("--verify", is_flag=True, help="Recompute all of them; exit code 78 if one is wrong.")
@click.option("-n", "--max-count", type=click.IntRange(min=1), help="Show no more than so many.")
@run_option
@home_option
@json_option
def verdicts(
    *, verify: bool, max_count: int | None, run_name: str | None, home: str | None, as_json: bool
) -> None:
    """Print the verdicts on the run's checkpoints that this peer holds to, newest first.

    With --verify each judgement is made again from its evidence, from the first one kept, and
    every signature is checked.
    """
    kept = Kept(run_name, home, None if verify else max_count)
    checked = _verify(kept) if verify and kept.rules is not None else None
    found = (kept.problem, checked.problem if checked is not None else None)
    kept.problem = "; ".join(filter(None, found)) or None
    shown = kept.newest_first[:max_count]
    ledger = kept.newest.after if kept.newest is not None else None
    body = {
        "every_epochs": kept.run.manifest.validation.every_epochs,
        "verdicts": [_facts(verdict) for verdict in shown],
        "last_good": _mark(kept.newest) if kept.newest is not None else None,
        "generation": ledger.generation if ledger is not None else 0,
        "verified": kept.problem is None if checked is not None else None,
        "notes": list(checked.notes) if checked is not None else [],
        "problem": kept.problem,
    }
    kept.print(body, _text(kept, shown, checked), as_json=as_json)
    if checked is not None and kept.problem is not None:
        click.get_current_context().exit(ConfigurationError.exit_code)


def _verify(kept: Kept) -> _Checked:
    """Make every judgement of the kept chain again."""
    rules, chain = kept.rules, kept.newest_first[::-1]
    assert rules is not None
    if not chain:
        return _Checked(None, ())
    # numpy loads with it.
    from peer.checkpoint.initial import initial_root

    try:
        genesis = Tip.genesis(rules.run_id, initial_root(kept.run))
        resume(rules, genesis, chain)
    except (DamagedError, MisbehavedError) as error:
        return _Checked(str(error), ())
    notes = ["the losses, and who contributed, are what those who signed say of them"]
    first = chain[0].judgement
    if first.previous != genesis.hash:
        notes.append(
            f"the chain begins with verdict {first.round}: what lies before it is not here and "
            "was believed; of that verdict itself, the evidence and the signatures are good"
        )
    return _Checked(None, tuple(notes))


def _facts(verdict: Verdict) -> dict[str, Any]:
    judgement = verdict.judgement
    difference, error = _difference(judgement)
    return {
        "round": judgement.round,
        "epoch": judgement.epoch,
        "candidate": judgement.candidate,
        "baseline": judgement.baseline,
        "decision": judgement.decision,
        "reason": judgement.reason,
        "difference_nats": difference,
        "error_nats": error,
        "hash": judgement.hash,
        "previous": judgement.previous,
        "ground": judgement.ground,
        "roster": len(judgement.roster),
        "called": list(judgement.called),
        "cluster": list(judgement.cluster),
        "struck": list(judgement.struck),
        "signers": sorted(verdict.signers()),
        "quorum": judgement.committee.size.quorum,
        "generation": judgement.after.generation,
        "last_good": _mark(judgement),
        "small_swarm": judgement.committee.size.is_small,
        "lone_peer": len(judgement.roster) == 1,
        "metrics": _metrics(judgement),
    }


def _mark(judgement: Judgement) -> dict[str, Any]:
    good = judgement.after.last_good
    return {"epoch": good.epoch, "state_root": good.state_root}


def _difference(judgement: Judgement) -> tuple[float | None, float | None]:
    """Return by how many nats the candidate is worse, and the standard error; None without one."""
    if judgement.reason in _NO_NUMBER:
        return None, None
    return judgement.difference_points / POINTS_A_NAT, judgement.error_points / POINTS_A_NAT


def _metrics(judgement: Judgement) -> dict[str, float]:
    """Return the median of each metric that the validators of the cluster found."""
    found: dict[str, list[float]] = {}
    for seat in judgement.seats:
        if seat.reveal is not None and seat.ticket.peer_id in judgement.cluster:
            for name, value in seat.reveal.metrics.items():
                found.setdefault(name, []).append(value)
    return {name: statistics.median_low(values) for name, values in sorted(found.items())}


def _text(kept: Kept, shown: Sequence[Verdict], checked: _Checked | None) -> str:
    if kept.newest is None or kept.rules is None:
        return kept.emptiness
    good, count = kept.newest.after.last_good, len(kept.newest_first)
    lines = [columns(("",) * 7, map(_row, shown))]
    lines.append(
        f"last good is epoch {good.epoch:,}, {good.state_root[:_SHORT]}, "
        f"of generation {kept.newest.after.generation}"
    )
    if checked is not None and kept.problem is None:
        lines.append(f"verified: {count} verdict{'' if count == 1 else 's'}")
        lines += [f"    note: {note}" for note in checked.notes]
    return "\n".join(lines)


def _row(verdict: Verdict) -> tuple[str, ...]:
    judgement = verdict.judgement
    difference, error = _difference(judgement)
    remarks = [size_word(judgement)]
    if judgement.struck:
        remarks.append(f"struck {', '.join(judgement.struck)}")
    return (
        f"round {judgement.round:,}",
        f"epoch {judgement.epoch:,}",
        judgement.candidate[:_SHORT],
        f"{judgement.decision}: {judgement.reason}",
        "-" if difference is None else f"{difference:+.4f} +- {error:.4f} nats",
        f"signed by {len(verdict.signers())} of {len(judgement.called)}",
        "; ".join(filter(None, remarks)),
    )
