"""How fast a line must be for the deadlines of others. Pure."""

import dataclasses
import math

from peer.swarm.throttle import OVERHEAD
from peer.training import codec
from peer.training.muster import Limits
from peer.training.transfer import FRAME_BYTES, SLOWEST_BYTES_PER_S, transfer_timeout_s


@dataclasses.dataclass(frozen=True)
class Places:
    """Who does what in a group.

    Attributes:
        members: Of the group.
        reducers: Of them, who reduce a part.
        reduces: Whether we are one of those.
    """

    members: int
    reducers: int
    reduces: bool = True


def needed_bytes_per_s(
    limits: Limits, elements: int, codec_name: str, places: Places
) -> tuple[float, float]:
    """Return the slowest rates, out and in, with which a member of a group keeps the deadlines.

    Each member sends every other reducer its slice of the contribution, and each reducer then sends
    every other member its part's average; as much comes in. All of that has to fit into the time of
    a transfer. A slice, and a part, has a deadline of its own at the other end, and so has each of
    its frames; the line serves all streams in turn. What comes in has to be taken off each sender
    within the deadline of a frame; for the rest, nobody blames us for our own line.

    Args:
        limits: The deadlines.
        elements: Numbers in a contribution.
        codec_name: How they travel.
        places: Of the group.
    """
    part = codec.encoded_bytes(elements, codec_name) / places.reducers
    streams = places.members - 1
    slices = part * (places.reducers - places.reduces)
    averages = part * streams * places.reduces
    both_ways = (slices + averages) / transfer_timeout_s(limits, elements, codec_name)
    each_way = max(slices, averages) / _deadline_s(limits, part * streams)
    turns = streams if places.reduces else places.reducers
    frames = turns * min(FRAME_BYTES, part) / limits.frame_timeout_s
    return max(both_ways, each_way, frames), max(both_ways, frames)


def serving_bytes_per_s(frame_timeout_s: float, elements: int, codec_name: str) -> float:
    """Return the slowest rate with which a peer that missed a round gets its average from here.

    It is one peer's at a time, of an average in one part, as lone peers make them; a part of many
    has a deadline of its own, and is done with a little less.

    Args:
        frame_timeout_s: The other end's deadline for a frame.
        elements: Numbers in a contribution.
        codec_name: How they travel.
    """
    whole = codec.encoded_bytes(elements, codec_name)
    deadline_s = frame_timeout_s + whole / SLOWEST_BYTES_PER_S
    return max(whole / deadline_s, min(FRAME_BYTES, whole) / frame_timeout_s)


def _deadline_s(limits: Limits, size: float) -> float:
    """Return how long a body may take that shares its sender's line, `size` bytes in all."""
    return limits.frame_timeout_s + size / SLOWEST_BYTES_PER_S


def complaint(direction: str, rate: float | None, needed: float, places: Places) -> str | None:
    """Return in words that a line of `rate` is too slow for a group, or None.

    Args:
        direction: `upload` or `download`.
        rate: In bytes per second; None is not bounded.
        needed: As `needed_bytes_per_s` gives it.
        places: Of the group.
    """
    if rate is None or rate >= needed:
        return None
    remedy = "start with --client, " if places.reduces else ""
    return (
        f"limits.{direction}_mb_per_s is too low for a group of {places.members}: a round needs "
        f"{_mb(needed * OVERHEAD)} MB/s, so rounds with this peer fail; raise it, {remedy}"
        "or join a run with a smaller model or codec"
    )


def serving_complaint(
    line_rate: float | None, rate: float | None, needed: float
) -> tuple[str, str] | None:
    """Return the setting that keeps others from getting averages here, and that in words, or None.

    Args:
        line_rate: Of all that goes out, in bytes per second; None is not bounded.
        rate: Of what others fetch, as `Line.given` has it.
        needed: As `serving_bytes_per_s` gives it.
    """
    if rate is None or rate >= needed:
        return None
    if line_rate is not None and rate >= line_rate / 2:
        setting = "limits.upload_mb_per_s"
        found = f"{line_rate * OVERHEAD / 1e6:.2f} MB/s"
        least = f"{_mb(2 * needed * OVERHEAD)} MB/s, of which they have half"
    else:
        setting = "swarm.upload_bytes_per_s"
        found, least = f"{rate:,.0f} bytes/s", f"{math.ceil(needed):,} bytes/s"
    return setting, (
        f"an upload limit of {found} ({setting}) is too low for this run: serving averages to "
        f"peers that missed a round needs at least {least}, so they may get none from here; raise "
        "it, or join a run with a smaller model or codec"
    )


def _mb(size: float) -> str:
    """Return `size` in MB, rounded so that who does as it says has enough."""
    return f"{math.ceil(size / 1e4) / 100:,.2f}"
