"""What every task is to the trainer: rows out of text, a batch, a summed loss, a score.

A task is one file that subclasses `Task` and is named in `registry`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from peer.data.index import Shard
from peer.data.stream import Examples, Row, RowKey
from peer.data.tokens import TokenCache

ModelConfig = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Batch:
    """A micro-batch.

    Attributes:
        tensors: What the model and the loss need, by name; the first dimension is `samples`.
        samples: Rows.
        tokens: Tokens that the model reads, padding left out.
        loss_terms: Labels that the loss sums over.
    """

    tensors: Mapping[str, torch.Tensor]
    samples: int
    tokens: int
    loss_terms: int

    def to(self, device: torch.device) -> Self:
        """Return this batch with its tensors on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return dataclasses.replace(self, tensors=moved)


@dataclasses.dataclass(frozen=True)
class HeldOutRows:
    """The rows that a model is scored on.

    Attributes:
        rows: Evenly strided over the held-out shards, each with its key.
        scored_bytes: UTF-8 bytes of the tokens that are scored, which loss is divided by.
    """

    rows: Sequence[tuple[RowKey, Row]]
    scored_bytes: int


@dataclasses.dataclass(frozen=True)
class Score:
    """A model's score on held-out rows: the task's own value, and what rides along."""

    value: float
    metrics: Mapping[str, float]


class Task(ABC):
    """One kind of learning."""

    name: ClassVar[str]
    sequence_length: int
    heldout_name: ClassVar[str]
    """What `Score.value` is called; smaller is better."""
    pipeline: ClassVar[str]
    """The pipeline of transformers that runs its models."""

    @abstractmethod
    def check_model(self, config: ModelConfig) -> None:
        """Raise ConfigurationError unless a model of `config` fits the data's tokens and rows."""

    @abstractmethod
    def token_fields(self) -> dict[str, Any]:
        """Return what a transformers configuration made for this task says of the tokens."""

    @abstractmethod
    def build_model(self, config: ModelConfig) -> torch.nn.Module:
        """Return a freshly initialised fp32 model of a transformers `config`."""

    @abstractmethod
    def load_pretrained(self, source: str) -> tuple[torch.nn.Module, dict[str, Any]]:
        """Return the model of a local directory or a hub name, and its config."""

    @abstractmethod
    def save_pretrained(self, model: torch.nn.Module, folder: Path) -> None:
        """Write `model` to the existing `folder` as transformers opens it, tokenizer and all."""

    @abstractmethod
    def try_out(self, model: torch.nn.Module) -> None:
        """Raise ConfigurationError unless `model` can take a row and does what the task means."""

    @property
    @abstractmethod
    def row_loss_terms(self) -> float:
        """About how many loss terms a full row has."""

    @abstractmethod
    def examples(
        self,
        shard: Shard,
        texts: Sequence[str],
        cache: TokenCache,
        done: Callable[[int], None] = lambda _characters: None,
    ) -> Examples:
        """Return the rows that the texts of `shard` make.

        Args:
            shard: Where they come from.
            texts: In the shard's order.
            cache: Looked into first.
            done: Told again and again how many more characters were worked on, to show that a long
                one goes on.
        """

    @abstractmethod
    def collate(self, rows: Sequence[tuple[RowKey, Row]]) -> Batch:
        """Return `rows` as one batch on the CPU; the same rows give the same batch, always."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss, a scalar in nats, summed over the batch's loss terms, in fp32."""

    @abstractmethod
    def heldout_rows(self, shards: Sequence[tuple[Shard, Examples]], max_rows: int) -> HeldOutRows:
        """Return at most `max_rows` rows of the held-out `shards`, evenly strided."""

    @abstractmethod
    def evaluate(
        self,
        model: torch.nn.Module,
        rows: HeldOutRows,
        device: torch.device,
        samples: int = 16,
        between: Callable[[], None] = lambda: None,
    ) -> Score:
        """Return the score of `model`; its mode and all random generators stay as they were.

        Args:
            model: On `device`.
            rows: What to score it on.
            device: Where to.
            samples: Rows at once.
            between: Called after each batch: to show that a long evaluation goes on, or to end it
                by an exception.
        """

    @abstractmethod
    def baselines(self, train: Sequence[Examples], rows: HeldOutRows) -> dict[str, float]:
        """Return what simple models, fitted on `train`, score on `rows`, by name."""
