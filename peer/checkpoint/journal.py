"""How far work went beyond the last checkpoint, so that what a crash costs can be counted."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Self

from peer.clock import Clock

log = logging.getLogger(__name__)

_INTERVAL_S = 1.0


@dataclasses.dataclass(frozen=True)
class Work:
    """Rows and tokens trained on in a run, over all starts."""

    samples: int
    tokens: int

    def beyond(self, other: Self) -> "Work":
        """Return how much more this is than `other`; never negative."""
        return Work(max(0, self.samples - other.samples), max(0, self.tokens - other.tokens))


class Journal:
    """A small file, rewritten at most once a second; losing it loses only a count."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._written_s = -_INTERVAL_S

    def read(self) -> Work:
        """Return the work last recorded; none where there is no readable record."""
        try:
            body = json.loads(self._path.read_text())
            return Work(int(body["samples"]), int(body["tokens"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return Work(0, 0)

    def record(self, work: Work) -> None:
        """Remember `work`, unless that was done within the last second."""
        now_s = self._clock.monotonic_s()
        if now_s - self._written_s < _INTERVAL_S:
            return
        self._written_s = now_s
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(dataclasses.asdict(work)))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("the count of work since the last checkpoint was not kept: %s", error)
