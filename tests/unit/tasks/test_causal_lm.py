"""Causal language modelling: every token is a target once, and what a batch looks like."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from peer.data.stream import RowKey
from peer.tasks.text import IGNORED, PackedRows


@given(st.integers(1, 200), st.integers(2, 40))
def test_every_token_but_the_first_is_a_target_once_after_its_predecessor(tokens, length):
    rows = PackedRows(np.arange(tokens, dtype=np.uint32), length, overlap=1)
    contexts = np.concatenate([rows[i][:-1] for i in range(len(rows))])
    targets = np.concatenate([rows[i][1:] for i in range(len(rows))])
    assert targets.tolist() == list(range(1, tokens))
    assert contexts.tolist() == list(range(tokens - 1))
    assert all(len(rows[i]) == length for i in range(len(rows) - 1))


def test_the_batches_of_a_shard_score_every_token_but_the_first_once(
    make_task, examples_of, demo_shards
):
    task, text = make_task(), demo_shards[0][1]
    shard, rows = examples_of(task, text)
    batch = task.collate([(RowKey(0, shard.sha256, i), rows[i]) for i in range(len(rows))])
    labels = batch.tensors["labels"]
    targets = labels[labels != IGNORED].tolist()
    expected = [*task.tokenizer.encode(text).ids, task.tokenizer.token_to_id("<eos>")]
    assert targets == expected[1:]
    assert batch.loss_terms == batch.tokens == len(targets)
    assert batch.samples == len(rows) > 1


def test_labels_are_the_inputs_moved_by_one_and_padding_is_not_scored(make_task):
    batch = make_task(sequence_length=8).collate(
        [
            (RowKey(0, "", 0), np.arange(10, 19, dtype=np.uint32)),
            (RowKey(0, "", 1), np.arange(20, 24, dtype=np.uint32)),
        ]
    )
    assert batch.tensors["input_ids"].tolist() == [
        [10, 11, 12, 13, 14, 15, 16, 17],
        [20, 21, 22, 0, 0, 0, 0, 0],
    ]
    assert batch.tensors["labels"].tolist() == [
        [11, 12, 13, 14, 15, 16, 17, 18],
        [21, 22, 23] + [IGNORED] * 5,
    ]
    assert all(tensor.dtype == torch.int64 for tensor in batch.tensors.values())
    assert (batch.samples, batch.tokens, batch.loss_terms) == (2, 11, 11)


def test_padding_changes_neither_loss_nor_gradient(make_task, configs, keyed_rows):
    task = make_task()
    model = task.build_model(configs["gpt2"])
    key, row = keyed_rows(1, 9)[0]
    alone = task.loss(model, task.collate([(key, row)]))
    batch = task.collate([(key, row)])
    inputs = batch.tensors["input_ids"].clone()
    inputs[:, 8:] = 7
    other = task.loss(model, type(batch)({**batch.tensors, "input_ids": inputs}, 1, 8, 8))
    torch.testing.assert_close(alone, other)
    gradients = [torch.autograd.grad(loss, model.parameters()) for loss in (alone, other)]
    torch.testing.assert_close(*gradients)


def test_the_same_rows_collate_to_the_same_batch(make_task, keyed_rows):
    task, rows = make_task(), keyed_rows(5, 17)
    first, second = task.collate(rows), task.collate(rows)
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name])


def test_a_built_model_keeps_no_cache(make_task, configs):
    assert make_task().build_model(configs["gpt2"]).config.use_cache is False
