"""Masked language modelling: which tokens are hidden, how, and that the row's key decides it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import ConfigurationError
from peer.tasks.text import IGNORED, PackedRows


@pytest.fixture(scope="module")
def task(make_task):
    return make_task("masked-lm")


def shares(task, rows):
    """Return the share of tokens scored, and of these the shares masked, changed and left."""
    batch = task.collate(rows)
    tokens = torch.from_numpy(np.stack([row for _, row in rows]).astype(np.int64))
    inputs, labels = batch.tensors["input_ids"][:, 1:-1], batch.tensors["labels"][:, 1:-1]
    scored = labels != IGNORED
    assert torch.equal(labels[scored], tokens[scored])
    assert torch.equal(inputs[~scored], tokens[~scored])
    seen, was = inputs[scored], tokens[scored]
    masked = seen == task.tokenizer.token_to_id("<mask>")
    left = seen == was
    return (
        scored.double().mean().item(),
        masked.double().mean().item(),
        (~masked & ~left).double().mean().item(),
        left.double().mean().item(),
    )


@given(st.integers(1, 200), st.integers(1, 40))
def test_every_token_of_a_shard_is_in_one_row(tokens, length):
    rows = PackedRows(np.arange(tokens, dtype=np.uint32), length, overlap=0)
    together = np.concatenate([rows[i] for i in range(len(rows))])
    assert together.tolist() == list(range(tokens))


def test_a_row_stands_between_its_start_and_end_token(task, keyed_rows):
    rows = [keyed_rows(1, 14)[0], keyed_rows(1, 5)[0]]
    batch = task.collate(rows)
    inputs, attention = batch.tensors["input_ids"], batch.tensors["attention_mask"]
    start, end = task.tokenizer.token_to_id("<cls>"), task.tokenizer.token_to_id("<sep>")
    assert inputs[:, 0].tolist() == [start, start]
    assert (inputs[0, 15], inputs[1, 6]) == (end, end)
    assert inputs[1, 7:].tolist() == [0] * 9
    assert attention.sum(1).tolist() == [16, 7]
    assert attention[1, :7].all()
    assert batch.tokens == 23
    assert batch.loss_terms == (batch.tensors["labels"] != IGNORED).sum()


def test_of_many_tokens_15_percent_are_scored_and_of_these_80_10_10(make_task, keyed_rows):
    task = make_task("masked-lm", sequence_length=514)
    scored, masked, changed, left = shares(task, keyed_rows(200, 512))
    assert scored == pytest.approx(0.15, abs=0.005)
    assert masked == pytest.approx(0.8, abs=0.01)
    assert changed == pytest.approx(0.1, abs=0.01)
    assert left == pytest.approx(0.1, abs=0.01)


def test_of_short_rows_15_percent_are_scored_too(make_task, keyed_rows):
    task = make_task("masked-lm", sequence_length=66)
    assert shares(task, keyed_rows(1000, 64))[0] == pytest.approx(0.15, abs=0.005)


def test_mask_probability_decides_how_many_tokens_are_scored(make_task, keyed_rows):
    task = make_task("masked-lm", sequence_length=514, mask_probability=0.4)
    assert shares(task, keyed_rows(100, 512))[0] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("length", [1, 2])
def test_a_tiny_row_has_a_loss_term_all_the_same(task, keyed_rows, length):
    for row in keyed_rows(50, length):
        assert task.collate([row]).loss_terms >= 1


def test_the_same_key_hides_the_same_tokens_whatever_the_batch(task, keyed_rows):
    rows = keyed_rows(6, 14)
    together = task.collate(rows).tensors
    for i, row in enumerate(rows):
        alone = task.collate([row]).tensors
        assert all(torch.equal(alone[name][0], together[name][i]) for name in alone)


def test_collating_neither_reads_nor_moves_the_global_generators(task, keyed_rows):
    rows = keyed_rows(4, 14)
    np.random.seed(1)  # noqa: NPY002 the global generator is what must not matter
    torch.manual_seed(1)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = task.collate(rows).tensors["input_ids"]
    assert np.array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(task.collate(rows).tensors["input_ids"], first)


@pytest.mark.parametrize(
    "change", [{"pass_number": 1}, {"shard_sha256": "cd" * 32}, {"row": 10**6}]
)
def test_another_key_hides_other_tokens(make_task, keyed_rows, change):
    task = make_task("masked-lm", sequence_length=66)
    key, row = keyed_rows(1, 64)[0]
    labels = task.collate([(key, row)]).tensors["labels"]
    others = task.collate([(dataclasses.replace(key, **change), row)]).tensors["labels"]
    assert not torch.equal(labels, others)


@pytest.mark.parametrize("chance", [0.0, 1.0, -0.1, 1.5, 1, True, "0.15"])
def test_a_mask_probability_outside_zero_to_one_is_refused(make_task, chance):
    with pytest.raises(ConfigurationError, match="mask_probability lies between 0 and 1"):
        make_task("masked-lm", mask_probability=chance)
