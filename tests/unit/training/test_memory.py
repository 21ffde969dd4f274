"""How many samples at once, and which errors say that it was too many."""

import pytest
import torch

from peer.training.memory import first_micro_batch, is_out_of_memory, release


def test_the_allocators_own_error_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_errors_of_their_own_class_are_out_of_memory(error):
    assert is_out_of_memory(error)


def test_other_errors_are_not_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(OSError("can't allocate memory"))


@pytest.mark.parametrize(
    ("device", "wanted", "divisor", "samples"),
    [
        ("cpu", None, 1, 16),
        ("cpu", None, 4, 4),
        ("cpu", None, 1024, 1),
        ("cuda", None, 1, 32),
        ("meta", None, 1, 16),
        ("cuda", 5, 1, 5),
        ("cpu", 5, 2, 2),
        ("cpu", 1, 2, 1),
    ],
)
def test_first_micro_batch_follows_the_wish_and_the_divisor(device, wanted, divisor, samples):
    assert first_micro_batch(torch.device(device), wanted, divisor) == samples


def test_releasing_the_cpus_memory_is_harmless():
    release(torch.device("cpu"))
