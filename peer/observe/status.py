"""What is known of the worker, gathered from its events, and the status made of it."""

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from peer import __version__
from peer.events import (
    BranchLeft,
    CheckpointFailed,
    CheckpointRejected,
    CheckpointWritten,
    Evaluated,
    LimitFelt,
    Loaded,
    Message,
    MicroBatchChanged,
    PartRefused,
    PeerMisbehaved,
    PeersSeen,
    Progress,
    RolledBack,
    RootComputed,
    RoundCommitted,
    RoundFailed,
    ShardChoice,
    ShardQuarantined,
    ShardsChosen,
    ValidationMoved,
    VerdictAdopted,
    WorkRepeated,
)
from peer.observe.history import History
from peer.validation.state import Phase

SCHEMA_VERSION = 1

_LOSS_EPOCHS = 10
_RATE_WINDOW_S = 30.0
_SPARK_POINTS = 240
_COMMITS_KEPT = 512
_SEATED = {Phase.COMMIT, Phase.REVEAL, Phase.VERDICT}
"""Phases of a validation round in which those who are called have something to do."""


@dataclasses.dataclass(frozen=True)
class SavedState:
    """The newest checkpoint on the disk: what it holds, and when it was written."""

    state_root: str
    epoch: int
    unix_time_s: float


@dataclasses.dataclass(frozen=True)
class Commit:
    """A certificate that this peer took in: the epoch that it led to, and who brought what."""

    epoch: int
    generation: int
    loss_terms: dict[str, int]


@dataclasses.dataclass
class Snapshot:
    """The sum of all events so far; outlives the workers that sent them."""

    started_s: float
    loaded: Loaded | None = None
    epoch: int = 0
    generation: int = 0
    root: RootComputed | None = None
    tokens_total: int = 0
    micro_batch: int = 0
    contribution_samples: int = 0
    contribution_weight: int = 0
    committed: int = 0
    group: int = 0
    commits: deque[Commit] = dataclasses.field(default_factory=lambda: deque(maxlen=_COMMITS_KEPT))
    peers: PeersSeen | None = None
    misbehaved: dict[str, str] = dataclasses.field(default_factory=dict)
    refused_parts: int = 0
    lost_epochs: int = 0
    lost_weight: int = 0
    last_branch_left: str | None = None
    rollbacks: int = 0
    last_rollback: str | None = None
    validation: ValidationMoved | None = None
    verdict: VerdictAdopted | None = None
    accepted: VerdictAdopted | None = None
    decisions: Counter[str] = dataclasses.field(default_factory=Counter)
    seats_held: int = 0
    seats_scored: int = 0
    seats_agreed: int = 0
    strikes: int = 0
    failed: Counter[str] = dataclasses.field(default_factory=Counter)
    last_failure: RoundFailed | None = None
    evaluated: Evaluated | None = None
    checkpoint: SavedState | None = None
    checkpoint_problem: str | None = None
    limits_felt: dict[str, str] = dataclasses.field(default_factory=dict)
    repeated_tokens: int = 0
    dropped_tokens: int = 0
    shards: tuple[ShardChoice, ...] = ()
    quarantined: dict[str, str] = dataclasses.field(default_factory=dict)
    restarts: Counter[str] = dataclasses.field(default_factory=Counter)
    losses: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=_SPARK_POINTS))
    scores: deque[tuple[int, float]] = dataclasses.field(
        default_factory=lambda: deque(maxlen=_SPARK_POINTS)
    )
    history: History = dataclasses.field(default_factory=History)
    _rate: deque[tuple[float, int]] = dataclasses.field(default_factory=deque)

    def apply(self, event: Message, now_s: float) -> None:  # noqa: C901, PLR0912, PLR0915 one case an event
        """Take in `event`, which came at `now_s` on the monotonic clock."""
        match event:
            case Loaded():
                self._load(event)
            case Progress():
                self._progress(event, now_s)
            case RoundCommitted():
                self._commit(event)
            case BranchLeft():
                self._leave_branch(event)
            case RolledBack():
                self._roll_back(event)
            case ValidationMoved():
                self.validation = event
            case VerdictAdopted():
                self._take_verdict(event)
            case PeersSeen():
                self.peers = event
            case PeerMisbehaved():
                self.misbehaved[event.peer_id] = event.what
                while len(self.misbehaved) > _COMMITS_KEPT:
                    self.misbehaved.pop(next(iter(self.misbehaved)))
            case PartRefused():
                self.refused_parts += 1
            case RoundFailed():
                self.failed[event.reason] += 1
                self.last_failure = event
                self.dropped_tokens += event.dropped_tokens
            case RootComputed():
                self.root = event
            case Evaluated():
                self.evaluated = event
                self.scores.append((event.epoch, event.value))
                self.history.heldout.add(event.epoch, event.value)
            case CheckpointWritten():
                self.checkpoint = SavedState(event.state_root, event.epoch, event.unix_time_s)
                self.checkpoint_problem = None
            case CheckpointFailed():
                self.checkpoint_problem = event.reason
            case CheckpointRejected():
                self.checkpoint_problem = f"{event.name} was damaged and set aside: {event.reason}"
            case MicroBatchChanged():
                self.micro_batch = event.samples_after
            case LimitFelt():
                self.limits_felt.pop(event.limit, None)
                if event.words is not None:
                    self.limits_felt[event.limit] = event.words
            case WorkRepeated():
                self.repeated_tokens += event.tokens
            case ShardsChosen():
                self.shards = event.shards
            case ShardQuarantined():
                self.quarantined[event.name] = event.reason

    def worker_died(self, failure: str) -> None:
        """Count a worker's death of class `failure`; its work since the last epoch is gone."""
        self.restarts[failure] += 1
        self.contribution_samples = self.contribution_weight = 0
        self._rate.clear()

    def tokens_per_second(self, now_s: float) -> float:
        """Return the rate over the last half minute, or since the first progress."""
        recent = [(at_s, tokens) for at_s, tokens in self._rate if now_s - at_s <= _RATE_WINDOW_S]
        if not recent:
            return 0.0
        # The first entry marks where the window begins: its tokens came before that.
        seconds = now_s - recent[0][0]
        return sum(tokens for _, tokens in recent[1:]) / seconds if seconds > 0 else 0.0

    @property
    def loss(self) -> float | None:
        """The mean loss of the last ten epochs, in nats; None before the first."""
        recent = list(self.losses)[-_LOSS_EPOCHS:]
        return sum(recent) / len(recent) if recent else None

    def _commit(self, event: RoundCommitted) -> None:
        self.committed += 1
        self.epoch, self.generation = event.epoch, event.generation
        self.group = len(event.loss_terms)
        self.commits.append(Commit(event.epoch, event.generation, event.loss_terms))
        self.contribution_samples = self.contribution_weight = 0
        self.dropped_tokens += event.dropped_tokens
        self.history.group.add(event.epoch, self.group)
        if event.loss is not None:
            self.losses.append(event.loss)
            self.history.loss.add(event.epoch, event.loss)

    def _leave_branch(self, event: BranchLeft) -> None:
        self.epoch = event.epoch
        self.history.back_to(event.epoch)
        self.contribution_samples = self.contribution_weight = 0
        self.dropped_tokens += event.dropped_tokens
        self.lost_epochs += event.lost_epochs
        self.lost_weight += event.lost_weight
        self.last_branch_left = event.reason

    def _roll_back(self, event: RolledBack) -> None:
        self.epoch, self.generation = event.epoch, event.generation
        self.history.back_to(event.epoch)
        self.contribution_samples = self.contribution_weight = 0
        self.dropped_tokens += event.dropped_tokens
        self.rollbacks += 1
        self.last_rollback = event.reason

    def _take_verdict(self, event: VerdictAdopted) -> None:
        self.verdict = event
        self.decisions[event.decision] += 1
        if event.last_good_root == event.state_root:
            self.accepted = event
        self.seats_held += event.seat is not None
        self.seats_scored += event.agreed is not None
        self.seats_agreed += event.agreed is True
        self.strikes += event.struck

    def _load(self, event: Loaded) -> None:
        self.loaded = event
        self.shards = event.shards
        self.epoch, self.generation = event.epoch, event.generation
        self.history.back_to(event.epoch)
        self.tokens_total, self.micro_batch = event.tokens_total, event.micro_batch
        if event.state_root is not None:
            self.root = RootComputed(epoch=event.epoch, state_root=event.state_root)
            self.checkpoint = SavedState(
                event.state_root, event.epoch, event.checkpoint_unix_time_s or 0.0
            )

    def _progress(self, event: Progress, now_s: float) -> None:
        self.tokens_total = event.tokens_total
        self.contribution_samples = event.contribution_samples
        self.contribution_weight = event.contribution_weight
        self._rate.append((now_s, event.tokens))
        while self._rate and now_s - self._rate[0][0] > _RATE_WINDOW_S:
            self._rate.popleft()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the supervisor knows without the worker.

    Attributes:
        state: What the daemon does.
        reason: Why, in words.
        now_s: The monotonic clock.
        unix_time_s: The wall clock.
        rss_bytes: Resident memory by process.
        metrics_url: Where /metrics is served.
        page_url: Where the page is, with its key; None where there is none.
        run_id: The run.
        role: What the volunteer wants the peer to be: a trainer or a validator.
        pid: The supervisor's process id.
        worker_pid: The worker's, if there is one.
        invite: What others join with; None while this peer has no address.
        disk_free_bytes: What the home's disk has left; None if it cannot be asked.
        pause: Who or what asks for a pause.
        limits: What the volunteer allows, by name.
    """

    state: str
    reason: str
    now_s: float
    unix_time_s: float
    rss_bytes: Mapping[str, int]
    metrics_url: str
    run_id: str
    role: str
    pid: int
    worker_pid: int | None
    invite: str | None = None
    disk_free_bytes: int | None = None
    page_url: str | None = None
    pause: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def render(snapshot: Snapshot, around: Surroundings) -> dict[str, Any]:
    """Return the status as JSON has it; every field is always there.

    JSON has no number that is not finite: what a diverged model scores is null.
    """
    status: dict[str, Any] = _finite(_render(snapshot, around))
    return status


def _render(snapshot: Snapshot, around: Surroundings) -> dict[str, Any]:
    loaded = snapshot.loaded
    return {
        "schema": SCHEMA_VERSION,
        "version": __version__,
        "state": around.state,
        "reason": around.reason,
        "run_id": around.run_id,
        "role": around.role,
        "invite": around.invite,
        "run_name": loaded.run_name if loaded else None,
        "task": loaded.task if loaded else None,
        "peer_id": loaded.peer_id if loaded else None,
        "parameters": loaded.parameters if loaded else None,
        "epoch": snapshot.epoch if loaded else None,
        "generation": snapshot.generation,
        "state_root": snapshot.root.state_root if snapshot.root else None,
        "state_root_epoch": snapshot.root.epoch if snapshot.root else None,
        "loss": snapshot.loss,
        "losses": list(snapshot.losses),
        "heldout": _heldout(snapshot),
        "tokens_total": snapshot.tokens_total,
        "tokens_per_second": snapshot.tokens_per_second(around.now_s),
        "tokens_repeated": snapshot.repeated_tokens,
        "tokens_dropped": snapshot.dropped_tokens,
        "micro_batch": snapshot.micro_batch,
        "pause": dict(around.pause),
        "limits": {**around.limits, "felt": dict(snapshot.limits_felt)},
        "contribution": {
            "samples": snapshot.contribution_samples,
            "weight": snapshot.contribution_weight,
            "target_weight": loaded.target_loss_terms if loaded else None,
        },
        "loss_terms_lost_in_branches": snapshot.lost_weight,
        "epochs_lost_in_branches": snapshot.lost_epochs,
        "last_branch_left": snapshot.last_branch_left,
        **_swarm(snapshot),
        "validation": _validation(snapshot, around.unix_time_s),
        "rollbacks": snapshot.rollbacks,
        "last_rollback": snapshot.last_rollback,
        "rounds": {
            "committed": snapshot.committed,
            "failed": snapshot.failed.total(),
            "failed_by_reason": dict(snapshot.failed),
            "last_failure": snapshot.last_failure.detail if snapshot.last_failure else None,
            "group": snapshot.group,
        },
        "shards": [dataclasses.asdict(shard) for shard in snapshot.shards],
        "shards_quarantined": dict(snapshot.quarantined),
        "checkpoint": _checkpoint(snapshot, around.unix_time_s),
        "checkpoint_problem": snapshot.checkpoint_problem,
        "restarts": snapshot.restarts.total(),
        "restarts_by_reason": dict(snapshot.restarts),
        "uptime_s": around.now_s - snapshot.started_s,
        "device": loaded.device if loaded else None,
        "rss_bytes": sum(around.rss_bytes.values()),
        "disk_free_bytes": around.disk_free_bytes,
        "metrics_url": around.metrics_url,
        "page_url": around.page_url,
        "pid": around.pid,
        "worker_pid": around.worker_pid,
    }


def _swarm(snapshot: Snapshot) -> dict[str, Any]:
    """Return what is known of the other peers; all null or empty without a network."""
    seen = snapshot.peers
    peers = seen.peers if seen else ()
    answering = [peer for peer in peers if peer["state"] not in ("unreachable", "not asked yet")]
    return {
        "addresses": list(seen.addresses) if seen else [],
        "reachability": seen.reachability if seen else None,
        "peers": {
            "live": len(answering) + 1,
            "in_group": snapshot.group,
            "reachable": len(answering),
            "known": len(peers),
        },
        "swarm_peers": [dict(peer) for peer in peers],
        "peers_misbehaved": dict(snapshot.misbehaved),
        "parts_refused": snapshot.refused_parts,
    }


def _validation(snapshot: Snapshot, unix_time_s: float) -> dict[str, Any] | None:
    """Return where the judging of checkpoints stands; None where nothing is judged."""
    now, verdict, accepted = snapshot.validation, snapshot.verdict, snapshot.accepted
    if now is None:
        return None
    age_s = None if accepted is None else max(0.0, unix_time_s - accepted.unix_time_s)
    return {
        "phase": now.phase,
        "candidate_epoch": now.candidate_epoch,
        "seat": now.seat,
        "doing": _doing(now),
        "problem": now.problem,
        "round": now.round,
        "last_good": {
            "epoch": now.last_good_epoch,
            "state_root": now.last_good_root,
            "age_s": age_s,
        },
        "last_verdict": dataclasses.asdict(verdict) if verdict else None,
        "decisions": dict(snapshot.decisions),
        "seats_held": snapshot.seats_held,
        "seats_scored": snapshot.seats_scored,
        "seats_agreed": snapshot.seats_agreed,
        "strikes": snapshot.strikes,
    }


def _doing(now: ValidationMoved) -> str | None:
    """Return what this peer does as a validator, in words; None if nothing."""
    if now.seat is None or now.candidate_epoch is None or now.phase not in _SEATED:
        return None
    return f"{now.phase} epoch {now.candidate_epoch} as {now.seat}"


def _heldout(snapshot: Snapshot) -> dict[str, Any]:
    loaded, evaluated = snapshot.loaded, snapshot.evaluated
    return {
        "name": loaded.heldout_name if loaded else None,
        "value": evaluated.value if evaluated else None,
        "epoch": evaluated.epoch if evaluated else None,
        "metrics": dict(evaluated.metrics) if evaluated else {},
        "baselines": dict(loaded.baselines) if loaded else {},
        "history": [list(score) for score in snapshot.scores],
    }


def _checkpoint(snapshot: Snapshot, unix_time_s: float) -> dict[str, Any] | None:
    saved = snapshot.checkpoint
    if saved is None:
        return None
    age_s = max(0.0, unix_time_s - saved.unix_time_s)
    return {"root": saved.state_root, "epoch": saved.epoch, "age_s": age_s}


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
    return value
