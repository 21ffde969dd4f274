"""An endless stream of rows from the chosen shards, which resumes exactly where it stood.

A pass goes over a frozen list of shards once, in an order of its own; a shard that is added to the
choice comes with the next pass, one that is taken out goes at once. Where the stream stands is a
`Cursor`, small enough for a checkpoint.
"""

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from peer.data.index import Shard
from peer.errors import ConfigurationError, DamagedError, UnavailableError

log = logging.getLogger(__name__)

Row = Any
"""What a task makes of an example; the stream does not look inside."""

_OPEN_TIMEOUT_S = 86_400
_PATIENCE = 20
"""For the first tokenisation of a huge shard on a slow machine."""


class Examples(Protocol):
    """A shard's rows, as a task cut them."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Return row `index`."""
        ...


@dataclasses.dataclass(frozen=True)
class Cursor:
    """A place in the stream: the next row is row `row` of shard `shard` of this pass.

    Attributes:
        pass_number: How many passes were completed.
        shards: The hashes of this pass's shards, in its order.
        shard: An index into `shards`.
        row: How many rows of that shard, in this pass's order, are done.
    """

    pass_number: int
    shards: tuple[str, ...]
    shard: int
    row: int

    def to_json(self) -> dict[str, Any]:
        """Return the cursor as JSON has it."""
        return dataclasses.asdict(self) | {"shards": list(self.shards)}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Cursor":
        """Undo `to_json`."""
        return cls(int(body["pass_number"]), tuple(body["shards"]), body["shard"], body["row"])


@dataclasses.dataclass(frozen=True)
class RowKey:
    """Names one row in one pass: all randomness about a row is drawn from its key."""

    pass_number: int
    shard_sha256: str
    row: int

    def seed(self) -> int:
        """Return 128 bits for a generator, the same wherever and whenever the row is taken."""
        text = f"{self.pass_number}\n{self.shard_sha256}\n{self.row}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


class Stream:
    """Rows without end.

    Args:
        shards: The chosen shards.
        open_shard: Returns a shard's rows, or raises DamagedError. Called in a thread beside
            training, for one shard ahead.
        seed: Decides the order of shards and rows.
        cursor: Where to go on, if anywhere.
        on_quarantine: Told of a shard that cannot be used, and why.
        on_wait: Called about once a second while a shard is being opened.
        renew: Gives the shards of each further pass, which may have become others.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        open_shard: Callable[[Shard], Examples],
        seed: bytes,
        cursor: Cursor | None = None,
        on_quarantine: Callable[[Shard, str], None] = lambda _shard, _reason: None,
        on_wait: Callable[[], None] = lambda: None,
        renew: Callable[[], Sequence[Shard]] | None = None,
    ) -> None:
        self._shards = {shard.sha256: shard for shard in shards}
        self._open_shard = open_shard
        self._seed = seed
        self._on_quarantine = on_quarantine
        self._on_wait = on_wait
        self._renew = renew
        self._unusable: set[str] = set()
        self._refusals: dict[str, int] = {}
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._opened: dict[str, Future[Examples]] = {}
        self._cursor = cursor or self._pass(0)
        self._examples: Examples | None = None
        self._order: npt.NDArray[np.int64] | None = None

    @property
    def cursor(self) -> Cursor:
        """Where the stream stands: after the rows last taken."""
        return self._cursor

    def seek(self, cursor: Cursor) -> None:
        """Go to `cursor`, which this stream or one of the same seed gave."""
        self._cursor, self._examples, self._order = cursor, None, None

    def take(self, count: int) -> list[tuple[RowKey, Row]]:
        """Return the next `count` rows with their keys.

        Raises:
            ConfigurationError: No shard can be used.
        """
        rows: list[tuple[RowKey, Row]] = []
        while len(rows) < count:
            examples, order = self._current()
            at = self._cursor
            places = order[at.row : at.row + count - len(rows)]
            for place in map(int, places):
                key = RowKey(at.pass_number, at.shards[at.shard], place)
                rows.append((key, examples[place]))
            self._move(at.row + len(places), len(order))
        return rows

    def _move(self, row: int, rows: int) -> None:
        """Step to `row` of the shard, or to the next shard or pass if its `rows` are done."""
        at = self._cursor
        if row < rows:
            self._cursor = dataclasses.replace(at, row=row)
            return
        self._examples = self._order = None
        self._opened.pop(at.shards[at.shard], None)
        if at.shard + 1 < len(at.shards):
            self._cursor = dataclasses.replace(at, shard=at.shard + 1, row=0)
        else:
            self._cursor = self._pass(at.pass_number + 1)

    def _current(self) -> tuple[Examples, npt.NDArray[np.int64]]:
        """Return the rows of the present shard and their order, past any damaged shard."""
        while self._examples is None or self._order is None:
            at = self._cursor
            sha256 = at.shards[at.shard]
            try:
                self._examples = self._wait_for(self._open(sha256))
            except UnavailableError as error:
                if self._try_again_later(sha256):
                    continue
                self._quarantine(sha256, str(error))
                self._unusable.discard(sha256)
                continue
            except DamagedError as error:
                self._quarantine(sha256, str(error))
                continue
            draw = _draw(self._seed, at.pass_number, sha256)
            # RandomState, because numpy keeps its sequences the same in every release.
            self._order = np.random.RandomState(np.frombuffer(draw, "<u4")).permutation(
                len(self._examples)
            )
            if at.shard + 1 < len(at.shards):
                self._open(at.shards[at.shard + 1])
        return self._examples, self._order

    def _try_again_later(self, sha256: str) -> bool:
        """Wait a little for a shard that nobody gives now; return False after too many times."""
        self._opened.pop(sha256, None)
        self._refusals[sha256] = self._refusals.get(sha256, 0) + 1
        if self._refusals[sha256] > _PATIENCE:
            del self._refusals[sha256]
            return False
        time.sleep(1.0)
        self._on_wait()
        return True

    def _wait_for(self, opening: Future[Examples]) -> Examples:
        for _ in range(_OPEN_TIMEOUT_S):
            if wait((opening,), timeout=1.0).done:
                break
            self._on_wait()
        return opening.result(0.0)

    def _open(self, sha256: str) -> Future[Examples]:
        if sha256 not in self._opened:
            self._opened[sha256] = self._ahead.submit(self._open_known, sha256)
        return self._opened[sha256]

    def _open_known(self, sha256: str) -> Examples:
        shard = self._shards.get(sha256)
        if shard is None:
            raise DamagedError("it is no longer among this peer's shards")
        examples = self._open_shard(shard)
        if not len(examples):
            raise DamagedError("it makes no row")
        return examples

    def _quarantine(self, sha256: str, reason: str) -> None:
        """Leave a shard out, of this pass and the next ones."""
        shard = self._shards.pop(sha256, None)
        self._unusable.add(sha256)
        if shard is not None:
            log.warning("shard %s is not trained on: %s", shard.name, reason)
            self._on_quarantine(shard, reason)
        at = self._cursor
        left = tuple(other for other in at.shards if other != sha256)
        if at.shard < len(left):
            self._cursor = dataclasses.replace(at, shards=left, row=0)
        else:
            self._cursor = self._pass(at.pass_number + 1)

    def _pass(self, number: int) -> Cursor:
        if number > 0 and self._renew is not None:
            chosen = {shard.sha256: shard for shard in self._renew()}
            usable = {hash_: s for hash_, s in chosen.items() if hash_ not in self._unusable}
            self._shards = usable or self._shards
        if not self._shards:
            raise ConfigurationError(
                "none of the chosen shards can be trained on; see the log for each one's reason"
            )
        order = sorted(self._shards, key=lambda sha256: _draw(self._seed, number, sha256))
        return Cursor(number, tuple(order), 0, 0)


def _draw(seed: bytes, pass_number: int, sha256: str) -> bytes:
    return hashlib.sha256(seed + f"\n{pass_number}\n{sha256}".encode()).digest()
