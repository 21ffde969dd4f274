"""Scoring a candidate and its baseline on the rows that a question draws, beside training."""

import asyncio
import threading

from peer.checkpoint.states import States
from peer.errors import PeerError
from peer.tasks.task import HeldOutRows
from peer.training.evaluation import Evaluator
from peer.training.memory import is_out_of_memory
from peer.validation.actions import Evaluate, Found
from peer.validation.score import Losses, draw_chunks, to_points


class _EndedError(Exception):
    """Nobody waits for the score any more."""


class Scorer:
    """Answers the questions that committees are asked.

    Args:
        evaluator: Scores states.
        rows: All held-out rows, the same at every peer.
        wanted: How many of them are scored.
        states: Finds the states.
    """

    def __init__(
        self, evaluator: Evaluator, rows: HeldOutRows, wanted: int, states: States
    ) -> None:
        self._evaluator = evaluator
        self._rows = rows
        self._wanted = wanted
        self._states = states
        self._in_turn = threading.Lock()  # one that nobody waits for ends after its batch

    async def score(self, asked: Evaluate) -> Found | str:
        """Return what the question's states score, or why they cannot be scored, in words."""
        baseline = asked.baseline
        pair = []
        for root, epoch in (
            (asked.candidate.state_root, asked.candidate.epoch),
            (baseline.state_root, baseline.epoch),
        ):
            try:
                parameters = await self._states.parameters(root, epoch)
            except PeerError as error:
                return f"the state of epoch {epoch} cannot be had: {error}"
            if parameters is None:
                return f"the state of epoch {epoch} cannot be had: nobody gives it"
            pair.append(parameters)
        ended = threading.Event()

        def go_on() -> None:
            if ended.is_set():
                raise _EndedError

        chunks = draw_chunks(asked.question, len(self._rows.rows), self._wanted)

        def evaluate() -> Losses:
            with self._in_turn:
                try:
                    losses = [
                        self._evaluator.losses(parameters, self._rows, chunks, go_on)
                        for parameters in pair
                    ]
                finally:
                    self._evaluator.release()
            candidate, worse_than = (tuple(map(to_points, each)) for each in losses)
            return Losses(candidate, worse_than)

        try:
            return Found(asked.question, await asyncio.to_thread(evaluate))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return "there is no memory to score it with"
        finally:
            ended.set()
