"""The manifest: everything the peers of a run must agree on.

Its canonical form is hashed into the run id, and the run id prefixes every key in the swarm, so
peers that disagree cannot meet. The founders' signatures are detached and outside it. What only
one volunteer decides is in `peer.config`.
"""

import json
import tomllib
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, ValidationError, model_validator

from peer.config.section import Section, explain
from peer.errors import ConfigurationError

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a blob, in lower-case hexadecimal."""

PositiveFloat = Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Option = bool | int | Finite | Annotated[str, Field(max_length=200)]
RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
PeerId = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,60}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
"""A plain name: it comes from strangers and may become a path."""

_POOL_ROWS, _POOL_FACTOR = 4096, 4
"""Of so many held-out rows a committee draws. All must draw of the same ones: whoever changes them
must raise `peer.swarm.testimony.PROTOCOL`."""


class TaskSection(Section):
    """What the model learns.

    Attributes:
        name: A task of the registry, such as `causal-lm`.
        sequence_length: Tokens in a row.
        options: The task's own settings, such as `mask_probability`.
    """

    name: Word
    sequence_length: int = Field(ge=8, le=65536)
    options: dict[Word, Option] = Field(default_factory=dict, max_length=64)


class ModelSection(Section):
    """The architecture: `config` is the hash of a transformers config.json."""

    config: Hash


class TokenizerSection(Section):
    """The tokenizer's files by name, each by its hash; none where the task needs none."""

    files: dict[FileName, Hash] = Field(default_factory=dict, max_length=16)


class DataSection(Section):
    """The data: `index` is the hash of an index.json, which names every shard by hash."""

    index: Hash


class AdamW(Section):
    """AdamW as the outer optimizer; the schedule scales `lr`. No `max_grad_norm`: no clipping."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    eps: PositiveFloat = 1e-8
    weight_decay: Fraction = 0.1
    max_grad_norm: PositiveFloat | None = None


class SGD(Section):
    """SGD as the outer optimizer; the schedule scales `lr`. No `max_grad_norm`: no clipping."""

    name: Literal["sgd"]
    lr: PositiveFloat
    momentum: Beta = 0.9
    nesterov: bool = True
    weight_decay: Fraction = 0.0
    max_grad_norm: PositiveFloat | None = None


Optimizer = Annotated[AdamW | SGD, Field(discriminator="name")]


class ScheduleSection(Section):
    """The learning rate by epoch.

    Attributes:
        warmup_epochs: Linear rise from zero over so many epochs.
        decay: What follows it.
        total_epochs: Where a linear decay ends.
        floor: The factor that a decay does not go below.
    """

    warmup_epochs: int = Field(default=0, ge=0, le=10**9)
    decay: Literal["constant", "linear", "inverse-sqrt"] = "constant"
    total_epochs: int | None = Field(default=None, ge=1, le=10**9)
    floor: Fraction = 0.0

    @model_validator(mode="after")
    def _linear_decay_has_an_end(self) -> "ScheduleSection":
        if self.decay == "linear":
            if self.total_epochs is None:
                raise ValueError("a linear decay needs total_epochs")
            if self.total_epochs <= self.warmup_epochs:
                raise ValueError("total_epochs must lie beyond warmup_epochs")
        elif self.total_epochs is not None:
            raise ValueError("total_epochs has a meaning only for a linear decay")
        return self


class BatchSection(Section):
    """An epoch ends when the swarm has gathered `target_loss_terms` (label tokens)."""

    target_loss_terms: int = Field(ge=1, le=10**12)


class AveragingSection(Section):
    """How contributions become one.

    Attributes:
        strategy: `sync` averages gradients.
        codec: How averages travel: `none` is fp32; `fp16` and `int8` have a scale for each block.
    """

    strategy: Literal["sync"] = "sync"
    codec: Literal["none", "fp16", "int8"] = "none"


class EvaluationSection(Section):
    """How the model is scored on held-out data.

    Attributes:
        max_rows: Rows scored, evenly spread over the held-out shards.
        baselines: What simple models reach on just these rows, as the founder measured it.
    """

    max_rows: int = Field(default=256, ge=1, le=10**6)
    baselines: dict[Word, Finite] = Field(default_factory=dict, max_length=64)


class ValidationSection(Section):
    """How checkpoints are judged.

    Attributes:
        every_epochs: Every so many epochs one is judged; 0 judges none.
        margin: By how many nats a good one may be worse.
        tolerance: By how many nats two honest scores of the same rows may differ: at least five
            times what `benchmarks.validation_spread` measures on the model.
        rows: Held-out rows that a committee scores; all of them where there are fewer. They are
            drawn of `pool` ones. Twice as many would cost twice as much; a candidate is rejected
            only if it is worse by four standard errors, however large these are.
    """

    every_epochs: int = Field(default=100, ge=0, le=10**9)
    margin: PositiveFloat = 0.05
    tolerance: PositiveFloat = 0.0005
    rows: int = Field(default=128, ge=32, le=100_000)

    @property
    def pool(self) -> int:
        """Of how many held-out rows, evenly spread over the shards, the scored ones are drawn.

        So many more that nobody can make a state that is good on the drawn rows alone; and few
        enough that all peers can hold them.
        """
        return max(_POOL_ROWS, _POOL_FACTOR * self.rows)


class Manifest(Section):
    """All that the peers of a run agree on."""

    schema_version: Literal[1] = 1
    protocol: Literal[1] = 1
    name: RunName
    founders: tuple[PeerId, ...] = Field(min_length=1, max_length=64)
    initial_state: Hash
    task: TaskSection
    model: ModelSection
    tokenizer: TokenizerSection
    data: DataSection
    optimizer: Optimizer
    schedule: ScheduleSection = ScheduleSection()
    batch: BatchSection
    averaging: AveragingSection = AveragingSection()
    evaluation: EvaluationSection = EvaluationSection()
    validation: ValidationSection = ValidationSection()


_HEAD = """\
# A run of ctpeer. `ctpeer run show` explains it.
# The run id is made of what this file means: to change that is to found another run.

"""


def parse_manifest(text: str, origin: str) -> Manifest:
    """Return the manifest that the TOML `text` holds; `origin` names it in errors.

    Raises:
        ConfigurationError: It is not TOML, has an unknown field, or a value makes no sense.
    """
    try:
        # By way of JSON, whose strict reading lets a list be a tuple but no string be a number.
        body = json.dumps(tomllib.loads(text), default=str)
        return Manifest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise ConfigurationError(f"{origin}: {explain(error, Manifest)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{origin} is not valid TOML: {error}") from error


def dump_manifest(manifest: Manifest) -> str:
    """Return `manifest` as TOML, every default spelled out and what is None left out."""
    return _HEAD + tomli_w.dumps(manifest.model_dump(mode="json", exclude_none=True))
