"""What the training loop and its helpers drive."""

import dataclasses
from collections.abc import Callable

from peer.checkpoint.journal import Journal
from peer.checkpoint.store import CheckpointStore
from peer.clock import Clock
from peer.config.settings import Settings
from peer.daemon.validation import Validation
from peer.events import Message
from peer.tasks.task import HeldOutRows, Task
from peer.training.round import Rounds
from peer.training.trainer import Trainer

HEARTBEAT_S = 1.0
"""How often the supervisor hears something while nothing happens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """One peer of one run, put together."""

    run_id: str
    manifest_hash: str
    settings: Settings
    task: Task
    trainer: Trainer
    rounds: Rounds
    validation: Validation
    store: CheckpointStore
    journal: Journal
    heldout: HeldOutRows
    clock: Clock
    emit: Callable[[Message], None]
