"""A bound on the streams that a server has open at once, whoever opened them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from peer.errors import DeclinedError, StalledError

_QUEUE_TIMEOUT_S = 4.0


class Admission:
    """Bounds the streams that are open at once: all, those of one peer, and those with a turn.

    A stream too many is declined at once. One that was admitted waits a while for its turn before
    it is declined, too. Whoever keeps one waiting beyond a deadline of its server is counted.

    Args:
        refused: Where those that are declined are counted, as "busy", and those that stall, as
            "slow".
        streams: How many are open at most.
        of_one_peer: How many of one peer.
        turns: How many have a turn at once; None: all that are open.
    """

    def __init__(
        self, refused: Counter[str], *, streams: int, of_one_peer: int, turns: int | None = None
    ) -> None:
        self._refused = refused
        self._streams = streams
        self._of_one_peer = of_one_peer
        self._turns = asyncio.Semaphore(streams if turns is None else turns)
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def stream(self, remote: str) -> Iterator[None]:
        """Have a stream of the peer `remote` open.

        Raises:
            DeclinedError: Too many are open already.
            StalledError: Nothing moved on it; counted here, raised by who waited.
        """
        if self._open[remote] >= self._of_one_peer or self._open.total() >= self._streams:
            raise self._busy()
        self._open[remote] += 1
        try:
            yield
        except StalledError:
            self._refused["slow"] += 1
            raise
        finally:
            self._open[remote] -= 1
            self._open += Counter()  # forget who is gone

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have a turn, for a stream that is open.

        Raises:
            DeclinedError: It did not come in time.
        """
        try:
            async with asyncio.timeout(_QUEUE_TIMEOUT_S):
                await self._turns.acquire()
        except TimeoutError as error:
            raise self._busy() from error
        try:
            yield
        finally:
            self._turns.release()

    def _busy(self) -> DeclinedError:
        self._refused["busy"] += 1
        return DeclinedError("too many ask at once; ask again later")
