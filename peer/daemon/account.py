"""What this peer tells the run of how it does: gathered from its own events, put into the DHT.

Those who watch the run read it. Nothing that a peer does hangs on it.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable

from peer.errors import PeerError
from peer.events import Message, PartRefused, PeersSeen, Phase, PhaseChanged
from peer.observe.status import Snapshot
from peer.swarm.bodies import StatusBody
from peer.swarm.dht import Dht

log = logging.getLogger(__name__)

PUBLISH_S = 10.0
LIFETIME_S = 60.0

_ROOT_CHARS = 16
_LARGEST_COUNT = 10**9
_LARGEST_GROUP = 512
_LARGEST_RATE = 1e12
_LARGEST_SCORE = 1e6


class Account:
    """The sum of this worker's events, as others are told it; safe from any thread.

    Args:
        announce: Where /metrics may be scraped, if the volunteer opted in.
        monotonic_s: The monotonic clock.
    """

    def __init__(
        self, announce: str | None, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._announce = announce
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._snapshot = Snapshot(monotonic_s())
        self._phase = Phase.LOADING
        self._root_generation = 0
        self._refused = 0

    def listening(self, emit: Callable[[Message], None]) -> Callable[[Message], None]:
        """Return what takes events for `emit`, and for us."""

        def both(event: Message) -> None:
            self.apply(event)
            emit(event)

        return both

    def apply(self, event: Message) -> None:
        """Take in an event."""
        with self._lock:
            before = self._snapshot.root
            self._snapshot.apply(event, self._monotonic_s())
            if self._snapshot.root is not before:
                self._root_generation = self._snapshot.generation
            match event:
                case PhaseChanged():
                    self._phase = event.phase
                case PartRefused():
                    self._refused += 1
                case PeersSeen():
                    refused = (*event.refused_records.values(), *event.refused_requests.values())
                    self._refused += sum(refused)

    def body(self) -> StatusBody:
        """Return what to tell now; numbers that are not finite are left out, large ones cut."""
        with self._lock:
            seen, now_s = self._snapshot, self._monotonic_s()
            root, evaluated = seen.root, seen.evaluated
            return StatusBody(
                phase=self._phase.value,
                device=_device(seen.loaded.device if seen.loaded else "cpu"),
                generation=self._root_generation,
                epoch=root.epoch if root else 0,
                root=root.state_root[:_ROOT_CHARS] if root else None,
                group=min(seen.group, _LARGEST_GROUP),
                tokens_per_s=min(max(0.0, seen.tokens_per_second(now_s)), _LARGEST_RATE),
                loss_nats=_score(seen.loss),
                heldout=_score(evaluated.value if evaluated else None),
                committed=min(seen.committed, _LARGEST_COUNT),
                failed=min(seen.failed.total(), _LARGEST_COUNT),
                refused=min(self._refused, _LARGEST_COUNT),
                metrics=self._announce,
            )

    async def publish(self, dht: Dht, run_id: str) -> None:
        """Put it into the DHT, again and again."""
        while True:
            try:
                await dht.put(run_id, "status", self.body(), LIFETIME_S)
            except PeerError as error:
                log.debug("our status was not published: %s", error)
            await asyncio.sleep(PUBLISH_S)


def _device(name: str) -> str:
    """Return the class of a torch device such as `cuda:1`."""
    return name.partition(":")[0]


def _score(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return max(-_LARGEST_SCORE, min(value, _LARGEST_SCORE))
