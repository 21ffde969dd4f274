"""Local work: micro-batches into a contribution, and a committed average into the model.

The trainer owns the model on its device and the global state on the CPU. It does not know who
else trains, when to evaluate or where checkpoints lie.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from peer.data.stream import Cursor, Stream
from peer.errors import ConfigurationError
from peer.events import Message, MicroBatchChanged, Progress, WorkRepeated
from peer.run.manifest import Manifest
from peer.tasks.task import Batch, HeldOutRows, Score, Task
from peer.training.allowance import Allowance
from peer.training.contribution import Contribution, Tally, contribution_id, flat_gradient
from peer.training.memory import is_out_of_memory, release
from peer.training.outer import outer_step
from peer.training.precision import FIRST_SCALE, Autocast
from peer.training.round import Committed
from peer.training.state import GlobalState, load_parameters

log = logging.getLogger(__name__)

_PROGRESS_INTERVAL_S = 0.25
_NOTHING = np.empty(0, np.float32)

_HALVED_EVERY_S = 3.0
_FORGIVEN_S = 30.0
"""One sample at a time may be too much for so long: a checkpoint may be written beside it, or
another one judged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where this peer stood at the beginning of an epoch: the local part of a checkpoint.

    Attributes:
        cursor: The place in the data.
        samples_total: Rows trained on in this run, over all starts.
        tokens_total: Tokens trained on in this run, over all starts.
        contributions: Contributions made, so that each gets a name of its own.
        micro_batch: Samples at once.
        loss_scale: See `Autocast`.
        rng: States of torch's generators by device type, uint8 [n].
    """

    cursor: Cursor
    samples_total: int
    tokens_total: int
    contributions: int
    micro_batch: int
    loss_scale: float
    rng: Mapping[str, npt.NDArray[np.uint8]]

    @classmethod
    def beginning(
        cls, cursor: Cursor, micro_batch: int, rng: Mapping[str, npt.NDArray[np.uint8]]
    ) -> Self:
        """Return the place of a peer that has not trained yet."""
        return cls(
            cursor=cursor,
            samples_total=0,
            tokens_total=0,
            contributions=0,
            micro_batch=micro_batch,
            loss_scale=FIRST_SCALE,
            rng=rng,
        )

    def with_micro_batch(self, micro_batch: int) -> Self:
        """Return this place with another micro-batch."""
        return dataclasses.replace(self, micro_batch=micro_batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workbench:
    """What a trainer works with: the run's parts, and this peer's."""

    manifest: Manifest
    peer_id: str
    model: torch.nn.Module
    task: Task
    stream: Stream
    device: torch.device
    autocast: Autocast
    emit: Callable[[Message], None]
    allowance: Allowance = dataclasses.field(default_factory=Allowance)


class Trainer:
    """Turns data into contributions and averages into the next epoch."""

    def __init__(self, bench: Workbench, state: GlobalState, place: Place) -> None:
        self._bench = bench
        self.state = state
        self.micro_batch = place.micro_batch
        self.samples_total = place.samples_total
        self.tokens_total = place.tokens_total
        self.tally = Tally()
        self._contributions = place.contributions
        self._made: list[Contribution] = []
        self._unreported = Tally()
        self._reported_s = time.monotonic()
        self._over_since_s: float | None = None
        self._halved_s = float("-inf")
        bench.autocast.resume(place.loss_scale)
        set_rng(place.rng, bench.device)
        self._load_parameters()
        bench.model.train()
        self.place = place

    @property
    def peer_id(self) -> str:
        """Whose contributions these are."""
        return self._bench.peer_id

    @property
    def device(self) -> torch.device:
        """Where the model trains."""
        return self._bench.device

    def work(
        self, interrupted: Callable[[], bool], wanted: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train until the target batch is gathered, here or by the swarm.

        Args:
            interrupted: Asked between any two micro-batches whether to stop.
            wanted: Asked as well whether the swarm has enough; there is always something to bring.

        Returns:
            False if `interrupted` said so first; what was gathered is kept and the next call goes
            on with it.
        """
        target = self._bench.manifest.batch.target_loss_terms
        while self.tally.weight < target and not (self.tally.weight and wanted()):
            if interrupted():
                self._report(force=True)
                return False
            self._bench.allowance.begin()
            if not self._micro_batch():
                self._back_off()
            else:
                self._fit(self._bench.allowance.excess())
        self._report(force=True)
        return True

    def contribution(self, base_root: str) -> Contribution:
        """Return what was gathered since the last epoch, made on top of the state `base_root`.

        The same until more is gathered, so that a round that failed is tried again with it.
        """
        if self._made and self._made[-1].weight == self.tally.weight:
            return self._made[-1]
        # Of what was brought before, only how much it was is still of interest.
        self._made = [dataclasses.replace(made, values=_NOTHING) for made in self._made]
        values = flat_gradient(self._bench.model, self.state.schema)
        values /= np.float32(self.tally.weight * self._bench.autocast.scale)
        self._contributions += 1
        made = Contribution(
            contribution_id=contribution_id(self._bench.peer_id, base_root, self._contributions),
            values=values,
            weight=self.tally.weight,
            samples=self.tally.samples,
            tokens=self.tally.tokens,
            loss=self.tally.loss_sum / self.tally.weight,
        )
        self._made.append(made)
        return made

    def inside(self, committed: Committed) -> Contribution | None:
        """Return this epoch's contribution that went into an average; an earlier one has no values.

        A certificate may turn up late, when more was gathered since.
        """
        return next((made for made in self._made if committed.consumed(made.contribution_id)), None)

    def commit(self, committed: Committed, halved: int = 0) -> None:
        """Take a certified average into the global state and the model: the next epoch begins.

        Args:
            committed: The average.
            halved: How often verdicts halve the learning rate.
        """
        outer_step(
            self.state,
            committed.average,
            committed.certificate.vote.square_sums,
            self._bench.manifest.optimizer,
            self._bench.manifest.schedule,
            halved,
        )
        self._load_parameters()
        self._bench.autocast.update(finite=True)
        self._start_epoch()

    def replace(self, state: GlobalState) -> None:
        """Go on from another global state; what was gathered on the old one is dropped."""
        self.state = state
        self._load_parameters()
        self._start_epoch()

    def discard(self) -> None:
        """Drop a contribution that no round can use; the epoch's work begins anew on new data."""
        self._bench.autocast.update(finite=False)
        self._start_epoch()

    def evaluate(self, rows: HeldOutRows, between: Callable[[], None] = lambda: None) -> Score:
        """Return the model's score on held-out `rows`; training goes on as if it had not been.

        As many rows are scored at once as are trained on at once, fewer if memory is short.

        Args:
            rows: What to score it on.
            between: Called after each batch.
        """
        samples = self.micro_batch
        while (score := self._evaluate(rows, samples, between)) is None:
            samples //= 2
            release(self._bench.device)
        return score

    def _evaluate(
        self, rows: HeldOutRows, samples: int, between: Callable[[], None]
    ) -> Score | None:
        """Return the score, or None if the device has no memory for `samples` rows at once."""
        bench = self._bench
        try:
            with bench.autocast():
                return bench.task.evaluate(bench.model, rows, bench.device, samples, between)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or samples == 1:
                raise
            return None

    def suspend(self) -> None:
        """Move the model off its device and give the memory back."""
        self._bench.model.to("cpu")
        release(self._bench.device)

    def awaken(self) -> None:
        """Undo `suspend`."""
        self._bench.model.to(self._bench.device)
        self._reported_s = time.monotonic()

    def _start_epoch(self) -> None:
        self._bench.model.zero_grad(set_to_none=True)
        self.tally = Tally()
        self._made = []
        self.place = Place(
            cursor=self._bench.stream.cursor,
            samples_total=self.samples_total,
            tokens_total=self.tokens_total,
            contributions=self._contributions,
            micro_batch=self.micro_batch,
            loss_scale=self._bench.autocast.scale,
            rng=get_rng(self._bench.device),
        )

    def _micro_batch(self) -> bool:
        """Train on one micro-batch; return False if the device has no memory for it.

        An error's traceback keeps tensors alive: that memory is free once this has returned.
        """
        bench = self._bench
        missing = bench.manifest.batch.target_loss_terms - self.tally.weight
        rows = min(self.micro_batch, math.ceil(missing / bench.task.row_loss_terms))
        batch = bench.task.collate(bench.stream.take(rows))
        try:
            loss_sum = self._forward_backward(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.micro_batch == 1:
                raise
            return False
        for tally in (self.tally, self._unreported):
            tally.weight += batch.loss_terms
            tally.samples += batch.samples
            tally.tokens += batch.tokens
            tally.loss_sum += loss_sum
        self.samples_total += batch.samples
        self.tokens_total += batch.tokens
        self._report(force=False)
        return True

    def _forward_backward(self, batch: Batch) -> float:
        bench = self._bench
        with bench.autocast():
            loss = bench.task.loss(bench.model, batch.to(bench.device))
        (loss * bench.autocast.scale).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _back_off(self) -> None:
        """Halve the micro-batch and redo the epoch's work: its gradients may be half added."""
        before, lost = self.micro_batch, self.tally
        self.micro_batch = max(1, before // 2)
        self._bench.stream.seek(self.place.cursor)
        self.samples_total = self.place.samples_total
        self.tokens_total = self.place.tokens_total
        set_rng(self.place.rng, self._bench.device)
        self._start_epoch()
        release(self._bench.device)
        self._bench.emit(
            MicroBatchChanged(
                samples_before=before, samples_after=self.micro_batch, reason="out of memory"
            )
        )
        self._bench.emit(WorkRepeated(samples=lost.samples, tokens=lost.tokens))

    def _fit(self, excess: str | None) -> None:
        """Halve the micro-batch if the volunteer's limit of memory asks for it; nothing is lost.

        Raises:
            ConfigurationError: There is no smaller one.
        """
        now_s = time.monotonic()
        if excess is None:
            self._over_since_s = None
            return
        release(self._bench.device)
        before = self.micro_batch
        if before > 1:
            if now_s - self._halved_s < _HALVED_EVERY_S:
                return  # what is given back only now counts for the last one, too
            self._halved_s = now_s
            self.micro_batch = before // 2
            self._bench.emit(
                MicroBatchChanged(
                    samples_before=before, samples_after=self.micro_batch, reason=excess
                )
            )
            return
        if self._over_since_s is None:
            self._over_since_s = now_s
        if now_s - self._over_since_s > _FORGIVEN_S:
            raise ConfigurationError(
                f"this run does not fit into the memory that you allow: {excess}, training on one "
                "sample at a time; raise the limit, or join a run with a smaller model"
            )

    def _report(self, *, force: bool) -> None:
        now_s = time.monotonic()
        seconds = now_s - self._reported_s
        fresh = self._unreported
        if not fresh.weight or (seconds < _PROGRESS_INTERVAL_S and not force):
            return
        self._bench.emit(
            Progress(
                samples=fresh.samples,
                tokens=fresh.tokens,
                loss=fresh.loss_sum / fresh.weight,
                contribution_samples=self.tally.samples,
                contribution_weight=self.tally.weight,
                tokens_total=self.tokens_total,
                seconds=seconds,
            )
        )
        self._unreported, self._reported_s = Tally(), now_s

    def _load_parameters(self) -> None:
        load_parameters(self._bench.model, self.state.schema, self.state.parameters)


def get_rng(device: torch.device) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the states of the generators that training on `device` draws from, uint8 [n]."""
    states = {"cpu": torch.get_rng_state().numpy()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device).numpy()
    return states


def set_rng(states: Mapping[str, npt.NDArray[np.uint8]], device: torch.device) -> None:
    """Put the generators back to `states`; one that `device` does not draw from is left out."""
    torch.set_rng_state(torch.from_numpy(states["cpu"]))
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(states["cuda"]), device)
