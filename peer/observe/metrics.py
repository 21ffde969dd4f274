"""The Prometheus metrics of one peer.

Counters are fed by the worker's events and live in the supervisor, so that they survive the
worker; gauges are read off the status when Prometheus asks. Run and peer id are labels of the
target, not of the series.
"""

import math
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from peer import __version__
from peer.events import (
    BranchLeft,
    CheckpointFailed,
    CheckpointRejected,
    CheckpointWritten,
    Evaluated,
    Message,
    PartRefused,
    PeerMisbehaved,
    PeersSeen,
    Progress,
    RolledBack,
    RoundCommitted,
    RoundFailed,
    ShardQuarantined,
    VerdictAdopted,
    WorkRepeated,
)

ROUND_PHASES = ("gather", "matchmaking", "transfer", "reduce", "certify", "outer_step")
DECISIONS = ("accept", "inconclusive", "reject")
SURVIVED_PARTS = ("senses", "status")
PART_REFUSALS = ("not finite", "wrong shape", "wrong weight")
REQUEST_REFUSALS = ("busy", "damaged", "malformed", "slow", "unknown")

_ROUND_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of a peer, each present from the first scrape on.

    Args:
        states: Every state that the daemon can be in.
        failures: Every reason for which a round fails.
        deaths: Every class of a worker's death.
        refusals: Every reason for which a record is refused.
    """

    def __init__(
        self,
        states: Iterable[str],
        failures: Iterable[str],
        deaths: Iterable[str],
        refusals: Iterable[str],
    ) -> None:
        self.registry = CollectorRegistry()
        self._states = tuple(states)
        self._make_gauges()
        self._make_counters(failures, deaths)
        self._make_swarm(refusals)
        self._make_validation()
        build = Info("ctpeer_build", "The code that runs.", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})

    def _make_gauges(self) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ctpeer_{name}", text, labels, registry=self.registry)

        self._state = gauge("state", "1 for the state that the daemon is in.", "state")
        self._epoch = gauge("epoch", "The last committed epoch.")
        self._generation = gauge("generation", "How many rollbacks the run has seen.")
        self._loss = gauge("loss_nats", "Mean training loss of the last ten epochs.")
        self._heldout = gauge("heldout", "The score on held-out data.", "name")
        self._rate = gauge("tokens_per_second", "Tokens trained on, over half a minute.")
        self._weight = gauge("contribution_loss_terms", "Gathered since the last epoch.")
        self._group = gauge("group_peers", "Peers in the last committed round.")
        self._age = gauge("checkpoint_age_seconds", "Since the last checkpoint was written.")
        self._memory = gauge("resident_memory_bytes", "Resident memory.", "process")
        self._disk = gauge("disk_free_bytes", "What the disk under the home has left.")

    def _make_counters(self, failures: Iterable[str], deaths: Iterable[str]) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ctpeer_{name}", text, labels, registry=self.registry)

        self._tokens = counter("tokens", "Tokens trained on.")
        self._samples = counter("samples", "Rows trained on.")
        self._repeated = counter("repeated_tokens", "Tokens trained on anew after a crash.")
        self._dropped = counter("dropped_tokens", "Tokens in contributions that were of no use.")
        self._rounds = counter("rounds", "Rounds by result.", "result")
        self._sent = counter("sent_bytes", "Bytes sent to other peers.")
        self._received = counter("received_bytes", "Bytes received from other peers.")
        self._restarts = counter("restarts", "Deaths of the worker by reason.", "reason")
        self._checkpoints = counter("checkpoints", "Checkpoints by result.", "result")
        self._evaluations = counter("evaluations", "Evaluations on held-out data.")
        self._quarantined = counter("shards_quarantined", "Shards that could not be used.")
        self._junk = counter("worker_messages_refused", "Lines of the worker that made no sense.")
        self._failures = counter(
            "supervisor_failures", "Failures of the supervisor's parts that it survived.", "part"
        )
        self._round_seconds = Histogram(
            "ctpeer_round_seconds",
            "Where a round's time goes.",
            ("phase",),
            registry=self.registry,
            buckets=_ROUND_BUCKETS_S,
        )
        for result in ("committed", *failures):
            self._rounds.labels(result)
        for death in deaths:
            self._restarts.labels(death)
        for result in ("written", "failed", "rejected"):
            self._checkpoints.labels(result)
        for part in SURVIVED_PARTS:
            self._failures.labels(part)
        for phase in ROUND_PHASES:
            self._round_seconds.labels(phase)

    def _make_swarm(self, refusals: Iterable[str]) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ctpeer_{name}", text, labels, registry=self.registry)

        self._peers = Gauge(
            "ctpeer_peers", "Other peers of the run by state.", ("state",), registry=self.registry
        )
        self._records = counter("records_refused", "Records of the DHT refused.", "reason")
        self._requests = counter(
            "requests_refused", "Requests for files, states and averages refused.", "reason"
        )
        self._parts = counter("parts_refused", "Slices of contributions refused.", "reason")
        self._misbehaviour = counter("peer_misbehaviour", "What peers did that they must not.")
        self._branches = counter("branches_left", "Times that our state was not the run's.")
        self._lost = counter("branch_lost_epochs", "Epochs of ours that the run does not know.")
        for reason in refusals:
            self._records.labels(reason)
        for reason in REQUEST_REFUSALS:
            self._requests.labels(reason)
        for reason in (*PART_REFUSALS, "other"):
            self._parts.labels(reason)
        for state in ("known", "reachable"):
            self._peers.labels(state)

    def _make_validation(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ctpeer_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"ctpeer_{name}", text, registry=self.registry)

        self._verdicts = counter("verdicts", "Verdicts on checkpoints by decision.", "decision")
        self._seats = counter("validator_seats", "Times that this peer was called to judge.")
        self._scores = counter("validator_scores", "Our scores by whether others agree.", "agreed")
        self._strikes = counter("validator_strikes", "Verdicts that struck this peer.")
        self._rollbacks = counter("rollbacks", "Times that we went back to the last good state.")
        self._rolled = counter("rolled_back_epochs", "Epochs of ours that rollbacks undid.")
        self._good_epoch = gauge("last_good_epoch", "The epoch of the last accepted checkpoint.")
        self._good_age = gauge("last_good_age_seconds", "Since the last checkpoint was accepted.")
        self._difference = gauge(
            "verdict_difference_nats", "By how much the last candidate was worse than the baseline."
        )
        for decision in DECISIONS:
            self._verdicts.labels(decision)
        for agreed in ("yes", "no"):
            self._scores.labels(agreed)

    def apply(self, event: Message) -> None:  # noqa: C901, PLR0912 one case an event
        """Count `event`."""
        match event:
            case Progress():
                self._tokens.inc(event.tokens)
                self._samples.inc(event.samples)
            case RoundCommitted():
                self._rounds.labels("committed").inc()
                self._dropped.inc(event.dropped_tokens)
                for phase, seconds in event.seconds_by_phase.items():
                    self._round_seconds.labels(phase).observe(seconds)
            case PeersSeen():
                self._sent.inc(event.sent_bytes)
                self._received.inc(event.received_bytes)
                for reason, count in event.refused_records.items():
                    self._records.labels(reason).inc(count)
                for reason, count in event.refused_requests.items():
                    self._requests.labels(reason).inc(count)
            case PartRefused():
                kind = next((k for k in PART_REFUSALS if event.reason.startswith(k)), "other")
                self._parts.labels(kind).inc()
            case PeerMisbehaved():
                self._misbehaviour.inc()
            case BranchLeft():
                self._branches.inc()
                self._lost.inc(event.lost_epochs)
                self._dropped.inc(event.dropped_tokens)
            case VerdictAdopted():
                self._count_verdict(event)
            case RolledBack():
                self._rollbacks.inc()
                self._rolled.inc(event.lost_epochs)
                self._dropped.inc(event.dropped_tokens)
            case RoundFailed():
                self._rounds.labels(event.reason).inc()
                self._dropped.inc(event.dropped_tokens)
            case CheckpointWritten():
                self._checkpoints.labels("written").inc()
            case CheckpointFailed():
                self._checkpoints.labels("failed").inc()
            case CheckpointRejected():
                self._checkpoints.labels("rejected").inc()
            case WorkRepeated():
                self._repeated.inc(event.tokens)
            case Evaluated():
                self._evaluations.inc()
            case ShardQuarantined():
                self._quarantined.inc()

    def _count_verdict(self, event: VerdictAdopted) -> None:
        self._verdicts.labels(event.decision).inc()
        self._seats.inc(event.seat is not None)
        if event.agreed is not None:
            self._scores.labels("yes" if event.agreed else "no").inc()
        self._strikes.inc(event.struck)
        self._difference.set(event.difference_nats)

    def message_refused(self) -> None:
        """Count a line of the worker that made no sense."""
        self._junk.inc()

    def part_failed(self, part: str) -> None:
        """Count a failure of a part of the supervisor that goes on without it."""
        self._failures.labels(part).inc()

    def worker_died(self, failure: str) -> None:
        """Count a worker's death of class `failure`."""
        self._restarts.labels(failure).inc()

    def expose(self, status: Mapping[str, Any], rss_bytes: Mapping[str, int]) -> bytes:
        """Return the text that Prometheus scrapes, gauges as `status` has them."""
        for state in self._states:
            self._state.labels(state).set(state == status["state"])
        if status["epoch"] is not None:
            self._epoch.set(status["epoch"])
        self._generation.set(status["generation"])
        self._rate.set(status["tokens_per_second"])
        self._weight.set(status["contribution"]["weight"])
        self._group.set(status["rounds"]["group"])
        for state in ("known", "reachable"):
            self._peers.labels(state).set(status["peers"][state])
        if status["loss"] is not None:
            self._loss.set(status["loss"])
        if status["heldout"]["value"] is not None:
            self._heldout.labels(status["heldout"]["name"]).set(status["heldout"]["value"])
        if status["checkpoint"] is not None:
            self._age.set(status["checkpoint"]["age_s"])
        if status["validation"] is not None:
            good = status["validation"]["last_good"]
            self._good_epoch.set(good["epoch"])
            if good["age_s"] is not None:
                self._good_age.set(good["age_s"])
        free = status["disk_free_bytes"]
        self._disk.set(math.nan if free is None else free)  # zero would be an alarm
        for process in ("supervisor", "worker"):
            self._memory.labels(process).set(rss_bytes.get(process, 0))
        return generate_latest(self.registry)
