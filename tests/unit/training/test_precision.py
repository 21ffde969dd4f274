"""Devices, precisions and the loss scale."""

import pytest
import torch

from peer.errors import ConfigurationError
from peer.training.precision import FIRST_SCALE, Autocast, resolve_device, resolve_precision

CPU = torch.device("cpu")


def fp16(scale=FIRST_SCALE):
    autocast = Autocast("fp16", CPU)
    autocast.resume(scale)
    return autocast


def test_the_scale_halves_with_each_contribution_that_is_not_finite_down_to_one():
    autocast = fp16(8.0)
    scales = []
    for _ in range(5):
        autocast.update(finite=False)
        scales.append(autocast.scale)
    assert scales == [4.0, 2.0, 1.0, 1.0, 1.0]


def test_the_scale_doubles_after_each_200_good_ones_in_a_row():
    autocast = fp16()
    scales = []
    for _ in range(400):
        autocast.update(finite=True)
        scales.append(autocast.scale)
    assert scales == [256.0] * 199 + [512.0] * 200 + [1024.0]


def test_a_failure_starts_the_row_anew():
    autocast = fp16()
    for _ in range(199):
        autocast.update(finite=True)
    autocast.update(finite=False)
    for _ in range(199):
        autocast.update(finite=True)
    assert autocast.scale == 128.0
    autocast.update(finite=True)
    assert autocast.scale == 256.0


def test_the_scale_does_not_grow_without_bound():
    autocast = fp16(65536.0)
    for _ in range(200):
        autocast.update(finite=True)
    assert autocast.scale == 65536.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_fp16_has_a_scale(precision):
    autocast = Autocast(precision, CPU)
    autocast.resume(1024.0)
    for finite in (False, *[True] * 200):
        autocast.update(finite=finite)
        assert autocast.scale == 1.0


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_product_under_autocast_has_the_precisions_type(precision, dtype):
    ones = torch.ones(2, 2)
    with Autocast(precision, CPU)():
        assert (ones @ ones).dtype == dtype
    assert (ones @ ones).dtype == torch.float32


def test_auto_is_fp32_on_the_cpu_and_a_wish_is_kept():
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_cpu_is_always_there():
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:999", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"the device '{name}' cannot be used here"):
        resolve_device(name)
