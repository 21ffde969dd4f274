"""Gradients in one flat buffer, in the schema's order."""

import itertools

import numpy as np
import torch

from peer.training.contribution import contribution_id, flat_gradient
from peer.training.state import Schema


def test_gradients_stand_where_the_schema_puts_their_tensors():
    model = torch.nn.Linear(3, 2)
    model.weight.grad = torch.arange(6.0).reshape(2, 3)
    model.bias.grad = torch.tensor([10.0, 11.0])
    flat = flat_gradient(model, Schema.of(model))
    assert flat.dtype == np.float32
    assert flat.tolist() == [10.0, 11.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_parameter_without_a_gradient_gives_zeros():
    model = torch.nn.Linear(3, 2)
    model.bias.grad = torch.tensor([1.0, 2.0])
    assert flat_gradient(model, Schema.of(model)).tolist() == [1.0, 2.0] + [0.0] * 6


def test_a_gradient_that_is_not_contiguous_is_read_in_order():
    model = torch.nn.Linear(3, 2, bias=False)
    model.weight.grad = torch.arange(6.0).reshape(3, 2).t()
    assert flat_gradient(model, Schema.of(model)).tolist() == [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]


def test_the_flat_gradient_is_a_copy():
    model = torch.nn.Linear(3, 2)
    model.weight.grad = torch.ones(2, 3)
    flat = flat_gradient(model, Schema.of(model))
    model.weight.grad.zero_()
    assert flat[2:].tolist() == [1.0] * 6


def test_every_peer_root_and_number_has_a_name_of_its_own():
    given = list(itertools.product(["a", "b"], ["r", "s"], [1, 2, 11]))
    assert len({contribution_id(*one) for one in given}) == len(given)
    assert contribution_id("a", "r", 1) == contribution_id("a", "r", 1)
