"""The model that `run init` founds a run with: a preset, a configuration, or given weights."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peer.errors import ConfigurationError
from peer.tasks.task import Task

if TYPE_CHECKING:
    import torch

PRESETS = {"gpt2": "causal-lm", "llama": "causal-lm", "bert": "masked-lm"}
"""Small models that flags size, each with the task that it is made for."""

_NOT_ARCHITECTURE = (
    "_name_or_path",
    "architectures",
    "transformers_version",
    "torch_dtype",
    "dtype",
)
"""What transformers writes into a configuration that says nothing about the computation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large a preset is."""

    layers: int = 2
    hidden: int = 128
    heads: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model: `preset` with a `size`, or just one of the other three.

    Attributes:
        preset: A name in PRESETS.
        size: The preset's size.
        config_file: A transformers config.json, trained from scratch.
        architecture_of: A directory or hub name; its architecture, trained from scratch.
        weights_of: A directory or hub name; its architecture and its weights.
    """

    preset: str | None = None
    size: Size = Size()
    config_file: Path | None = None
    architecture_of: str | None = None
    weights_of: str | None = None


def make_model(
    choice: ModelChoice, task: Task, seed: int
) -> "tuple[torch.nn.Module, dict[str, Any]]":
    """Return the model and its configuration as transformers' config.json has it.

    Args:
        choice: Which model.
        task: What it shall learn.
        seed: For the weights of a model that starts from scratch.

    Raises:
        ConfigurationError: There is no such model, or it does not fit the task.
    """
    import torch

    if choice.weights_of is not None:
        model, config = task.load_pretrained(choice.weights_of)
        config = plain_config(config)
        task.check_model(config)
    else:
        config = _config(choice, task)
        task.check_model(config)
        torch.manual_seed(seed)
        model = task.build_model(config)
    task.try_out(model)
    return model, config


def preset_config(preset: str, size: Size, positions: int) -> dict[str, Any]:
    """Return what `preset` says to transformers; everything else is left to its defaults."""
    if preset == "gpt2":
        return {
            "model_type": "gpt2",
            "n_positions": positions,
            "n_embd": size.hidden,
            "n_layer": size.layers,
            "n_head": size.heads,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    common = {
        "model_type": preset,
        "max_position_embeddings": positions,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }
    if preset == "llama":
        # Three matrices in its feed-forward block: 8/3 of the width makes it as large as others'.
        inner = -(-8 * size.hidden // 3 // 16) * 16
        return common | {"intermediate_size": inner, "tie_word_embeddings": True}
    return common | {
        "intermediate_size": 4 * size.hidden,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` without what says nothing about the computation, every default spelled out.

    Spelled out, so that another version of transformers with other defaults builds the same model.

    Raises:
        ConfigurationError: transformers does not know such a model.
    """
    from transformers import AutoConfig

    given = dict(config)
    kind = given.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigurationError("the model's configuration does not say its model_type")
    try:
        full = AutoConfig.for_model(kind, **given).to_dict()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"transformers knows no such model: {error}") from error
    return {name: value for name, value in full.items() if name not in _NOT_ARCHITECTURE}


def _config(choice: ModelChoice, task: Task) -> dict[str, Any]:
    if choice.config_file is not None:
        return plain_config(_read_json(choice.config_file))
    if choice.architecture_of is not None:
        return plain_config(_hub_config(choice.architecture_of))
    preset = choice.preset or next(name for name, of in PRESETS.items() if of == task.name)
    shape = preset_config(preset, choice.size, task.sequence_length)
    return plain_config(shape | task.token_fields())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a transformers config.json: {error}") from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"{path} is not a transformers config.json, but a list or a value")
    return config


def _hub_config(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"there is no model {name!r} in a directory or on the hub: {reason}; "
            f"presets are {', '.join(PRESETS)}"
        ) from error
    return config
