"""What a peer says of itself: that it is there, what it trains on, how it does. Schemas only."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from peer.config.endpoint import MAX_ENDPOINT_CHARS

_LARGEST_COUNT = 10**9
_LATEST_S = 1e11

Time = Annotated[float, Field(ge=0.0, le=_LATEST_S, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
_Word = Annotated[str, Field(pattern=r"^[a-z]{1,16}$")]
_Rate = Annotated[float, Field(ge=0.0, le=1e12, allow_inf_nan=False)]
_Score = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Address = Annotated[str, Field(pattern=r"^/[!-~]{1,199}$")]


class RecordBody(BaseModel):
    """What a record says, apart from its place; see `peer.swarm.kinds`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class PeerBody(RecordBody):
    """That a peer is there and how to reach it. It moves nobody's epoch.

    Attributes:
        addresses: Multiaddrs that end with the peer's id.
        protocol: The version of the messages that it speaks.
        version: The code that it runs.
        generation: Rollbacks that it has seen.
        epoch: Its last committed epoch.
        client: Whether it can only be reached over connections that it opened itself.
        started_s: When it started, in seconds since the Unix epoch.
        now_s: What its clock said.
    """

    addresses: Annotated[tuple[_Address, ...], Field(max_length=8)]
    protocol: _Count
    version: Annotated[str, Field(pattern=r"^[!-~]{1,40}$")]
    generation: _Count
    epoch: _Count
    client: bool
    started_s: Time
    now_s: Time


class ClaimBody(RecordBody):
    """Which shards a peer trains on, in an encoding of its own."""

    shards: Annotated[str, Field(pattern=r"^[!-~]{0,3000}$")]


class StatusBody(RecordBody):
    """How a peer does, for those who watch the run; nothing here decides anything.

    Its version, epoch and clock are in `PeerBody`, the verdict that it holds to is in a record of
    its own, and what it contributed is in the certificates.

    Attributes:
        phase: What it does: a `peer.events.Phase`, of its own version.
        device: What it computes with: cpu or cuda.
        generation: Where `root` is of.
        epoch: Where `root` is of.
        root: The beginning of its state root there; None before the first is computed.
        group: How many peers were in its last committed round.
        tokens_per_s: Trained on lately.
        loss_nats: Its mean training loss lately.
        heldout: Its last score on held-out data, in the task's own unit.
        committed: Rounds that brought an average, since its start.
        failed: Rounds that brought none, since its start.
        refused: Records, requests and slices of others that it refused, since its start.
        metrics: Where its /metrics may be scraped, if its volunteer opted in.
    """

    phase: _Word
    device: _Word
    generation: _Count
    epoch: _Count
    root: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None
    group: Annotated[int, Field(ge=0, le=512)]
    tokens_per_s: _Rate
    loss_nats: _Score | None
    heldout: _Score | None
    committed: _Count
    failed: _Count
    refused: _Count
    metrics: (
        Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:\[\]]+$", max_length=MAX_ENDPOINT_CHARS)] | None
    ) = None
