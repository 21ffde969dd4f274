"""A manifest's task section becomes a task, or one sentence says why not."""

import json
import re

import pytest
from tokenizers import Tokenizer

from peer.errors import ConfigurationError
from peer.run.manifest import TaskSection
from peer.tasks import registry
from peer.tasks.causal_lm import CausalLM
from peer.tasks.masked_lm import MaskedLM


@pytest.mark.parametrize(("name", "kind"), [("causal-lm", CausalLM), ("masked-lm", MaskedLM)])
def test_a_known_name_gives_its_task(make_task, name, kind):
    task = make_task(name)
    assert type(task) is kind
    assert registry.TASKS[name] is kind


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("casual-lm", "there is no task 'casual-lm'; did you mean causal-lm?"),
        ("masked_lm", "there is no task 'masked_lm'; did you mean masked-lm?"),
        ("zzz", "there is no task 'zzz'; there are causal-lm, masked-lm"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(make_task, name, message):
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        make_task(name)


@pytest.mark.parametrize("name", sorted(registry.TASKS))
def test_an_option_that_the_task_does_not_have_is_refused(make_task, name):
    with pytest.raises(ConfigurationError, match="mask_chance"):
        make_task(name, mask_chance=0.5)


@pytest.mark.parametrize("name", sorted(registry.TASKS))
@pytest.mark.parametrize("files", [{}, {"vocab.json": b"{}"}])
def test_a_run_without_a_tokenizer_is_refused(name, files):
    section = TaskSection(name=name, sequence_length=16)
    with pytest.raises(ConfigurationError, match=r"needs a tokenizer\.json"):
        registry.create(section, files)


@pytest.mark.parametrize("name", sorted(registry.TASKS))
@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[]", b"not json"])
def test_a_broken_tokenizer_is_refused(name, data):
    section = TaskSection(name=name, sequence_length=16)
    with pytest.raises(ConfigurationError, match=r"the tokenizer\.json cannot be read"):
        registry.create(section, {"tokenizer.json": data})


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("causal-lm", "<eos>", "<eos>, </s>"),
        ("masked-lm", "<mask>", "<mask>, [MASK]"),
        ("masked-lm", "<cls>", "<cls>, [CLS]"),
        ("masked-lm", "<sep>", "<sep>, [SEP]"),
    ],
)
def test_a_tokenizer_without_a_special_token_is_refused(tokenizer_json, name, token, message):
    body = json.loads(tokenizer_json)
    body["added_tokens"] = [entry for entry in body["added_tokens"] if entry["content"] != token]
    number = body["model"]["vocab"].pop(token)
    body["model"]["vocab"]["unused"] = number
    data = json.dumps(body).encode()
    assert Tokenizer.from_buffer(data).token_to_id(token) is None
    section = TaskSection(name=name, sequence_length=16)
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        registry.create(section, {"tokenizer.json": data})
    assert "\n" not in str(caught.value)
