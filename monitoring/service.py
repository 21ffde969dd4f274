"""The exporter at work: it watches, and shows what it sees until it is told to stop."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from monitoring import board
from monitoring.watched import Watched
from monitoring.watcher import Picture, Watcher
from monitoring.web import Site, problem_of
from peer.errors import CtpeerError
from peer.observe.serving import Address, listen, serving, url_of

_BEAT_S = 5.0
_ONCE_S = 120.0
_COMPLETE_S = 30.0


async def serve(
    watched: Watched,
    address: Address,
    names: Iterable[str],
    stop: asyncio.Event,
    on_started: Callable[[str], None],
    on_beat: Callable[[str | None, bool], None],
) -> None:
    """Serve until `stop`.

    Args:
        watched: What to watch.
        address: Where to serve.
        names: Host names under which it may be asked.
        stop: Ends it.
        on_started: Is told the URL, once.
        on_beat: Is told every few seconds what is wrong, or None, and whether crawls come to an
            end: for whoever supervises this process.

    Raises:
        ConfigurationError: The address cannot be had, or the clock is wrong.
        CtpeerError: p2pd does not start, or the crawl ended.
    """
    watcher = Watcher(watched)
    listener = listen(*address, what="the swarm's page", choice="--listen")
    async with serving(Site(watcher, names).app(), listener):
        try:
            await asyncio.to_thread(watcher.start)
            on_started(url_of(listener))
            while not stop.is_set():
                on_beat(problem_of(watcher), watcher.moves)
                if not watcher.alive:
                    raise CtpeerError("the crawl ended unexpectedly; the log says why")
                await _wait(stop, _BEAT_S)
        finally:
            await asyncio.to_thread(watcher.stop)


def look_once(watched: Watched) -> dict[str, Any]:
    """Return the whole picture of one crawl that found all it looks for, or of the best one.

    Raises:
        ConfigurationError: The clock is wrong.
        CtpeerError: p2pd does not start, or nobody of the run can be reached.
    """
    watcher = Watcher(watched)
    try:
        watcher.start()
        picture = _first(watcher)
        run_id, found, view = watched.run_id, picture.found, picture.view
        return board.swarm(run_id, found, view, watcher.totals) | {
            "leaderboard": board.leaderboard(run_id, found, view)["peers"],
            "judged": board.verdicts(run_id, found)["verdicts"],
        }
    finally:
        watcher.stop()


def _first(watcher: Watcher) -> Picture:
    began_s = time.monotonic()
    while time.monotonic() - began_s < _ONCE_S:
        watcher.wait(1.0)
        picture = watcher.picture
        patient = time.monotonic() - began_s < _COMPLETE_S
        if picture is not None and (watcher.crawls["complete"] or not patient):
            return picture
    raise CtpeerError(
        f"no peer of {watcher.watched.run_id} was reached in {_ONCE_S:.0f} s; check the network, "
        "or name another peer with --peers"
    )


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return
