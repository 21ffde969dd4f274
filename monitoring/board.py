"""The leaderboard, the verdicts and the whole picture as JSON. Pure.

What certificates and verdicts prove is told apart from what peers say of themselves.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import Any

from monitoring.findings import Findings
from monitoring.totals import Totals
from monitoring.view import View
from peer.training.certificate import Certificate
from peer.validation.course import explain
from peer.validation.ledger import Ledger
from peer.validation.rules import POINTS_A_NAT
from peer.validation.verdict import Judgement, Verdict

SCHEMA_VERSION = 1
MAX_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the judges whose scores agree found, in nats.

    Attributes:
        candidate_nats: Loss of the candidate on the rows drawn for it, median of the judges; None
            where no scores agree.
        baseline_nats: Likewise, of its baseline.
        difference_nats: By how much the candidate is worse.
        error_nats: The standard error of that.
        metrics: The task's own metrics of the candidate, medians; they decide nothing.
    """

    candidate_nats: float | None
    baseline_nats: float | None
    difference_nats: float
    error_nats: float
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, judgement: Judgement) -> "Scores":
        """Return what a checked judgement found."""
        agreed = set(judgement.cluster)
        reveals = [s.reveal for s in judgement.seats if s.reveal and s.ticket.peer_id in agreed]
        names = {name for reveal in reveals for name in reveal.metrics}
        return cls(
            candidate_nats=_median(fmean(r.candidate) / POINTS_A_NAT for r in reveals),
            baseline_nats=_median(fmean(r.baseline) / POINTS_A_NAT for r in reveals),
            difference_nats=judgement.difference_points / POINTS_A_NAT,
            error_nats=judgement.error_points / POINTS_A_NAT,
            metrics={n: median(r.metrics[n] for r in reveals if n in r.metrics) for n in names},
        )


def leaderboard(run_id: str, found: Findings, view: View) -> dict[str, Any]:
    """Return who did how much, the greatest contribution first; at most `MAX_ROWS` peers."""
    worked = _worked(found.row)
    judged = _judged(found.chain)
    live = set(view.live)
    peers = {*worked, *judged, *live}
    order = sorted(peers, key=lambda peer: (-view.loss_terms.get(peer, 0), peer))
    whole = sum(view.loss_terms.values())
    return {
        "schema": SCHEMA_VERSION,
        "run_id": run_id,
        "unix_time_s": found.now_s,
        "epoch": view.epoch,
        "generation": view.generation,
        "certificates": len(found.row),
        "first_epoch": found.row[0].vote.base.epoch + 1 if found.row else None,
        "peers": [
            {
                "peer_id": peer,
                "live": peer in live,
                "loss_terms": view.loss_terms.get(peer, 0),
                "share": view.loss_terms.get(peer, 0) / whole if whole else 0.0,
                "epochs": worked.get(peer, 0),
                "epochs_behind": view.behind.get(peer),
                **_duties(peer, judged, found.ledger),
                "self_reported": _self_reported(peer, found, view),
            }
            for peer in order[:MAX_ROWS]
        ],
    }


def verdicts(run_id: str, found: Findings) -> dict[str, Any]:
    """Return the verdicts at hand, newest first, with scores and seats."""
    good = found.ledger.last_good if found.ledger is not None else None
    return {
        "schema": SCHEMA_VERSION,
        "run_id": run_id,
        "unix_time_s": found.now_s,
        "generation": found.ledger.generation if found.ledger is not None else None,
        "last_good": None if good is None else {"epoch": good.epoch, "state_root": good.state_root},
        "verdicts": [_verdict(verdict) for verdict in reversed(found.chain)],
    }


def swarm(run_id: str, found: Findings, view: View, totals: Totals) -> dict[str, Any]:
    """Return the whole picture, aggregated."""
    cover = view.coverage
    return {
        "schema": SCHEMA_VERSION,
        "run_id": run_id,
        "unix_time_s": found.now_s,
        "epoch": view.epoch,
        "generation": view.generation,
        "certificates": view.certificates,
        "epoch_spread": view.epoch_spread,
        "branches": view.branches,
        "group_peers": view.group,
        "loss_terms": totals.loss_terms,
        "peers": {
            "live": len(view.live),
            "newcomers": view.newcomers,
            "by_state": dict(view.states),
            "by_version": dict(view.versions),
            "by_device": dict(view.devices),
        },
        "self_reported": {
            "tokens_per_second": sum(view.tokens_per_s.values()),
            "loss_nats": view.loss_nats,
            "heldout": view.heldout,
            "group_peers": view.told_group,
            "rounds_committed": totals.counts["committed"],
            "rounds_failed": totals.counts["failed"],
            "refused": totals.counts["refused"],
        },
        "heldout_baselines": dict(found.baselines),
        "shards": None
        if cover is None
        else {
            "count": cover.shards,
            "claimed": cover.claimed,
            "claims": cover.claims,
            "by_claims": dict(cover.by_claims),
        },
        "verdicts": dict(totals.decisions),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    judgement, scores = verdict.judgement, Scores.of(verdict.judgement)
    return {
        "round": judgement.round,
        "epoch": judgement.epoch,
        "state_root": judgement.candidate,
        "baseline_root": judgement.baseline,
        "decision": judgement.decision.value,
        "reason": judgement.reason.value,
        "words": explain(judgement),
        "signers": len(verdict.assents),
        "called": len(judgement.called),
        "seats": [
            {
                "peer_id": seat.ticket.peer_id,
                "scored": seat.reveal is not None,
                "agreed": seat.ticket.peer_id in judgement.cluster,
                "struck": seat.ticket.peer_id in judgement.struck,
            }
            for seat in judgement.seats
        ],
        "generation": judgement.after.generation,
        **dataclasses.asdict(scores),
    }


def _worked(row: Iterable[Certificate]) -> Counter[str]:
    """Return in how many certificates each peer contributed."""
    return Counter(peer for certificate in row for peer in certificate.vote.group)


def _judged(chain: Iterable[Verdict]) -> dict[str, Counter[str]]:
    """Return how often each peer was called to judge, scored, and agreed, lately."""
    counts: dict[str, Counter[str]] = {}
    for verdict in chain:
        judgement = verdict.judgement
        for seat in judgement.seats:
            peer = seat.ticket.peer_id
            mine = counts.setdefault(peer, Counter())
            mine["seats"] += 1
            mine["scored"] += seat.reveal is not None
            mine["agreed"] += peer in judgement.cluster
    return counts


def _duties(peer: str, judged: Mapping[str, Counter[str]], ledger: Ledger | None) -> dict[str, Any]:
    mine = judged.get(peer, Counter[str]())
    standing = ledger.standing(peer) if ledger is not None else None
    return {
        "seats": mine["seats"],
        "seats_scored": mine["scored"],
        "seats_agreed": mine["agreed"],
        "strikes": len(standing.strikes) if standing is not None else 0,
        "barred": standing is not None
        and ledger is not None
        and standing.barred_until > ledger.round,
        "judged_epochs": standing.epochs if standing is not None else 0,
    }


def _self_reported(peer: str, found: Findings, view: View) -> dict[str, Any] | None:
    body, status = found.peers.get(peer), found.statuses.get(peer)
    if body is None and status is None:
        return None
    return {
        "version": body.version if body is not None else None,
        "epoch": min(body.epoch, view.epoch) if body is not None and found.row else None,
        "client": body.client if body is not None else None,
        "phase": status.phase if status is not None else None,
        "device": status.device if status is not None else None,
        "tokens_per_second": view.tokens_per_s.get(peer),
        "loss_nats": status.loss_nats if status is not None else None,
        "heldout": status.heldout if status is not None else None,
    }


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None
