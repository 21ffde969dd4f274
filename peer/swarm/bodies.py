"""What a peer says of itself: that it is there, and what it trains on. Schemas only."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_LARGEST_COUNT = 10**9
_LATEST_S = 1e11

Time = Annotated[float, Field(ge=0.0, le=_LATEST_S, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
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
