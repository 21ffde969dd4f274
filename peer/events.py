"""What the worker tells the supervisor, and what the supervisor asks of the worker.

Both directions are frozen dataclasses, one JSON line each, over one socket pair. Counts are
increments since the previous event of the kind, so that the supervisor's totals survive the
worker's death. Nothing here knows who listens.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import TypeAdapter, ValidationError


class Phase(StrEnum):
    """What the worker is doing."""

    IMPORTING = "importing"
    LOADING = "loading"
    JOINING = "joining"
    TRAINING = "training"
    AVERAGING = "averaging"
    EVALUATING = "evaluating"
    PAUSED = "paused"
    FOLLOWING = "following"
    HOLDING = "holding"
    FINISHING = "finishing"


class RoundFailure(StrEnum):
    """Why a round brought nothing."""

    NOT_FINITE = "not_finite"
    REFUSED = "refused"
    NO_GROUP = "no_group"
    TRANSFER = "transfer"
    BAD_PART = "bad_part"
    NO_QUORUM = "no_quorum"
    ABANDONED = "abandoned"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A line on the pipe."""

    kinds: ClassVar[dict[str, type["Message"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the subclass under its name, which is its tag on the wire."""
        super().__init_subclass__(**kwargs)
        Message.kinds[cls.__name__] = cls

    def encode(self) -> bytes:
        """Return this message as one line of JSON, newline included."""
        body = {"kind": type(self).__name__, **dataclasses.asdict(self)}
        return json.dumps(body, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def decode(line: bytes) -> "Message":
        """Return the message that `line` holds.

        Raises:
            ValueError: The line is not JSON, of no known kind, or its fields do not fit.
        """
        try:
            body = json.loads(line)
        except RecursionError as error:
            raise ValueError("a message nested without end") from error
        if not isinstance(body, dict):
            raise ValueError("a message is a JSON object")  # noqa: TRY004 the line is at fault
        kind = Message.kinds.get(str(body.pop("kind", "")))
        if kind is None:
            raise ValueError(f"a message of an unknown kind: {line[:80]!r}")
        return kind.from_fields(body)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the message of this kind with `fields`; ValueError if they do not fit."""
        try:
            message: Self = _adapter(cls.__name__).validate_python(fields)
        except ValidationError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error
        return message


@functools.cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(Message.kinds[kind])


# ---- worker to supervisor


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseChanged(Message):
    """The worker does something else now, for a reason in words."""

    phase: Phase
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardChoice:
    """A shard this peer trains on, and why."""

    name: str
    bytes: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardsChosen(Message):
    """A pass over the data begins, on shards that were chosen anew."""

    shards: tuple[ShardChoice, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heartbeat(Message):
    """The worker is at something long that has a deadline of its own, and is not stuck."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTokenised(Message):
    """So many more characters of a shard, for training or held out, were made into tokens."""

    name: str
    characters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded(Message):
    """The model, the data and the global state are in memory; training can begin."""

    run_id: str
    run_name: str
    task: str
    peer_id: str
    device: str
    parameters: int
    epoch: int
    generation: int
    state_root: str | None
    checkpoint_unix_time_s: float | None
    """When the checkpoint that it resumed from was written; None at a run's beginning."""
    tokens_total: int
    """Tokens this peer has trained on in this run, earlier starts included."""
    micro_batch: int
    target_loss_terms: int
    heldout_name: str
    baselines: dict[str, float]
    shards: tuple[ShardChoice, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """A micro-batch, or several, were trained on."""

    samples: int
    tokens: int
    loss: float | None
    """Mean loss per loss term of these micro-batches, in nats."""
    contribution_samples: int
    contribution_weight: int
    """Loss terms gathered since the last epoch."""
    tokens_total: int
    """Tokens this peer has trained on in this run; less than before where work is repeated."""
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundCommitted(Message):
    """A certificate moved the global state on by one epoch, with this peer in its group or not."""

    epoch: int
    generation: int
    loss_terms: dict[str, int]
    """What each member of the group brought, by peer id."""
    loss: float | None
    """Mean loss per loss term of this peer's contribution, in nats; None if it is not in it."""
    seconds_by_phase: dict[str, float]
    """Empty where others did the work."""
    dropped_samples: int
    dropped_tokens: int
    """Work of this peer that the certificate does not hold and no other one can."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BranchLeft(Message):
    """This peer's state was not the run's, and it went over to the one that is."""

    reason: str
    epoch: int
    lost_epochs: int
    lost_weight: int
    """Loss terms of this peer in the epochs that the run does not know."""
    dropped_samples: int
    dropped_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationMoved(Message):
    """This peer is at another point of a validation round."""

    phase: str
    candidate_epoch: int | None
    seat: str | None
    """This peer's place among the called, in words."""
    round: int
    """Verdicts so far."""
    generation: int
    last_good_epoch: int
    last_good_root: str
    problem: str | None
    """What kept this peer from its part in the last round, in words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerdictAdopted(Message):
    """The run judged a checkpoint, and this peer holds to what was found."""

    round: int
    epoch: int
    state_root: str
    decision: str
    reason: str
    difference_nats: float
    """By how much the candidate is worse than the baseline."""
    signers: int
    called: int
    seat: str | None
    """This peer's place among the called, in words."""
    agreed: bool | None
    """Whether its score was among those that agree; None if it gave none."""
    struck: bool
    """Whether it got a strike."""
    small_swarm: bool
    """Whether too few were eligible for a committee of full size."""
    generation: int
    last_good_epoch: int
    last_good_root: str
    unix_time_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolledBack(Message):
    """This peer went over to the last good state, from where a new generation begins."""

    reason: str
    generation: int
    epoch: int
    lost_epochs: int
    dropped_samples: int
    dropped_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundFailed(Message):
    """A round brought nothing; what it was about is said in `detail`."""

    reason: RoundFailure
    detail: str
    dropped_samples: int
    dropped_tokens: int
    """Work in a contribution that no other round can use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeersSeen(Message):
    """Who else is in the run, and what moved between us since the last such event."""

    addresses: tuple[str, ...]
    reachability: str
    peers: tuple[dict[str, Any], ...]
    """As `peer.swarm.membership.describe` gives them."""
    sent_bytes: int
    received_bytes: int
    refused_records: dict[str, int]
    """Records of the DHT, by reason."""
    refused_requests: dict[str, int]
    """Requests for files, states and averages, by reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerMisbehaved(Message):
    """A peer did what the protocol does not allow; it is left out of groups for a while."""

    peer_id: str
    what: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartRefused(Message):
    """As a reducer, we left a peer's slice out of the average."""

    peer_id: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootComputed(Message):
    """The hash of the global state at an epoch is known."""

    epoch: int
    state_root: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated(Message):
    """The model was scored on held-out data."""

    epoch: int
    name: str
    value: float
    metrics: dict[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointWritten(Message):
    """A checkpoint is on the disk, whole."""

    state_root: str
    epoch: int
    bytes: int
    seconds: float
    unix_time_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFailed(Message):
    """A checkpoint could not be written; training goes on and the next epoch tries again."""

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointRejected(Message):
    """A checkpoint on the disk is not what its name says; it was set aside."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroBatchChanged(Message):
    """The device could not hold the micro-batch, or the configuration asks for another."""

    samples_before: int
    samples_after: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitFelt(Message):
    """A limit that the volunteer set keeps this peer from something, or does so no longer."""

    limit: str
    """Its name in peer.toml."""
    words: str | None
    """What it keeps it from; None once it is no longer so."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardQuarantined(Message):
    """A shard's bytes do not match its hash, or cannot be read: it is not trained on."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkRepeated(Message):
    """Work done after the last checkpoint was lost with the process and is done again."""

    samples: int
    tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogLine(Message):
    """A record of the worker's log."""

    level: str
    logger: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished(Message):
    """The worker ends because it was asked to or has nothing left to do."""

    epoch: int
    state_root: str
    reason: str
    saved: bool
    """Whether the last epoch is on the disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused(Message):
    """The worker cannot run as configured, and starting again would not help."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutOfMemory(Message):
    """The worker ends for want of memory and can be tried again with less work at once."""

    text: str


# ---- supervisor to worker


@dataclasses.dataclass(frozen=True, kw_only=True)
class Begin(Message):
    """The first line down: all that the worker needs to know."""

    home: str
    run_id: str
    paused: str | None
    """Why to begin paused, or None."""
    max_epochs: int | None
    hold: bool
    """Whether to stay and serve when the last epoch is complete."""
    addresses: tuple[str, ...]
    """Where an invite says that peers of the run are."""
    micro_batch_divisor: int
    """1, doubled by the supervisor each time the kernel killed the worker for its memory."""
    settings: dict[str, Any]
    """The peer.toml in force, as `Settings.model_dump(mode="json")` gives it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pause(Message):
    """Stop between two micro-batches, keep the contribution, give the device back."""

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume(Message):
    """Go on after a pause."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finish(Message):
    """Complete the epoch, write a checkpoint, end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop(Message):
    """Write a checkpoint of the last epoch and end now."""
