"""What the language-model tasks share: models, losses, scores, tokenizers."""

import json
import math
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from peer.data.stream import RowKey
from peer.data.tokens import TokenCache
from peer.errors import ConfigurationError
from peer.run.manifest import TaskSection
from peer.tasks import registry
from peer.tasks.text import IGNORED, find_tokenizer, train_tokenizer
from peer.training.state import Schema

KINDS = [("causal-lm", "gpt2"), ("causal-lm", "llama"), ("masked-lm", "bert")]
PHRASE = "to be, 学 é"


@pytest.fixture(params=KINDS, ids=[kind for _, kind in KINDS])
def pair(request, make_task, configs):
    """Return a task and a configuration of a model for it."""
    name, kind = request.param
    return make_task(name), configs[kind]


@pytest.fixture
def batch(pair, keyed_rows):
    task, _ = pair
    return task.collate(keyed_rows(4, task.row_tokens))


@pytest.fixture
def make_byte_fallback_task():
    """Return a task with a tokenizer in SentencePiece's style, as Llama's first ones were."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *"▁tobe"]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(pieces[:3])
    return lambda: make_of(tokenizer)


def make_of(tokenizer):
    section = TaskSection(name="causal-lm", sequence_length=16)
    return registry.create(section, {"tokenizer.json": tokenizer.to_str().encode()})


def test_a_model_of_each_kind_learns_in_one_step(pair, batch):
    task, config = pair
    task.check_model(config)
    model = task.build_model(config).train()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    before = task.loss(model, batch)
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=0.1 / batch.loss_terms)
        after = task.loss(model, batch)
    assert after < before


def test_the_loss_is_the_summed_negative_log_probability_of_the_labels(pair, batch):
    task, config = pair
    model = task.build_model(config).eval()
    labels = batch.tensors["labels"]
    inputs = {name: tensor for name, tensor in batch.tensors.items() if name != "labels"}
    with torch.no_grad():
        loss = task.loss(model, batch)
        logits = model(**inputs).logits.double()
    scored = labels != IGNORED
    log_probabilities = logits.log_softmax(-1)[scored]
    expected = -log_probabilities.gather(1, labels[scored][:, None]).sum()
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert scored.sum() == batch.loss_terms


def test_the_mean_loss_equals_the_models_own(make_task, configs, keyed_rows):
    task = make_task()
    model = task.build_model(configs["gpt2"]).eval()
    key, row = keyed_rows(1, 16)[0]
    batch = task.collate([(key, row)])
    whole = torch.from_numpy(row.astype(np.int64))[None]
    with torch.no_grad():
        ours = task.loss(model, batch) / batch.loss_terms
        theirs = model(input_ids=whole, labels=whole).loss
    torch.testing.assert_close(ours, theirs)


def test_under_bf16_the_loss_is_fp32(pair, batch):
    task, config = pair
    model = task.build_model(config)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.loss(model, batch)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_a_uniform_model_scores_the_bits_of_its_vocabulary(pair, heldout):
    task, config = pair
    model = task.build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    rows = heldout(task)
    terms = sum(task.collate([row]).loss_terms for row in rows.rows)
    score = task.evaluate(model, rows, torch.device("cpu"))
    size = config["vocab_size"]
    assert score.value == pytest.approx(math.log2(size) * terms / rows.scored_bytes)
    assert score.metrics["loss"] == pytest.approx(math.log(size))
    assert score.metrics["perplexity"] == pytest.approx(size, rel=1e-5)


def test_the_scored_bytes_of_a_whole_causal_shard_are_its_text_after_the_first_token(
    make_task, examples_of, demo_shards
):
    task, text = make_task(), demo_shards[0][1]
    rows = task.heldout_rows([examples_of(task, text)], 10**6)
    first = task.tokenizer.decode(task.tokenizer.encode(text).ids[:1])
    assert rows.scored_bytes == len(text.encode()) - len(first.encode())


@pytest.mark.parametrize("most", [1, 7, 16, 10**6])
def test_held_out_rows_are_spread_evenly_over_all_shards(make_task, examples_of, demo_shards, most):
    task = make_task()
    shards = [examples_of(task, text) for _, text in demo_shards]
    keys = [RowKey(0, shard.sha256, i) for shard, rows in shards for i in range(len(rows))]
    picked = [keys.index(key) for key, _ in task.heldout_rows(shards, most).rows]
    assert len(picked) == min(most, len(keys))
    gaps = np.diff([*picked, len(keys)])
    assert picked[0] == 0
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_generators_mode_and_parameters_as_they_were(
    pair, heldout, batch, training
):
    task, config = pair
    dropped = {name: 0.5 for name in config if "drop" in name}
    model = task.build_model({**config, **dropped}).train(training)
    task.loss(model, batch).backward()
    parameters = [p.detach().clone() for p in model.parameters()]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    rows = heldout(task)
    first = task.evaluate(model, rows, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(module.training is training for module in model.modules())
    for before, after in zip(parameters, model.parameters(), strict=True):
        assert torch.equal(before, after)
    after_gradients = [p.grad for p in model.parameters() if p.grad is not None]
    for before, after in zip(gradients, after_gradients, strict=True):
        assert torch.equal(before, after)
    assert task.evaluate(model, rows, torch.device("cpu")) == first


@pytest.mark.parametrize("name", ["causal-lm", "masked-lm"])
def test_baselines_beat_the_uniform_model_and_bigrams_know_more(
    make_task, heldout, examples_of, demo_shards, name
):
    task = make_task(name)
    rows = heldout(task)
    terms = sum(task.collate([row]).loss_terms for row in rows.rows)
    uniform = math.log2(task.tokenizer.get_vocab_size()) * terms / rows.scored_bytes
    _, same = examples_of(task, demo_shards[1][1])
    found = task.baselines([same], rows)
    assert 0.0 < found["bigram"] < found["unigram"] < uniform


def test_a_model_with_too_small_a_vocabulary_is_refused(pair):
    task, config = pair
    config = {**config, "vocab_size": 299}
    with pytest.raises(ConfigurationError, match="300 tokens and the model's vocab_size is 299"):
        task.check_model(config)


def test_rows_longer_than_the_models_positions_are_refused(pair):
    task, config = pair
    key = "n_positions" if "n_positions" in config else "max_position_embeddings"
    with pytest.raises(ConfigurationError, match=f"sequence_length is 16 and the model's {key}"):
        task.check_model({**config, key: 15})


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "no-such-model"},
        {"model_type": 5},
        {"model_type": "t5"},
        {"n_embd": 15},
        {"n_embd": -16},
        {"n_embd": "wide"},
        {"n_head": 0},
        {"activation_function": "no-such-function"},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_refused(make_task, configs, change):
    with pytest.raises(ConfigurationError):
        make_task().build_model({**configs["gpt2"], **change})


def test_a_configuration_without_a_model_type_is_refused(make_task, configs):
    config = {key: value for key, value in configs["gpt2"].items() if key != "model_type"}
    with pytest.raises(ConfigurationError, match="model_type"):
        make_task().build_model(config)


def test_a_saved_model_loads_back_and_its_configuration_builds_its_like(pair, tmp_path):
    task, config = pair
    model = task.build_model(config)
    model.save_pretrained(tmp_path)
    loaded, loaded_config = task.load_pretrained(str(tmp_path))
    ours, theirs = dict(model.named_parameters()), dict(loaded.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert Schema.of(task.build_model(loaded_config)) == Schema.of(model)


def test_a_saved_bf16_model_loads_as_fp32(make_task, configs, tmp_path):
    task = make_task()
    task.build_model(configs["gpt2"]).to(torch.bfloat16).save_pretrained(tmp_path)
    loaded, _ = task.load_pretrained(str(tmp_path))
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def without_configuration(folder):
    (folder / "config.json").unlink()


def pickled(folder):
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def reconfigured(**change):
    def damage(folder):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))

    damage.__name__ = f"with {change}"
    return damage


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        without_weights,
        without_configuration,
        pickled,
        reconfigured(n_embd=32),
        reconfigured(n_layer=2),
        reconfigured(n_layer="two"),
        reconfigured(model_type="no-such-model"),
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_pretrained_directory_that_is_not_whole_is_refused(make_task, configs, tmp_path, damage):
    task = make_task()
    task.build_model(configs["gpt2"]).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigurationError, match="no model can be loaded from"):
        task.load_pretrained(str(tmp_path))


def test_a_tokenizer_is_found_in_a_file_and_in_a_directory(tokenizer_json, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(tokenizer_json)
    assert find_tokenizer(str(file)) == tokenizer_json
    assert find_tokenizer(str(tmp_path)) == tokenizer_json


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"the tokenizer\.json cannot be read"):
        find_tokenizer(str(tmp_path))


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path))):
        find_tokenizer(str(tmp_path))


def test_training_a_tokenizer_twice_gives_the_same_bytes(demo_shards, tokenizer_json):
    assert train_tokenizer([text for _, text in demo_shards], 300) == tokenizer_json


@given(st.text(max_size=40).filter(lambda text: "<" not in text))
def test_every_text_can_be_written_in_a_trained_tokenizer(make_task, text):
    task = make_task()
    ids = task.tokenizer.encode(text).ids
    assert task.tokenizer.decode(ids) == text
    assert task.token_bytes()[ids].sum() == len(text.encode())


@pytest.mark.parametrize("name", ["<eos>", "<mask>", "<pad>"])
def test_a_special_tokens_name_within_a_text_is_text(make_task, examples_of, name):
    task, text = make_task(), f"to be {name} or not"
    _, rows = examples_of(task, text)
    *ids, separator = rows.ids.tolist()
    assert task.tokenizer.token_to_id(name) not in ids
    assert task.token_bytes()[ids].sum() == len(text)
    assert task.token_bytes()[separator] == 0


def test_a_tokenizers_own_framing_is_not_put_around_a_text(tokenizer_json, examples_of):
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<cls>", "<sep>")],
    )
    _, rows = examples_of(make_of(tokenizer), "to be framed")
    assert tokenizer.decode(rows.ids, skip_special_tokens=False) == "to be framed<eos>"


def test_special_tokens_stand_for_no_bytes(make_task):
    task = make_task()
    special = [task.tokenizer.token_to_id(name) for name in ("<pad>", "<eos>", "<mask>")]
    assert task.token_bytes()[special].tolist() == [0, 0, 0]


def test_byte_fallback_tokens_stand_for_one_byte_each(make_byte_fallback_task):
    task = make_byte_fallback_task()
    ids = task.tokenizer.encode(PHRASE).ids
    assert task.tokenizer.decode(ids) == PHRASE
    assert task.token_bytes()[ids].sum() == len(PHRASE.encode())


def test_a_byte_level_decoder_within_a_sequence_counts_bytes(tokenizer_json):
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()])
    task = make_of(tokenizer)
    assert task.token_bytes()[tokenizer.encode(PHRASE).ids].sum() == len(PHRASE.encode())


def test_an_added_token_counts_its_bytes(tokenizer_json):
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    tokenizer.add_tokens(["学"])
    task = make_of(tokenizer)
    assert task.token_bytes()[tokenizer.encode(PHRASE).ids].sum() == len(PHRASE.encode())


@pytest.mark.parametrize(("piece", "size"), [("be", 2), ("##é", 2), ("[UNK]", 0)])
def test_a_wordpiece_counts_its_own_text(piece, size):
    pieces = ["[UNK]", "[SEP]", "be", "##é"]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}))
    tokenizer.add_special_tokens(pieces[:2])
    tokenizer.decoder = decoders.WordPiece()
    task = make_of(tokenizer)
    assert task.token_bytes()[tokenizer.token_to_id(piece)] == size


def test_tokenising_tells_of_every_character_once_and_of_none_that_is_kept(
    make_task, demo_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr("peer.tasks.text._PIECE_CHARACTERS", 1000)
    shard, text = demo_shards[0]
    task, told = make_task("causal-lm"), []
    texts = [text * 3, "short", text]
    task.examples(shard, texts, TokenCache(tmp_path), told.append)
    assert sum(told) == sum(map(len, texts))
    assert max(told) < 1100, "it tells while a long text is worked on, too"
    told.clear()
    task.examples(shard, texts, TokenCache(tmp_path), told.append)
    assert told == []
