"""What a validator measures: losses of a global state by chunk of rows, alike on all machines.

fp32, eager attention, fixed batches in a fixed order, no autocast, no dropout. The model is one of
its own: training goes on beside it in another thread, and neither its model nor the random numbers
that it draws may change. By how much honest scores still differ, `benchmarks.validation_spread`
measures and the manifest's tolerance covers; what follows from them, `peer.validation` decides.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from peer.data.stream import Row, RowKey
from peer.tasks.task import Batch, HeldOutRows, ModelConfig, Task
from peer.training.memory import is_out_of_memory, release
from peer.training.state import Flat, Schema, load_parameters

BATCH_ROWS = 8
"""Rows at once, on every machine. A chunk of the default number of rows is one batch."""

_SLICE_S = 0.5
"""So long a rest is at most before somebody is asked whether to end."""

_ResultT = TypeVar("_ResultT")


def _go_on() -> None:
    pass


class Evaluator:
    """Scores global states. For one thread at a time, which need not be the one that trains.

    Where memory is too short for a batch, it goes on row by row until `release`. That changes the
    last bits, as another machine does: the measured spread is over batch sizes, too.

    Args:
        task: The run's.
        model_config: Its model's.
        schema: The tensors of the states that it will score.
        device: Where to.
        share: At most so much of the time it computes; it sleeps for the rest.
        batch_rows: Rows at once. Only to measure what it changes is it another number.
        clock: Says how long a batch took, in seconds. On a CPU that is what this thread used: where
            others keep it waiting, they have the time already.
        sleep: Takes seconds.
    """

    def __init__(
        self,
        task: Task,
        model_config: ModelConfig,
        schema: Schema,
        device: torch.device,
        share: float = 0.25,
        *,
        batch_rows: int = BATCH_ROWS,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        assert 0.0 < share <= 1.0
        self._task = task
        self._config = model_config
        self._schema = schema
        self._device = device
        self._rest_factor = 1.0 / share - 1.0
        self._wanted_rows = self._batch_rows = batch_rows
        self._clock = clock or (time.thread_time if device.type == "cpu" else time.monotonic)
        self._sleep = sleep
        self._model: torch.nn.Module | None = None

    def losses(
        self,
        parameters: Flat,
        rows: HeldOutRows,
        chunks: Sequence[Sequence[int]],
        between: Callable[[], None] = _go_on,
    ) -> list[float]:
        """Return the mean loss of each chunk, in nats per loss term.

        NaN or infinite where the model's loss is; 0.0 for a chunk that has no loss terms, which
        says nothing about a model.

        Args:
            parameters: fp32 [schema.elements]; nobody changes them before this returns.
            rows: What to score them on.
            chunks: Indices into `rows.rows`.
            between: Called after each batch and while it sleeps: to show that it goes on, or to end
                it by an exception.

        Raises:
            RuntimeError, MemoryError: There is no memory for the model, or for one row.
        """
        self._in_turn(lambda: self._load(parameters), between)
        return [self._mean([rows.rows[i] for i in chunk], between) for chunk in chunks]

    def release(self) -> None:
        """Drop the model and give its memory back; the next call builds another one."""
        self._model, self._batch_rows = None, self._wanted_rows
        release(self._device)

    def _load(self, parameters: Flat) -> None:
        if self._model is None:
            self._model = self._build()
        load_parameters(self._model, self._schema, parameters)

    def _build(self) -> torch.nn.Module:
        # For real, not on the meta device: buffers that are in no state, such as the frequencies of
        # a rotary embedding, are computed here and nowhere else.
        with _OwnRandomNumbers():
            model = self._task.build_model({**self._config, "attn_implementation": "eager"})
        assert Schema.of(model) == self._schema
        return model.to(self._device).requires_grad_(requires_grad=False).eval()

    def _mean(self, rows: Sequence[tuple[RowKey, Row]], between: Callable[[], None]) -> float:
        loss_sum, terms, done = 0.0, 0, 0
        while done < len(rows):
            batch = self._task.collate(rows[done : done + self._batch_rows])
            loss = self._in_turn(functools.partial(self._loss, batch), between)
            if loss is None:
                self._batch_rows = 1
                release(self._device)
                continue
            loss_sum += loss
            terms += batch.loss_terms
            done += batch.samples
        return loss_sum / terms if terms else 0.0

    def _loss(self, batch: Batch) -> float | None:
        """Return the summed loss of `batch` in nats, or None if there is no memory for it.

        An error's traceback keeps tensors alive: that memory is free once this has returned.
        """
        assert self._model is not None
        try:
            with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
                return float(self._task.loss(self._model, batch.to(self._device)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or batch.samples == 1:
                raise
            return None

    def _in_turn(self, work: Callable[[], _ResultT], between: Callable[[], None]) -> _ResultT:
        """Return what `work` returns, and sleep so long that training has its share of the time."""
        began_s = self._clock()
        result = work()
        rest_s = (self._clock() - began_s) * self._rest_factor
        between()
        while rest_s > 0.0:
            self._sleep(min(rest_s, _SLICE_S))
            rest_s -= _SLICE_S
            between()
        return result


class _OwnRandomNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Has what this thread runs draw from a generator of its own.

    torch's global generators serve all threads. To put them back afterwards would repeat numbers
    that another thread drew meanwhile; a dispatch mode holds in its own thread only.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func`, with our generator if it would draw from the global one."""
        given = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and given.get("generator") is None:
            # By the packet of overloads: some have a generator only in another one of them.
            return func.overloadpacket(*args, **given | {"generator": self._generator})
        return func(*args, **given)
