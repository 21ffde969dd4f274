"""The worker's data: which shards it trains on, and the held-out rows it is scored on."""

import dataclasses
from collections.abc import Callable

from peer.config.settings import Settings
from peer.data.choose import Preferences, choose
from peer.data.index import DataIndex, Shard
from peer.data.private import index_private
from peer.data.reader import read_examples
from peer.data.source import ShardSources
from peer.data.stream import Cursor, Examples, Stream
from peer.errors import ConfigurationError
from peer.events import Message, ShardChoice, ShardQuarantined
from peer.run.directory import RunDirectory
from peer.tasks.task import HeldOutRows, Task


@dataclasses.dataclass(frozen=True)
class Feed:
    """Where training rows and held-out rows come from."""

    index: DataIndex
    chosen: tuple[tuple[Shard, str], ...]
    sources: ShardSources
    open_shard: Callable[[Shard], Examples]
    emit: Callable[[Message], None]
