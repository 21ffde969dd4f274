"""Writing a language model and its tokenizer the way transformers' `from_pretrained` reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors

_PADDING = {"pad_token": ("<pad>", "[PAD]", "<|pad|>"), "unk_token": ("<unk>", "[UNK]")}


def save_model(model: torch.nn.Module, tokens: Mapping[str, int], folder: Path) -> None:
    """Write config.json, model.safetensors and, where it can generate, generation_config.json.

    Args:
        model: Of transformers.
        tokens: The ids of special tokens by role, such as `pad_token`.
        folder: Where to.
    """
    from transformers.utils import logging

    any_model: Any = model
    if any_model.can_generate():
        config, generation = any_model.config, any_model.generation_config
        # Training needs no cache, so the models that train are built without one.
        config.use_cache = generation.use_cache = True
        generation.pad_token_id = tokens.get("pad_token", tokens.get("eos_token"))
        # Beyond its positions many a model fails, and the default length is none of the model's.
        generation.max_length = getattr(config, "max_position_embeddings", None)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    any_model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors lets only the owner read


def padding_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of the tokens for padding and for what is unknown, where there are any."""
    found = {}
    for role, names in _PADDING.items():
        known = (tokenizer.token_to_id(name) for name in names)
        token = next((token for token in known if token is not None), None)
        if token is not None:
            found[role] = int(token)
    return found


def save_tokenizer(data: bytes, tokens: Mapping[str, int], length: int, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        data: The run's own tokenizer.json. It is written as it is, unless a frame is due and it
            frames nothing by itself.
        tokens: The ids of special tokens by role, such as `eos_token`; with `cls_token` and
            `sep_token` among them a text is framed by those two, as rows are in training.
        length: Tokens in a row.
        folder: Where to.
    """
    tokenizer = Tokenizer.from_buffer(data)
    names = {role: str(tokenizer.id_to_token(token)) for role, token in tokens.items()}
    config = {
        # By its name in transformers 4, which transformers 5 knows as well.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        **names,
    }
    if {"cls_token", "sep_token"} <= tokens.keys() and tokenizer.post_processor is None:
        tokenizer.post_processor = _frame(names["cls_token"], names["sep_token"], tokens)
        data = str(tokenizer.to_str(pretty=True)).encode()
    (folder / "tokenizer.json").write_bytes(data)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(f"{text}\n", encoding="utf-8")


def _frame(start: str, end: str, tokens: Mapping[str, int]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, tokens["cls_token"]), (end, tokens["sep_token"])],
    )
