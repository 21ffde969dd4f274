"""The worker's data: which shards it trains on, and the held-out rows it is scored on."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from peer.config.settings import Settings
from peer.data.choose import Choice, Preferences, choose
from peer.data.folder import scan
from peer.data.index import DataIndex, Shard
from peer.data.reader import read_examples
from peer.data.source import PeerShards, ShardSources
from peer.data.stream import Cursor, Examples, Stream
from peer.data.tokens import TokenCache
from peer.errors import ConfigurationError, CtpeerError, DamagedError, UnavailableError
from peer.events import (
    Heartbeat,
    Message,
    ShardChoice,
    ShardQuarantined,
    ShardsChosen,
    ShardTokenised,
)
from peer.run.directory import RunDirectory
from peer.tasks.task import HeldOutRows, Task

if TYPE_CHECKING:
    from peer.daemon.network import Network

_TOLD_CHARACTERS = 1 << 20
"""About a second's work; on a very slow machine, still far less than the supervisor waits."""
_PRIVATE_REASON = "it lies in the private folder and stays on this machine"


@dataclasses.dataclass(frozen=True)
class Feed:
    """Where training rows and held-out rows come from."""

    run: RunDirectory
    task: Task
    choices: tuple[Choice, ...]
    heldout: tuple[Shard, ...]
    sources: ShardSources
    emit: Callable[[Message], None]
    choose: Callable[[], tuple[Choice, ...]]
    fetches: bool

    @property
    def shard_choices(self) -> tuple[ShardChoice, ...]:
        """The chosen shards as the supervisor is told of them."""
        return _told(self.choices)

    def stream(self, seed: bytes, cursor: Cursor | None) -> Stream:
        """Return the rows of the chosen shards without end, from `cursor` on if there is one."""
        shards = [choice.shard for choice in self.choices]
        return Stream(
            shards,
            self.open_shard,
            seed,
            cursor,
            on_quarantine=self._quarantine,
            on_wait=lambda: self.emit(Heartbeat()),
            renew=self._renew,
        )

    def _renew(self) -> list[Shard]:
        """Choose anew, as others' claims are by now, and say so."""
        choices = self.choose()
        self.emit(ShardsChosen(shards=_told(choices)))
        return [choice.shard for choice in choices]

    def heldout_rows(self, *most: int) -> tuple[HeldOutRows, ...]:
        """Return rows of the held-out shards, evenly spread, for each number so many at most.

        Raises:
            ConfigurationError: A held-out shard is missing or damaged: scores without it would
                not compare with the other peers'.
            CtpeerError: It can be had from other peers only, and none gives it now.
        """
        try:
            opened = [(shard, self.open_shard(shard)) for shard in self.heldout]
        except DamagedError as error:
            if self.fetches and isinstance(error, UnavailableError):
                raise CtpeerError(f"no peer gives the held-out data now: {error}") from error
            raise ConfigurationError(
                f"the held-out data cannot be used: {error}; restore it where the run was founded"
            ) from error
        return tuple(self.task.heldout_rows(opened, each) for each in most)

    def open_shard(self, shard: Shard) -> Examples:
        """Return the rows of `shard`, its bytes verified."""
        texts = read_examples(shard, self.sources.read(shard))
        cache = TokenCache(self.run.path / "tokens")
        return self.task.examples(shard, texts, cache, _Teller(shard.name, self.emit))

    def _quarantine(self, shard: Shard, reason: str) -> None:
        self.emit(ShardQuarantined(name=shard.name, reason=reason))


class _Teller:
    """Says now and then that a shard is being tokenised, by the work that was done.

    Not by a clock: whoever listens takes it for progress.
    """

    def __init__(self, name: str, emit: Callable[[Message], None]) -> None:
        self._name = name
        self._emit = emit
        self._characters = 0

    def __call__(self, characters: int) -> None:
        self._characters += characters
        if self._characters >= _TOLD_CHARACTERS:
            self._emit(ShardTokenised(name=self._name, characters=self._characters))
            self._characters = 0


def open_feed(
    run: RunDirectory,
    index: DataIndex,
    task: Task,
    settings: Settings,
    peer_id: str,
    network: "Network | None",
    emit: Callable[[Message], None],
) -> Feed:
    """Choose this peer's shards, by its preferences, others' claims and its private folder.

    Raises:
        ConfigurationError: Nothing is left to train on.
    """
    wanted = settings.data
    preferences = Preferences(
        include=wanted.include, exclude=wanted.exclude, max_bytes=wanted.max_bytes
    )
    held = {shard.sha256 for shard in index.split("heldout")}
    folders, private = list(run.sources), tuple[Choice, ...]()
    if wanted.private is not None:
        mine = scan(wanted.private.expanduser(), wanted.private_column)
        private = tuple(Choice(s, _PRIVATE_REASON) for s in mine if s.sha256 not in held)
        folders.append(wanted.private.expanduser())

    def choose_now() -> tuple[Choice, ...]:
        claimed = network.claimed(index) if network is not None else {}
        public = choose(peer_id, index, claimed, preferences)
        if network is not None:
            network.claim(index, [choice.shard.name for choice in public])
        return public + private

    choices = choose_now()
    if not choices:
        raise ConfigurationError(
            "no shard of the run is left by data.include, data.exclude and data.max_bytes; "
            "widen them in peer.toml (`ctpeer data choose` shows what they leave)"
        )
    sources = ShardSources(folders, _peer_shards(run, index, network))
    heldout, fetches = index.split("heldout"), network is not None
    return Feed(run, task, choices, heldout, sources, emit, choose_now, fetches)


def _told(choices: Iterable[Choice]) -> tuple[ShardChoice, ...]:
    return tuple(
        ShardChoice(name=c.shard.name, bytes=c.shard.bytes, reason=c.reason) for c in choices
    )


def _peer_shards(
    run: RunDirectory, index: DataIndex, network: "Network | None"
) -> PeerShards | None:
    if network is None:
        return None
    return PeerShards(index, run.shards_path, lambda shard: network.fetch_shard(run, shard))
