"""What the exporter tells Prometheus, read off the newest picture when asked."""

import platform
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring.board import Scores
from monitoring.names import BY_NAME, MEMBER_CHARS, RECORD_KINDS
from monitoring.watcher import Picture, Watcher
from peer import __version__

Labelled = Mapping[str, float]
"""Values by the label's."""


class SwarmCollector(Collector):
    """The metrics of a watched swarm, those that are known from the first scrape on.

    What nobody knows yet, such as a loss that no peer told, has no series, rather than a made-up
    number.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        watcher, picture = self._watcher, self._watcher.picture
        values: dict[str, float | Labelled | None] = dict(_of_watcher(watcher))
        if picture is not None:
            values |= _of_peers(picture)
            values |= _of_training(picture)
            values |= _of_verdicts(picture)
            if picture.found.chain:
                good_s = time.time() - watcher.totals.good_since_s
                values["last_good_age_seconds"] = max(0.0, good_s)
            values |= _of_records(picture)
        assert set(values) <= set(BY_NAME)
        for name in BY_NAME:
            yield _family(name, values.get(name))
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("ctpeer_build", "The code that runs.", build)


def make_registry(watcher: Watcher) -> CollectorRegistry:
    """Return a registry with all that the exporter tells."""
    registry = CollectorRegistry()
    registry.register(SwarmCollector(watcher))
    ProcessCollector(registry=registry)
    return registry


def _family(name: str, value: float | Labelled | None) -> Metric:
    """Return a metric with its values; labels that are known beforehand are all there."""
    known = BY_NAME[name]
    labels = list(known.labels)
    make = CounterMetricFamily if known.type == "counter" else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = make(known.name, known.help, labels=labels)
    if not labels:
        if value is not None:
            assert isinstance(value, int | float), name
            family.add_metric([], value)
        return family
    (listed,) = known.labels.values()
    given = value if isinstance(value, Mapping) else {}
    for label in dict.fromkeys((*listed, *given)):
        assert not listed or label in listed, (name, label)
        family.add_metric([label], given.get(label, 0.0))
    return family


def _of_watcher(watcher: Watcher) -> dict[str, float | Labelled | None]:
    picture, totals = watcher.picture, watcher.totals
    since_s = picture.taken_s if picture is not None else watcher.began_s
    return {
        "crawl_age_seconds": time.monotonic() - since_s,
        "crawl_seconds": picture.crawl_s if picture is not None else 0.0,
        "crawls": dict(watcher.crawls),
        "crawl_failures": {stage.value: n for stage, n in watcher.failures.items()},
        "node_up": float(watcher.node_up),
        "node_restarts": watcher.node_restarts,
        "dht_nodes": watcher.dht_nodes,
        "records_refused": {reason.value: n for reason, n in watcher.validator.refused.items()},
        "records_dropped": dict(watcher.dropped),
        "loss_terms": totals.loss_terms,
        "self_reported_rounds": {n: totals.counts[n] for n in ("committed", "failed")},
        "self_reported_refused": totals.counts["refused"],
        "verdicts": dict(totals.decisions),
    }


def _of_peers(picture: Picture) -> dict[str, float | Labelled | None]:
    view = picture.view
    return {
        "peers": len(view.live),
        "newcomers": view.newcomers,
        "peers_by_state": view.states,
        "peers_by_version": view.versions,
        "peers_by_device": view.devices,
        "self_reported_tokens_per_second": sum(view.tokens_per_s.values()),
        "self_reported_loss_nats": view.loss_nats,
        "self_reported_heldout": view.heldout,
        "self_reported_group_peers": view.told_group,
    }


def _of_training(picture: Picture) -> dict[str, float | Labelled | None]:
    view, cover = picture.view, picture.view.coverage
    behind = sorted(view.behind.values())
    foremost = view.foremost
    return {
        "certificates": view.certificates,
        "epoch": view.epoch,
        "generation": view.generation,
        "epoch_spread": view.epoch_spread,
        "epochs_behind_median": behind[len(behind) // 2] if behind else 0,
        "branches": view.branches,
        "group_peers": view.group,
        "member_loss_terms": _by_member(foremost, view.loss_terms),
        "member_epochs_behind": _by_member(foremost, view.behind),
        "shards": cover.shards if cover else None,
        "shards_claimed": cover.claimed if cover else None,
        "claims": cover.claims if cover else None,
        "claiming_peers": cover.claiming if cover else None,
        "shards_by_claims": cover.by_claims if cover else None,
    }


def _of_verdicts(picture: Picture) -> dict[str, float | Labelled | None]:
    found = picture.found
    values: dict[str, float | Labelled | None] = {"verdict_round": 0, "last_good_epoch": 0}
    if not found.chain or found.ledger is None:
        return values
    newest = found.chain[-1]
    scores = Scores.of(newest.judgement)
    good = found.ledger.last_good
    accepted = [v.judgement for v in found.chain if v.judgement.candidate == good.state_root]
    return values | {
        "verdict_round": newest.judgement.round,
        "verdict_epoch": newest.judgement.epoch,
        "verdict_signers": len(newest.assents),
        "verdict_difference_nats": scores.difference_nats,
        "verdict_candidate_nats": scores.candidate_nats,
        "verdict_baseline_nats": scores.baseline_nats,
        "last_good_epoch": good.epoch,
        "last_good_nats": Scores.of(accepted[-1]).candidate_nats if accepted else None,
    }


def _of_records(picture: Picture) -> dict[str, float | Labelled | None]:
    found = picture.found
    kept = (found.peers, found.statuses, found.claims, found.good)
    return {
        "records": {kind: len(of) for kind, of in zip(RECORD_KINDS, kept, strict=True)},
        "targets": len(picture.targets.offered),
        "targets_refused": {why.value: n for why, n in picture.targets.counts().items()},
    }


def _by_member(peers: Iterable[str], values: Mapping[str, float]) -> dict[str, float]:
    """Return the values of `peers` that have one, by the end of their ids."""
    return {peer[-MEMBER_CHARS:]: values[peer] for peer in peers if peer in values}
