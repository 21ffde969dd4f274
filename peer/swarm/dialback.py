"""Whether others can dial a peer: one asks another to try, and is told what came of it.

Who is asked dials only the address that the question came from, at a port that the question names,
once in a while for each, and says no more than whether something there spoke as libp2p does.
"""

import asyncio
import contextlib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peer.config.address import parse_address
from peer.errors import DeclinedError, MisbehavedError
from peer.swarm.wire import Channel, Transport, call, scoped

GREETING = b"\x13/multistream/1.0.0\n"
"""What a libp2p node says first to whoever dials it (multistream-select 1.0)."""

_NAME = "dialback"
_DIAL_TIMEOUT_S = 3.0
_REQUEST_TIMEOUT_S = 5.0
_PAUSE_S = 5.0
_REMEMBERED = 256
_LOWEST_PORT = 1024


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    port: Annotated[int, Field(ge=_LOWEST_PORT, le=65535)]


class DialBack:
    """Dials back whoever asks. Call `start`.

    Args:
        transport: Where it serves.
        run_id: The run.
    """

    def __init__(self, transport: Transport, run_id: str) -> None:
        self._transport = transport
        self._run_id = run_id
        self._asked_s: dict[str, float] = {}  # by address: ids cost nothing

    async def start(self) -> None:
        """Serve from now on."""
        await self._transport.serve(scoped(self._run_id, _NAME), self._answer)

    async def _answer(self, channel: Channel) -> None:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            header = (await channel.receive()).header
        try:
            port = _Request.model_validate(header).port
        except ValidationError as error:
            raise MisbehavedError("a question to be dialled names a port") from error
        came_from = parse_address(channel.address)
        if came_from is None or not came_from.ip or came_from.relayed:
            raise DeclinedError("it cannot be seen from here where you are")
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_s.pop(came_from.ip, float("-inf")) < _PAUSE_S:
            self._asked_s[came_from.ip] = now_s
            raise DeclinedError("you asked a moment ago")
        self._asked_s[came_from.ip] = now_s
        while len(self._asked_s) > _REMEMBERED:
            self._asked_s.pop(next(iter(self._asked_s)))
        await channel.send({"reached": await greets(came_from.ip, port), "ip": came_from.ip})


async def greets(ip: str, port: int) -> bool:
    """Return whether a libp2p node answers at an address."""
    writer = None
    try:
        async with asyncio.timeout(_DIAL_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(ip, port)
            return await reader.readexactly(len(GREETING)) == GREETING
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def ask_to_dial(transport: Transport, run_id: str, peer: str, port: int) -> tuple[bool, str]:
    """Return whether `peer` could dial us at `port`, and under which address it sees us.

    Raises:
        PeerError: It does not say.
    """
    timeout_s = _DIAL_TIMEOUT_S + _REQUEST_TIMEOUT_S
    name = scoped(run_id, _NAME)
    header = (await call(transport, peer, name, {"port": port}, timeout_s=timeout_s)).header
    return header.get("reached") is True, str(header.get("ip"))[:64]
