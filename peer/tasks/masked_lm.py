"""Masked language models: predict hidden tokens from both sides (BERT-like).

Of each row some tokens are chosen (15 % by default); of these 80 % are masked, 10 % replaced by a
random token and 10 % left (Devlin et al., arXiv:1810.04805, section 3.1). The choice is drawn from
the row's key: another pass hides other tokens, a restart the same ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from peer.data.stream import Row, RowKey
from peer.errors import ConfigurationError
from peer.run.manifest import TaskSection
from peer.tasks.pretrained import padding_tokens
from peer.tasks.task import Batch
from peer.tasks.text import IGNORED, Ids, TextTask

_FRAMING_TOKENS = 2


class MaskedLM(TextTask):
    """Rows of sequence_length tokens, a start and an end token included."""

    name: ClassVar[str] = "masked-lm"
    pipeline: ClassVar[str] = "fill-mask"
    overlap: ClassVar[int] = 0
    options: ClassVar[tuple[str, ...]] = ("mask_probability",)

    def __init__(self, section: TaskSection, tokenizer_files: Mapping[str, bytes]) -> None:
        super().__init__(section, tokenizer_files)
        chance = section.options.get("mask_probability", 0.15)
        if not isinstance(chance, float) or not 0.0 < chance < 1.0:
            raise ConfigurationError(f"mask_probability lies between 0 and 1, not at {chance!r}")
        self._chance = chance
        self._mask = self.special(("<mask>", "[MASK]"))
        self._start = self.special(("<cls>", "[CLS]", "<s>"))
        self._end = self.special(("<sep>", "[SEP]", "</s>"))

    @property
    def row_tokens(self) -> int:
        """What is left of a row beside the start and end tokens."""
        return self.sequence_length - _FRAMING_TOKENS

    @property
    def row_loss_terms(self) -> float:
        """The tokens that are hidden, on average."""
        return self.row_tokens * self._chance

    def model_class(self) -> Any:
        """Return transformers' auto class for the task."""
        from transformers import AutoModelForMaskedLM

        return AutoModelForMaskedLM

    def token_fields(self) -> dict[str, Any]:
        """Return also the token that fills up short rows: collate writes id 0 there."""
        return super().token_fields() | {"pad_token_id": 0}

    def special_tokens(self) -> dict[str, int]:
        """Return the tokens that frame a row and the one that hides."""
        frame = {"cls_token": self._start, "sep_token": self._end}
        return padding_tokens(self.tokenizer) | frame | {"mask_token": self._mask}

    def collate(self, rows: Sequence[tuple[RowKey, Row]]) -> Batch:
        """Return input_ids, attention_mask and labels, int64 [batch, sequence_length]."""
        shape = (len(rows), self.sequence_length)
        inputs, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        attention = np.zeros(shape, np.int64)
        for i, (key, row) in enumerate(rows):
            hidden, shown = self._hide(key, row)
            end = len(row) + 1
            inputs[i, 0], inputs[i, 1:end], inputs[i, end] = self._start, shown, self._end
            labels[i, 1:end][hidden] = row[hidden]
            attention[i, : end + 1] = 1
        tensors = {"input_ids": inputs, "attention_mask": attention, "labels": labels}
        return Batch(
            {name: torch.from_numpy(array) for name, array in tensors.items()},
            samples=len(rows),
            tokens=int(attention.sum()),
            loss_terms=int((labels != IGNORED).sum()),
        )

    def _hide(self, key: RowKey, row: Ids) -> tuple[npt.NDArray[np.bool_], Ids]:
        """Return which tokens of `row` are scored, bool [n], and the row as the model sees it."""
        # RandomState, because numpy keeps its sequences the same in every release.
        words = [key.seed() >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
        draw = np.random.RandomState(words)
        hidden = draw.random_sample(len(row)) < self._chance
        if not hidden.any():  # a row without a loss term would teach nothing
            hidden[draw.randint(len(row))] = True
        fate = draw.random_sample(len(row))
        other = draw.randint(self.vocabulary, size=len(row))
        shown = np.where(hidden & (fate < 0.8), self._mask, row)  # noqa: PLR2004 80 % masked
        shown = np.where(hidden & (fate >= 0.9), other, shown)  # noqa: PLR2004 10 % random
        return hidden, shown.astype(np.uint32)

    def _targets(self, row: tuple[RowKey, Row]) -> tuple[Ids, Ids]:
        key, ids = row
        hidden, _ = self._hide(key, ids)
        before = np.concatenate([ids[:1], ids[:-1]])
        return before[hidden], ids[hidden]
