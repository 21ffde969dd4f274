"""Where this peer stands: its global state, hashed and written beside training."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from peer import __version__
from peer.checkpoint.annotation import Ancestor
from peer.checkpoint.descent import Descent
from peer.checkpoint.format import Checkpoint
from peer.daemon.parts import HEARTBEAT_S, Parts
from peer.daemon.saving import Saver
from peer.events import Heartbeat, RootComputed
from peer.training.certificate import Base, Certificate
from peer.training.state import GlobalState

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_BESIDE_TIMEOUT_S = 600.0


class Position:
    """The state that this peer is at: its root, where it comes from, and its checkpoints.

    Hashing and writing the state run in one thread beside the next epoch's work. Whoever changes
    the state in place waits for them first: `settle`.

    Args:
        parts: The trainer has the state.
        resumed: The checkpoint that it is of, if it is of one.
    """

    def __init__(self, parts: Parts, resumed: Checkpoint | None) -> None:
        self._parts = parts
        self.generation = resumed.generation if resumed else 0
        self._certificate = resumed.certificate if resumed else None
        parent = Ancestor(resumed.state.epoch, resumed.state_root) if resumed else None
        self._descent = Descent(parent)
        self._root: Future[str]
        self._save: Future[None] | None = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="state")
        led_by = Certificate.from_json(self._certificate) if self._certificate else None
        self._start_root(led_by)
        interval_s = parts.settings.checkpoint.interval_s
        self._saver = Saver(parts.store, interval_s, parts.clock, parts.emit, self._note_saved)
        if resumed is not None:
            self._saver.saved_epoch = resumed.state.epoch

    @property
    def epoch(self) -> int:
        """The state's epoch."""
        return self._parts.trainer.state.epoch

    @property
    def is_saved(self) -> bool:
        """Whether the state is on the disk."""
        return self._saver.saved_epoch >= self.epoch

    def root(self) -> str:
        """Return the state's root, once it is computed."""
        return self._result(self._root)

    def base(self) -> Base:
        """Return what the next round builds on."""
        root = self.root()
        return Base(self._parts.run_id, self.generation, self.epoch, root)

    # ---- moving on

    def settle(self) -> None:
        """Wait until the state may be changed."""
        if self._save is not None:
            self._result(self._save)
            self._save = None

    def advance(self, certificate: Certificate) -> None:
        """Note that the trainer took in what `certificate` proves."""
        self._certificate = certificate.to_json()
        self._descent.advance(certificate)
        self._start_root(certificate)
        self.save_candidate()

    def begin_generation(self, generation: int) -> None:
        """Leave the generation that we are in; `move` says where to go."""
        # What is hashed and written now is of the old one.
        self.settle()
        self.root()
        self.generation = generation

    def move(self, state: GlobalState, led_by: Certificate | None) -> None:
        """Take another state in place of ours; `led_by` is what led to it, if it is known."""
        self.settle()
        self._parts.trainer.replace(state)
        self._certificate = led_by.to_json() if led_by else None
        self._descent.restart(led_by)
        self._saver.saved_epoch = -1
        self._parts.store.leave(state.epoch)
        self._start_root(None)

    # ---- checkpoints

    def save_if_due(self) -> None:
        """Have a checkpoint written if it is time, or if somebody asks for a state."""
        saving = self._save is not None and not self._save.done()
        if self.is_saved or saving:
            return
        if self._saver.due(asked=self._parts.rounds.asked_for_state):
            self.save()

    def save_candidate(self) -> None:
        """Have a state that may be judged written before it changes."""
        if self._parts.validation.due(self.epoch):
            self.save()

    def save(self) -> None:
        """Have a checkpoint written beside training, while the state stands still."""
        self._saver.begin()
        self._save = self._beside.submit(self._write, self._root)

    def save_now(self) -> None:
        """Write a checkpoint of the state unless there is one."""
        self.settle()
        if not self.is_saved:
            self.save()
            self.settle()

    def note_scores(self, scores: Mapping[str, float]) -> None:
        """Have the state's scores on held-out data written beside its checkpoint."""
        self._descent.scored(self.epoch, scores)
        # Behind a checkpoint that is being written: it lacks the scores, and gets them here.
        self._beside.submit(self._annotate, self._root, scores)

    def note_accepted(self, state_root: str, verdict: str) -> None:
        """Have it written beside a checkpoint which verdict accepted it."""
        self._beside.submit(self._annotate_accepted, state_root, verdict)

    def close(self) -> None:
        """End, once all that was begun is done."""
        self._beside.shutdown()

    # ---- beside training

    def _start_root(self, led_by: Certificate | None) -> None:
        """Have the root of the present state computed, and say where we are."""
        self._parts.rounds.stand(self.generation, self.epoch, None, led_by)
        self._root = self._beside.submit(self._compute_root)

    def _compute_root(self) -> str:
        parts, state = self._parts, self._parts.trainer.state
        root = state.root(parts.manifest_hash)
        parts.rounds.stand(self.generation, state.epoch, root, None)
        parts.emit(RootComputed(epoch=state.epoch, state_root=root))
        return root

    def _write(self, root: Future[str]) -> None:
        trainer, validation = self._parts.trainer, self._parts.validation
        checkpoint = Checkpoint(
            state=trainer.state,
            state_root=root.result(_BESIDE_TIMEOUT_S),
            generation=self.generation,
            place=trainer.place,
            certificate=self._certificate,
            code_version=__version__,
            heritage=self._descent.heritage(trainer.state.epoch),
        )
        needed = set(validation.needed())
        if validation.due(checkpoint.state.epoch):
            needed.add(checkpoint.state_root)
        self._parts.store.protect(needed)
        self._saver.write(checkpoint)

    def _note_saved(self, checkpoint: Checkpoint) -> None:
        parts, epoch = self._parts, checkpoint.state.epoch
        if parts.validation.due(epoch):
            parts.validation.candidate(epoch, checkpoint.state_root)
        self._descent.saved(Ancestor(epoch, checkpoint.state_root))
        # Only the last ones: others stay for the lineage, and nobody joins from there.
        own = [stored for stored in parts.store.roots() if not stored.fetched]
        last = own[: parts.settings.checkpoint.keep]
        parts.rounds.saved(min(stored.epoch for stored in last))

    def _annotate(self, root: Future[str], scores: Mapping[str, float]) -> None:
        """Write the scores beside the checkpoint of the state, if there is one already."""
        try:
            self._parts.store.annotate(root.result(_BESIDE_TIMEOUT_S), scores)
        except OSError as error:
            log.warning("the scores were not written beside the checkpoint: %s", error)

    def _annotate_accepted(self, state_root: str, verdict: str) -> None:
        try:
            self._parts.store.annotate(state_root, accepted_by=verdict)
        except OSError as error:
            log.warning("the verdict was not written beside the checkpoint: %s", error)

    def _result(self, future: "Future[_Result]") -> _Result:
        """Return what the thread beside training makes, with a sign of life while it takes."""
        deadline_s = self._parts.clock.monotonic_s() + _BESIDE_TIMEOUT_S
        while True:
            try:
                return future.result(HEARTBEAT_S)
            except TimeoutError:
                if self._parts.clock.monotonic_s() > deadline_s:
                    raise
                self._parts.emit(Heartbeat())
