"""Averaged parts, and how their bytes move: in frames, each within its deadline, then checked."""

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from peer.errors import MisbehavedError, StalledError
from peer.swarm.wire import Body, Channel
from peer.training import codec
from peer.training.certificate import PartDigest
from peer.training.muster import Limits
from peer.training.reducer import square_sum
from peer.training.state import Flat

FRAME_BYTES = 256 << 10
"""Small enough that a slow line brings one within the deadline of a frame."""

SLOWEST_BYTES_PER_S = 125_000
_INLINE_ELEMENTS = 1 << 18
_SUM_TOLERANCE = 1e-6

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Part:
    """An averaged part.

    Attributes:
        digest: What its reducer signed.
        data: The encoded bytes.
        values: What they decode to, fp32 [digest.elements].
    """

    digest: PartDigest
    data: Body
    values: Flat


def check_part(
    digest: PartDigest, data: Body, reducer: str, elements: int, group: str, codec_name: str
) -> Flat:
    """Return the decoded average fp32 [elements] of a part that is all that its reducer signed.

    Args:
        digest: What came with it.
        data: The encoded average.
        reducer: Who must have made it.
        elements: Numbers that there must be.
        group: The group's id.
        codec_name: How it is encoded.

    Raises:
        MisbehavedError: It is not.
    """
    if digest.reducer != reducer:
        raise MisbehavedError(f"{reducer} sends another's part")
    if digest.elements != elements or digest.digest != hashlib.sha256(data).hexdigest():
        raise MisbehavedError(f"the part of {reducer} is not what it signed")
    if (wrong := digest.problem(group)) is not None:
        raise MisbehavedError(wrong)
    try:
        values = codec.decode(data, elements, codec_name)
    except ValueError as error:
        raise MisbehavedError(f"the part of {reducer} cannot be decoded: {error}") from error
    measured = square_sum(values)
    if not np.isfinite(measured):
        raise MisbehavedError(f"the part of {reducer} is not finite")
    if abs(measured - digest.square_sum) > _SUM_TOLERANCE * max(measured, 1e-300):
        raise MisbehavedError(f"the norm that {reducer} signed is not its part's")
    return values


def joined(parts: Sequence[Part], codec_name: str) -> Flat:
    """Return the whole average fp32 [n] of `parts`; without a copy where they lie side by side."""
    data = [part.data for part in parts]
    first = data[0]
    if isinstance(first, memoryview) and isinstance(first.obj, bytearray):
        whole = memoryview(first.obj)
        together = all(isinstance(d, memoryview) and d.obj is first.obj for d in data)
        if together and len(whole) == sum(map(len, data)):
            average = codec.in_place(whole, codec_name)
            if average is not None:
                average.flags.writeable = False
                return average
    return np.concatenate([part.values for part in parts])


def transfer_timeout_s(limits: Limits, elements: int, codec_name: str) -> float:
    """Return how long the transfer of a whole round may take."""
    slowest_s = codec.encoded_bytes(elements, codec_name) / SLOWEST_BYTES_PER_S
    return limits.part_timeout_s + slowest_s


async def send_body(channel: Channel, data: Body, frame_timeout_s: float) -> None:
    """Send `data` in frames, each within its deadline.

    Raises:
        UnreachableError: The stream broke, or the other end takes nothing.
    """
    view = memoryview(data)
    for start in range(0, len(view), FRAME_BYTES):
        piece = view[start : start + FRAME_BYTES]
        await channel.may_send(len(piece))
        await timely(channel.send({}, piece), frame_timeout_s)


async def receive_body(
    channel: Channel, target: memoryview, frame_timeout_s: float, streams: int = 1
) -> None:
    """Fill `target` with the bytes that arrive in frames, each within its deadline.

    Args:
        channel: Where they come from.
        target: As many as there must be.
        frame_timeout_s: For each frame; not counted is how long our own line lets none in.
        streams: Among how many the other end divides its line.

    Raises:
        UnreachableError: The stream broke or stalls.
        MisbehavedError: A frame has another size than agreed.
    """
    at, size = 0, len(target)
    # As a whole, too: a byte in each frame would otherwise keep everybody waiting.
    slowest_s = size * streams / SLOWEST_BYTES_PER_S
    deadline_s = asyncio.get_running_loop().time() + frame_timeout_s + slowest_s
    while at < size:
        wanted = min(FRAME_BYTES, size - at)
        deadline_s += await channel.may_receive(wanted)
        left_s = deadline_s - asyncio.get_running_loop().time()
        body = (await timely(channel.receive(wanted), min(frame_timeout_s, left_s))).body
        if len(body) != wanted:  # nobody cuts slices smaller: that would draw them out
            raise MisbehavedError(
                f"{channel.remote} sends a frame of {len(body)} bytes instead of {wanted}"
            )
        target[at : at + len(body)] = body
        at += len(body)


async def timely(step: Awaitable[_Result], timeout_s: float) -> _Result:
    """Await `step`; StalledError if it takes longer than `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await step
    except TimeoutError as error:
        raise StalledError(f"nothing moved for {timeout_s:.0f} s") from error


async def offload(elements: int, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run `function`, in a thread where its work on `elements` numbers would block the others."""
    if elements <= _INLINE_ELEMENTS:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)
