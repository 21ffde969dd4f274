"""How fast a line must be for the deadlines of a round. Pure."""

from peer.training import codec
from peer.training.muster import Limits
from peer.training.transfer import FRAME_BYTES, transfer_timeout_s


def needed_bytes_per_s(
    limits: Limits, elements: int, codec_name: str, members: int
) -> tuple[float, float]:
    """Return the slowest rates, out and in, with which a member of a group keeps the deadlines.

    Each member sends all but its own part of its contribution, and then its own part's average to
    all others; as much comes in. All of that has to fit into the time of a transfer. What comes in
    also has to be taken off each sender within the deadline of a frame.

    Args:
        limits: The deadlines.
        elements: Numbers in a contribution.
        codec_name: How they travel.
        members: Of the group.
    """
    whole = codec.encoded_bytes(elements, codec_name)
    moved = 2 * whole * (members - 1) / members
    both_ways = moved / transfer_timeout_s(limits, elements, codec_name)
    frame = min(FRAME_BYTES, whole / members)
    return both_ways, max(both_ways, frame * (members - 1) / limits.frame_timeout_s)


def complaint(direction: str, rate: float | None, needed: float, members: int) -> str | None:
    """Return in words that a line of `rate` is too slow for a group, or None.

    Args:
        direction: `upload` or `download`.
        rate: In bytes per second; None is not bounded.
        needed: As `needed_bytes_per_s` gives it.
        members: Of the group.
    """
    if rate is None or rate >= needed:
        return None
    return (
        f"limits.{direction}_mb_per_s is too low for a group of {members}: a round needs "
        f"{needed / 1e6:,.2f} MB/s, so rounds with this peer fail; raise it, start with --client, "
        "or join a run with a smaller codec"
    )
