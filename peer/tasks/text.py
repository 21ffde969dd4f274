"""What the language-model tasks share: tokens, packed rows, models, scores and baselines."""

import hashlib
import json
import math
import re
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from peer.data.index import Shard
from peer.data.stream import Examples, Row, RowKey
from peer.data.tokens import TokenCache
from peer.errors import ConfigurationError
from peer.run.manifest import TaskSection
from peer.tasks.baselines import bigram_bits, unigram_bits
from peer.tasks.pretrained import padding_tokens, save_model, save_tokenizer
from peer.tasks.task import Batch, HeldOutRows, ModelConfig, Score, Task

IGNORED = -100
"""A label that is not scored, as torch's cross entropy has it."""

_FOREIGN_CODE = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "quantization_config",
)
_PIECE_CHARACTERS = 1 << 18
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
_SEPARATORS = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "[SEP]")

Ids = npt.NDArray[np.uint32]


class PackedRows:
    """Equal slices of a shard's token ids; a row is one slice, the last may be shorter."""

    def __init__(self, ids: Ids, length: int, overlap: int) -> None:
        self.ids = ids
        self._length = length
        self._step = length - overlap
        self._overlap = overlap

    def __len__(self) -> int:
        return max(1, math.ceil((len(self.ids) - self._overlap) / self._step))

    def __getitem__(self, index: int) -> Ids:
        start = index * self._step
        return self.ids[start : start + self._length]


class TextTask(Task):
    """A language model over packed rows of one tokenizer.

    Args:
        section: The manifest's task section.
        tokenizer_files: `tokenizer.json` by name.
    """

    heldout_name: ClassVar[str] = "bits_per_byte"
    overlap: ClassVar[int]
    """How many tokens a row shares with the next one."""
    options: ClassVar[tuple[str, ...]] = ()
    """The manifest's options that the task knows."""

    def __init__(self, section: TaskSection, tokenizer_files: Mapping[str, bytes]) -> None:
        data = tokenizer_files.get("tokenizer.json")
        if data is None:
            raise ConfigurationError(
                f"the task {section.name} needs a tokenizer.json under [tokenizer.files]"
            )
        unknown = sorted(set(section.options) - set(self.options))
        if unknown:
            raise ConfigurationError(
                f"{section.name} has no option {unknown[0]!r}; it has "
                f"{', '.join(self.options) or 'none'}"
            )
        self.sequence_length = section.sequence_length
        self.tokenizer = load_tokenizer(data)
        self._tokenizer_json = data
        self._tokenizer_hash = hashlib.sha256(data).hexdigest()
        self.vocabulary = _vocabulary(self.tokenizer)
        """One more than the largest token id; ids may have gaps."""
        self._separator = self.special(_SEPARATORS)
        self._token_bytes: npt.NDArray[np.int64] | None = None

    @property
    @abstractmethod
    def row_tokens(self) -> int:
        """How many of a shard's tokens a row holds."""

    @abstractmethod
    def model_class(self) -> Any:
        """Return transformers' auto class for the task."""

    def special(self, names: Sequence[str]) -> int:
        """Return the id of the first of `names` that the tokenizer knows.

        Raises:
            ConfigurationError: It knows none.
        """
        for name in names:
            token = self.tokenizer.token_to_id(name)
            if token is not None:
                return int(token)
        raise ConfigurationError(
            f"the tokenizer does not fit: it has none of the special tokens {', '.join(names)}"
        )

    def token_fields(self) -> dict[str, Any]:
        """Return the vocabulary's size, and the separator as what begins and ends a text."""
        return {
            "vocab_size": self.vocabulary,
            "bos_token_id": self._separator,
            "eos_token_id": self._separator,
        }

    def special_tokens(self) -> dict[str, int]:
        """Return the ids of the tokens that transformers gives a role, by the role's name."""
        ends = {"bos_token": self._separator, "eos_token": self._separator}
        return padding_tokens(self.tokenizer) | ends

    def save_pretrained(self, model: torch.nn.Module, folder: Path) -> None:
        """Write model, configuration and tokenizer to `folder`, as transformers opens them."""
        tokens = self.special_tokens()
        save_model(model, tokens, folder)
        save_tokenizer(self._tokenizer_json, tokens, self.sequence_length, folder)

    def check_model(self, config: ModelConfig) -> None:
        """Raise ConfigurationError unless vocabulary and positions suffice.

        What would have transformers load code or kernels from elsewhere is refused, too.
        """
        for key in _FOREIGN_CODE:
            if config.get(key) is not None:
                raise ConfigurationError(
                    f"the model's {key} could load code from elsewhere; take it out"
                )
        size, needed = config.get("vocab_size"), self.vocabulary
        if isinstance(size, int) and size < needed:
            raise ConfigurationError(
                f"the tokenizer does not fit the model: it has {needed} tokens and the model's "
                f"vocab_size is {size}; found the run with --vocab-size at most {size}, or "
                "another model"
            )
        for key in ("n_positions", "max_position_embeddings"):
            positions = config.get(key)
            if isinstance(positions, int) and positions < self.sequence_length:
                raise ConfigurationError(
                    f"the rows do not fit the model: sequence_length is {self.sequence_length} "
                    f"and the model's {key} is {positions}"
                )

    def build_model(self, config: ModelConfig) -> torch.nn.Module:
        """Return a freshly initialised fp32 model of a transformers `config`."""
        from transformers import AutoConfig

        fields = dict(config)
        try:
            parsed = AutoConfig.for_model(fields.pop("model_type"), **fields)
            model = self.model_class().from_config(parsed, dtype=torch.float32)
        except Exception as error:  # a stranger's configuration fails in ways without number
            raise ConfigurationError(
                "the model configuration is not one that transformers can build: "
                f"{_first_line(error)}"
            ) from error
        assert isinstance(model, torch.nn.Module)
        return model

    def try_out(self, model: torch.nn.Module) -> None:
        """Raise ConfigurationError unless `model` takes a full row; see also the subclasses."""
        row = np.full(self.row_tokens, self._separator, np.uint32)
        self._logits(model, row)

    def _logits(self, model: torch.nn.Module, row: Ids) -> torch.Tensor:
        """Return the logits [sequence_length, vocab] that `model` gives for `row`."""
        tensors = self.collate([(RowKey(0, "0" * 64, 0), row)]).tensors
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                inputs = {key: value for key, value in tensors.items() if key != "labels"}
                logits = model(**inputs, return_dict=True).logits[0]
                assert isinstance(logits, torch.Tensor)
                return logits
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the model cannot take a row of {self.sequence_length} tokens: "
                f"{_first_line(error)}"
            ) from error
        finally:
            model.train(was_training)

    def load_pretrained(self, source: str) -> tuple[torch.nn.Module, dict[str, Any]]:
        """Return the model of a local directory or a hub name, and its config.

        Raises:
            ConfigurationError: It cannot be loaded.
        """
        try:
            model, report = self.model_class().from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # a damaged directory fails in ways without number
            raise ConfigurationError(
                f"no model can be loaded from {source!r}: {_first_line(error)}"
            ) from error
        if missing := sorted(report["missing_keys"]):
            raise ConfigurationError(
                f"no model can be loaded from {source!r}: it lacks the weights {missing[0]!r}"
            )
        return model, json.loads(model.config.to_json_string(use_diff=False))

    def examples(
        self,
        shard: Shard,
        texts: Sequence[str],
        cache: TokenCache,
        done: Callable[[int], None] = lambda _characters: None,
    ) -> Examples:
        """Return the packed rows of a shard: its texts' tokens, a separator after each text."""

        def tokenise() -> Ids:
            ids = array("I")
            for text in texts:
                for piece in _pieces(text):
                    ids.extend(self.tokenizer.encode(piece, add_special_tokens=False).ids)
                    done(len(piece))
                ids.append(self._separator)
            return np.frombuffer(ids, np.uint32)

        reading = f"{self._tokenizer_hash}\n{shard.sha256}\n{shard.format}\n{shard.column}"
        ids = cache.get(hashlib.sha256(reading.encode()).hexdigest(), tokenise)
        return PackedRows(ids, self.row_tokens, self.overlap)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed cross entropy in nats, a scalar, over labels [batch, seq]."""
        labels = batch.tensors["labels"]
        inputs = {key: value for key, value in batch.tensors.items() if key != "labels"}
        logits = model(**inputs, return_dict=True).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            reduction="sum",
            ignore_index=IGNORED,
        )

    def heldout_rows(self, shards: Sequence[tuple[Shard, Examples]], max_rows: int) -> HeldOutRows:
        """Return at most `max_rows` rows, evenly strided over all rows of the `shards`."""
        places = [(shard, rows, i) for shard, rows in shards for i in range(len(rows))]
        count = min(max_rows, len(places))
        picked = [places[i * len(places) // count] for i in range(count)]
        rows = [(RowKey(0, shard.sha256, i), rows[i]) for shard, rows, i in picked]
        targets = np.concatenate([self._targets(row)[1] for row in rows])
        return HeldOutRows(rows, int(self.token_bytes()[targets].sum()))

    def evaluate(
        self,
        model: torch.nn.Module,
        rows: HeldOutRows,
        device: torch.device,
        samples: int = 16,
        between: Callable[[], None] = lambda: None,
    ) -> Score:
        """Return bits per byte of the scored tokens' text; perplexity rides along."""
        was_training, loss_sum, terms = model.training, 0.0, 0
        model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(rows.rows), samples):
                    batch = self.collate(rows.rows[start : start + samples])
                    loss_sum += float(self.loss(model, batch.to(device)))
                    terms += batch.loss_terms
                    between()
        finally:
            model.train(was_training)
        loss = loss_sum / terms
        # A diverged model has a perplexity beyond any float: infinity says so.
        perplexity = math.exp(loss) if loss < 700 else math.inf  # noqa: PLR2004
        bits = loss_sum / math.log(2) / rows.scored_bytes
        return Score(bits, {"loss": loss, "perplexity": perplexity})

    def baselines(self, train: Sequence[Examples], rows: HeldOutRows) -> dict[str, float]:
        """Return bits per byte of a unigram and a bigram model of tokens on the scored tokens."""
        streams = [rows_.ids for rows_ in train if isinstance(rows_, PackedRows)]
        scored = [self._targets(row) for row in rows.rows]
        context = np.concatenate([before for before, _ in scored])
        target = np.concatenate([token for _, token in scored])
        size = self.vocabulary
        return {
            "unigram": unigram_bits(streams, target, size) / rows.scored_bytes,
            "bigram": bigram_bits(streams, context, target, size) / rows.scored_bytes,
        }

    @abstractmethod
    def _targets(self, row: tuple[RowKey, Row]) -> tuple[Ids, Ids]:
        """Return the tokens of `row` that are scored, each with the token before it."""

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the UTF-8 bytes that each token of the vocabulary stands for, int64 [vocab]."""
        if self._token_bytes is None:
            self._token_bytes = np.array(_token_bytes(self.tokenizer), np.int64)
        return self._token_bytes


def _pieces(text: str) -> Iterator[str]:
    """Yield `text` cut behind line ends: a tokenizer takes much memory for each character."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE_CHARACTERS) + 1 or len(text)
        yield text[start:end]
        start = end


def _token_bytes(tokenizer: Tokenizer) -> list[int]:
    """Return how many UTF-8 bytes each token stands for; special tokens stand for none."""
    added = tokenizer.get_added_tokens_decoder()
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    kinds = {step["type"] for step in (decoder, *decoder.get("decoders", ())) if step}

    def size(token: int) -> int:
        if token in added:
            return 0 if added[token].special else len(added[token].content.encode())
        piece = tokenizer.id_to_token(token)
        if piece is None:
            return 0
        if "ByteLevel" in kinds:  # writes every byte as one character
            return len(piece)
        if "ByteFallback" in kinds and _BYTE_PIECE.fullmatch(piece):
            return 1
        return len(piece.removeprefix("##").replace("▁", " ").encode())

    return [size(token) for token in range(_vocabulary(tokenizer))]


def _vocabulary(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def load_tokenizer(data: bytes) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:
        raise ConfigurationError(f"the tokenizer.json cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<eos>" within a text is text
    return tokenizer


def find_tokenizer(source: str) -> bytes:
    """Return the tokenizer.json of a file, a pretrained directory or a hub name.

    Raises:
        ConfigurationError: There is none.
    """
    from transformers import AutoTokenizer

    path = Path(source)
    if path.is_dir():
        path /= "tokenizer.json"
    try:
        if path.exists():
            data = path.read_bytes()
            load_tokenizer(data)
            return data
        backend = AutoTokenizer.from_pretrained(source, use_fast=True).backend_tokenizer
        return str(backend.to_str()).encode()
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise ConfigurationError(
            f"no tokenizer can be had from {source!r}: {_first_line(error)}"
        ) from error


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> bytes:
    """Return the tokenizer.json of a byte-level BPE trained on `texts`.

    Byte-level, so that every text in every language can be written, and nothing is unknown.
    """
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<eos>", "<mask>", "<cls>", "<sep>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str()).encode()
