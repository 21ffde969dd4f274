"""What is written for transformers is what trained, and its tokenizer does as rows did."""

import json

import pytest
from tokenizers import Tokenizer, processors

from peer.tasks.pretrained import padding_tokens, save_tokenizer


@pytest.fixture
def saved(tmp_path):
    """Write a tokenizer; return its file's bytes and its configuration."""

    def save(data, tokens):
        save_tokenizer(data, tokens, 16, tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        return (tmp_path / "tokenizer.json").read_bytes(), config

    return save


def test_a_tokenizer_without_a_frame_is_written_byte_for_byte(saved, tokenizer_json):
    data, config = saved(tokenizer_json, {"eos_token": 1, "bos_token": 1})
    assert data == tokenizer_json
    assert (config["eos_token"], config["bos_token"]) == ("<eos>", "<eos>")
    assert config["model_max_length"] == 16


def test_a_frame_is_added_where_none_is(saved, tokenizer_json):
    data, _ = saved(tokenizer_json, {"cls_token": 3, "sep_token": 4, "mask_token": 2})
    ids = Tokenizer.from_buffer(data).encode("to be").ids
    assert ids == [3, *Tokenizer.from_buffer(tokenizer_json).encode("to be").ids, 4]


def test_a_tokenizer_that_frames_by_itself_is_left_alone(saved, tokenizer_json):
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<sep> $A", special_tokens=[("<sep>", 4)]
    )
    given = tokenizer.to_str().encode()
    data, _ = saved(given, {"cls_token": 3, "sep_token": 4})
    assert data == given


def test_padding_tokens_are_those_that_the_tokenizer_has(tokenizer_json):
    assert padding_tokens(Tokenizer.from_buffer(tokenizer_json)) == {"pad_token": 0}


@pytest.mark.parametrize(
    ("name", "kind", "roles"),
    [
        ("causal-lm", "gpt2", {"pad_token", "bos_token", "eos_token"}),
        ("masked-lm", "bert", {"pad_token", "cls_token", "sep_token", "mask_token"}),
    ],
)
def test_a_task_writes_a_model_that_its_auto_class_opens(
    make_task, configs, tmp_path, name, kind, roles
):
    task = make_task(name)
    model = task.build_model(configs[kind])
    task.save_pretrained(model, tmp_path)
    assert task.special_tokens().keys() == roles
    again, config = task.load_pretrained(str(tmp_path))
    assert config["model_type"] == kind
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)
    generation = tmp_path / "generation_config.json"
    assert generation.exists() == (name == "causal-lm")
    if generation.exists():
        body = json.loads(generation.read_text())
        assert (body["pad_token_id"], body["max_length"], body["use_cache"]) == (0, 16, True)
