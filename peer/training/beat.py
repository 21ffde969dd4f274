"""Signs of life: whoever keeps another waiting says now and then that it is still there."""

import asyncio
from typing import TypeVar

from peer.swarm.wire import Channel

BEAT_S = 1.0
"""How often whoever keeps another waiting gives a sign of life."""

_Result = TypeVar("_Result")


async def beating(channel: Channel, future: "asyncio.Future[_Result]") -> _Result:
    """Wait for `future`, with a sign of life on `channel` each second."""
    while True:
        done, _ = await asyncio.wait({future}, timeout=BEAT_S)
        if done:
            return future.result()
        await channel.send({"wait": True})
