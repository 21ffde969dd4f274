"""The outer step against a reference that rounds every single operation to fp32."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.run.manifest import SGD, AdamW, ScheduleSection
from peer.training.outer import clip_factor, initial_slots, learning_rate_factor, outer_step
from peer.training.state import GlobalState, Schema, TensorSpec

ADAMW = AdamW(
    name="adamw", lr=4e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, max_grad_norm=1.0
)
SGD_NESTEROV = SGD(
    name="sgd", lr=0.7, momentum=0.9, nesterov=True, weight_decay=0.01, max_grad_norm=None
)
CONSTANT = ScheduleSection(warmup_epochs=0, decay="constant", total_epochs=None, floor=0.0)
SCHEMA = Schema((TensorSpec("bias", (7,)), TensorSpec("weight", (300, 61))))


def fp32(value):
    """Round to fp32: for one + - * / or sqrt of fp32 operands in fp64 this rounds correctly."""
    return np.float64(np.float32(value))


def fresh_state(optimizer, seed=0):
    values = np.random.default_rng(seed).normal(size=SCHEMA.elements).astype(np.float32)
    return GlobalState(0, SCHEMA, values, initial_slots(optimizer, SCHEMA.elements))


def gradients(seed):
    return np.random.default_rng(seed).normal(size=SCHEMA.elements).astype(np.float32)


def decay_of(index, weight_decay):
    return weight_decay if index >= 7 else 0.0


def reference_adamw(p, m, v, g, powers, index):
    c1, c2 = fp32(1.0 - powers[0]), fp32(1.0 - powers[1])
    m = fp32(fp32(m * fp32(0.9)) + fp32(g * fp32(1.0 - 0.9)))
    v = fp32(fp32(v * fp32(0.95)) + fp32(fp32(g * g) * fp32(1.0 - 0.95)))
    denominator = fp32(fp32(math.sqrt(fp32(v / c2))) + fp32(1e-8))
    update = fp32(fp32(fp32(m / c1) / denominator) * fp32(4e-3))
    decay = decay_of(index, 0.1)
    if decay:
        p = fp32(p * fp32(1.0 - fp32(4e-3 * decay)))
    return fp32(p - update), m, v


def test_three_adamw_steps_equal_the_reference_bit_for_bit():
    state = fresh_state(ADAMW)
    indices = [0, 6, 7, 100, SCHEMA.elements - 1]
    p = {i: np.float64(state.parameters[i]) for i in indices}
    m, v = dict.fromkeys(indices, 0.0), dict.fromkeys(indices, 0.0)
    powers = [1.0, 1.0]
    for step in range(3):
        gradient = gradients(step)
        square_sum = float((gradient.astype(np.float64) ** 2).sum())
        clip = fp32(clip_factor([square_sum], 1.0))
        powers = [powers[0] * 0.9, powers[1] * 0.95]
        for i in indices:
            clipped = fp32(np.float64(gradient[i]) * clip)
            p[i], m[i], v[i] = reference_adamw(p[i], m[i], v[i], clipped, powers, i)
        outer_step(state, gradient, [square_sum], ADAMW, CONSTANT)
    assert state.epoch == 3
    for i in indices:
        assert np.float64(state.parameters[i]) == p[i]
        assert np.float64(state.optimizer["exp_avg"][i]) == m[i]
        assert np.float64(state.optimizer["exp_avg_sq"][i]) == v[i]


@pytest.mark.parametrize("nesterov", [True, False])
def test_three_sgd_steps_equal_the_reference_bit_for_bit(nesterov):
    optimizer = SGD_NESTEROV.model_copy(update={"nesterov": nesterov})
    state = fresh_state(optimizer)
    indices = [0, 6, 7, 100, SCHEMA.elements - 1]
    p = {i: np.float64(state.parameters[i]) for i in indices}
    u = dict.fromkeys(indices, 0.0)
    for step in range(3):
        gradient = gradients(step)
        for i in indices:
            g = np.float64(gradient[i])
            u[i] = fp32(fp32(u[i] * fp32(0.9)) + g)
            ahead = fp32(g + fp32(u[i] * fp32(0.9))) if nesterov else u[i]
            if decay := decay_of(i, 0.01):
                p[i] = fp32(p[i] * fp32(1.0 - fp32(0.7 * decay)))
            p[i] = fp32(p[i] - fp32(ahead * fp32(0.7)))
        outer_step(state, gradient, [1.0], optimizer, CONSTANT)
    for i in indices:
        assert np.float64(state.parameters[i]) == p[i]
        assert np.float64(state.optimizer["momentum"][i]) == u[i]


@pytest.mark.parametrize("optimizer", [ADAMW, SGD_NESTEROV])
def test_outer_step_follows_torchs_own_optimizer_closely(optimizer):
    torch = pytest.importorskip("torch")
    state = fresh_state(optimizer)
    named = SCHEMA.named(state.parameters.copy())
    weight = torch.nn.Parameter(torch.from_numpy(named["weight"].copy()))
    if isinstance(optimizer, AdamW):
        theirs = torch.optim.AdamW([weight], lr=4e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    else:
        theirs = torch.optim.SGD([weight], lr=0.7, momentum=0.9, nesterov=True)
        optimizer = optimizer.model_copy(update={"weight_decay": 0.0})
    optimizer = optimizer.model_copy(update={"max_grad_norm": None})
    for step in range(5):
        gradient = gradients(step)
        weight.grad = torch.from_numpy(SCHEMA.named(gradient)["weight"].copy())
        theirs.step()
        outer_step(state, gradient, [1.0], optimizer, CONSTANT)
    ours = SCHEMA.named(state.parameters)["weight"]
    np.testing.assert_allclose(ours, weight.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_the_average_is_not_changed_by_the_step():
    state, gradient = fresh_state(ADAMW), gradients(1)
    before = gradient.copy()
    outer_step(state, gradient, [1e6], ADAMW, CONSTANT)
    assert np.array_equal(gradient, before)


def test_a_norm_below_the_bound_is_not_clipped():
    assert clip_factor([0.25, 0.25], 1.0) == 1.0
    assert clip_factor([9.0, 16.0], 1.0) == 0.2
    assert clip_factor([1e30], None) == 1.0


@given(
    st.integers(1, 2000),
    st.integers(0, 500),
    st.sampled_from(["constant", "linear", "inverse-sqrt"]),
)
def test_learning_rate_factor_stays_between_zero_and_one(epoch, warmup, decay):
    schedule = ScheduleSection(
        warmup_epochs=warmup,
        decay=decay,
        total_epochs=1000 if decay == "linear" else None,
        floor=0.1,
    )
    factor = learning_rate_factor(schedule, epoch)
    assert 0.0 < factor <= 1.0
    if epoch > warmup:
        assert factor >= 0.1


def test_linear_decay_ends_at_its_floor():
    schedule = ScheduleSection(warmup_epochs=10, decay="linear", total_epochs=110, floor=0.25)
    assert learning_rate_factor(schedule, 5) == 0.5
    assert learning_rate_factor(schedule, 60) == 0.625
    assert learning_rate_factor(schedule, 110) == 0.25
    assert learning_rate_factor(schedule, 5000) == 0.25


@pytest.mark.parametrize("decay", ["constant", "linear", "inverse-sqrt"])
def test_warm_up_rises_linearly_to_one_whatever_follows(decay):
    schedule = ScheduleSection(
        warmup_epochs=4, decay=decay, total_epochs=8 if decay == "linear" else None
    )
    factors = [learning_rate_factor(schedule, epoch) for epoch in range(1, 9)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[3:]))


@pytest.mark.parametrize(
    ("warmup", "epoch", "factor"), [(10, 40, 0.5), (10, 1000, 0.1), (10, 10**6, 0.05), (0, 4, 0.5)]
)
def test_inverse_sqrt_falls_with_the_root_of_the_epoch_to_its_floor(warmup, epoch, factor):
    schedule = ScheduleSection(warmup_epochs=warmup, decay="inverse-sqrt", floor=0.05)
    assert learning_rate_factor(schedule, epoch) == pytest.approx(factor)


def test_without_warm_up_a_constant_rate_is_there_at_once():
    assert [learning_rate_factor(CONSTANT, epoch) for epoch in (1, 2, 10**9)] == [1.0] * 3
