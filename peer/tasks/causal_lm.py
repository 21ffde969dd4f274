"""Causal language models: predict each token from those before it (GPT-2-, Llama-like)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from peer.data.stream import Row, RowKey
from peer.errors import ConfigurationError
from peer.tasks.task import Batch
from peer.tasks.text import IGNORED, Ids, TextTask


class CausalLM(TextTask):
    """Rows of sequence_length + 1 tokens: all but the last are read, all but the first scored."""

    name: ClassVar[str] = "causal-lm"
    pipeline: ClassVar[str] = "text-generation"
    overlap: ClassVar[int] = 1

    @property
    def row_tokens(self) -> int:
        """One more than the model reads."""
        return self.sequence_length + 1

    @property
    def row_loss_terms(self) -> float:
        """Every token that the model reads has one."""
        return self.sequence_length

    def try_out(self, model: torch.nn.Module) -> None:
        """Raise ConfigurationError also if `model` reads the tokens that it is to predict."""
        row = np.full(self.row_tokens, self._separator, np.uint32)
        other = row.copy()
        other[-2] = (self._separator + 1) % self.vocabulary
        same, changed = self._logits(model, row)[:-1], self._logits(model, other)[:-1]
        if not torch.allclose(same, changed, atol=1e-4):
            raise ConfigurationError(
                "the model reads the tokens that it is to predict: it is no causal model; take "
                "masked-lm, or another model"
            )

    def model_class(self) -> Any:
        """Return transformers' auto class for the task."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def build_model(self, config: Any) -> torch.nn.Module:
        """Return a freshly initialised model, without the cache that only generation needs."""
        return super().build_model({**config, "use_cache": False})

    def collate(self, rows: Sequence[tuple[RowKey, Row]]) -> Batch:
        """Return input_ids and labels, int64 [batch, sequence_length]."""
        shape = (len(rows), self.sequence_length)
        inputs, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        for i, (_, row) in enumerate(rows):
            inputs[i, : len(row) - 1] = row[:-1]
            labels[i, : len(row) - 1] = row[1:]
        terms = sum(len(row) - 1 for _, row in rows)
        tensors = {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}
        return Batch(tensors, samples=len(rows), tokens=terms, loss_terms=terms)

    def _targets(self, row: tuple[RowKey, Row]) -> tuple[Ids, Ids]:
        return row[1][:-1], row[1][1:]
