"""The outer step: applying an averaged contribution to the global state.

It runs in fp32 on the CPU in separately rounded additions, subtractions, multiplications,
divisions and square roots, each of which IEEE 754 rounds correctly: the result is the same, bit
for bit, on every machine. numpy's ufuncs keep two operations two roundings, where a fused
multiply-add would round once. Scalars are Python floats (fp64) from the same operations, rounded
to fp32 once, where they meet a buffer; never from `**`, exp or cos.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from peer.run.manifest import SGD, AdamW, ScheduleSection
from peer.training.state import Flat, GlobalState, Schema, Slot

BLOCK_ELEMENTS = 1 << 14
"""Elements worked on at once: every operand of a block stays in the core's cache."""

BETA_POWERS = "beta_powers"


def initial_slots(optimizer: AdamW | SGD, elements: int) -> dict[str, Slot]:
    """Return the outer optimizer's state before the first step."""
    match optimizer:
        case AdamW():
            return {
                "exp_avg": np.zeros(elements, np.float32),
                "exp_avg_sq": np.zeros(elements, np.float32),
                BETA_POWERS: np.ones(2, np.float64),
            }
        case SGD():
            return {"momentum": np.zeros(elements, np.float32)}


def learning_rate_factor(schedule: ScheduleSection, epoch: int) -> float:
    """Return what the learning rate is multiplied with in the step that leads to `epoch`.

    Warm-up rises linearly to 1 over `warmup_epochs`; then the factor stays, falls linearly to
    `floor` at `total_epochs`, or falls with the inverse square root of the epoch.
    """
    if epoch <= schedule.warmup_epochs:
        return epoch / schedule.warmup_epochs
    match schedule.decay:
        case "constant":
            return 1.0
        case "linear":
            assert schedule.total_epochs is not None
            span = schedule.total_epochs - schedule.warmup_epochs
            left = max(schedule.total_epochs - epoch, 0) / span
            return schedule.floor + (1.0 - schedule.floor) * left
        case "inverse-sqrt":
            start = max(schedule.warmup_epochs, 1)
            return max(schedule.floor, math.sqrt(start / epoch))


def clip_factor(square_sums: Sequence[float], max_norm: float | None) -> float:
    """Return what the average is multiplied with so that its norm is at most `max_norm`.

    Args:
        square_sums: The reducers' agreed fp64 sums of squares, one a part.
        max_norm: The bound, or None for no clipping.
    """
    if max_norm is None:
        return 1.0
    norm = math.sqrt(math.fsum(square_sums))
    return max_norm / norm if norm > max_norm else 1.0


def outer_step(
    state: GlobalState,
    average: Flat,
    square_sums: Sequence[float],
    optimizer: AdamW | SGD,
    schedule: ScheduleSection,
    halved: int = 0,
) -> None:
    """Advance `state` by one epoch, in place.

    Args:
        state: The global state at the epoch in which `average` was made.
        average: The decoded average, fp32 [state.schema.elements]; not changed.
        square_sums: Its fp64 sums of squares by part, as agreed in the certificate.
        optimizer: The manifest's outer optimizer.
        schedule: The manifest's schedule.
        halved: How often verdicts halve the learning rate.
    """
    clip = clip_factor(square_sums, optimizer.max_grad_norm)
    lr = optimizer.lr * learning_rate_factor(schedule, state.epoch + 1)
    for _ in range(halved):
        lr *= 0.5  # exact
    match optimizer:
        case AdamW():
            _adamw(state, average, clip, lr, optimizer)
        case SGD():
            _sgd(state, average, clip, lr, optimizer)
    state.epoch += 1


def _blocks(schema: Schema, weight_decay: float) -> Iterator[tuple[slice, float]]:
    """Yield the places of the flat buffers block by block, each with its weight decay.

    Vectors and scalars (biases, norms) are not decayed, as is customary.
    """
    spans: list[tuple[int, int, float]] = []
    for spec, place in schema.slices():
        decay = weight_decay if len(spec.shape) > 1 else 0.0
        if spans and spans[-1][2] == decay:
            spans[-1] = (spans[-1][0], place.stop, decay)
        else:
            spans.append((place.start, place.stop, decay))
    for start, stop, decay in spans:
        for block in range(start, stop, BLOCK_ELEMENTS):
            yield slice(block, min(block + BLOCK_ELEMENTS, stop)), decay


def _adamw(state: GlobalState, average: Flat, clip: float, lr: float, config: AdamW) -> None:
    """AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2)."""
    powers = state.optimizer[BETA_POWERS]
    powers *= (config.beta1, config.beta2)
    one = np.float32(1.0)
    beta1, beta2 = np.float32(config.beta1), np.float32(config.beta2)
    rest1, rest2 = np.float32(1.0 - config.beta1), np.float32(1.0 - config.beta2)
    correction1 = np.float32(1.0 - float(powers[0]))
    correction2 = np.float32(1.0 - float(powers[1]))
    eps, rate, scale = np.float32(config.eps), np.float32(lr), np.float32(clip)
    gradient, other = np.empty((2, BLOCK_ELEMENTS), np.float32)
    for place, decay in _blocks(state.schema, config.weight_decay):
        g, t = gradient[: place.stop - place.start], other[: place.stop - place.start]
        p = state.parameters[place]
        m, v = state.optimizer["exp_avg"][place], state.optimizer["exp_avg_sq"][place]
        np.multiply(average[place], scale, out=g)
        np.multiply(m, beta1, out=m)
        np.multiply(g, rest1, out=t)
        np.add(m, t, out=m)
        np.multiply(g, g, out=g)
        np.multiply(g, rest2, out=g)
        np.multiply(v, beta2, out=v)
        np.add(v, g, out=v)
        np.divide(v, correction2, out=g)
        np.sqrt(g, out=g)
        np.add(g, eps, out=g)
        np.divide(m, correction1, out=t)
        np.divide(t, g, out=t)
        np.multiply(t, rate, out=t)
        if decay:
            np.multiply(p, one - np.float32(lr * decay), out=p)
        np.subtract(p, t, out=p)


def _sgd(state: GlobalState, average: Flat, clip: float, lr: float, config: SGD) -> None:
    """SGD with heavy-ball or Nesterov momentum (Sutskever et al., ICML 2013, in torch's form)."""
    one = np.float32(1.0)
    momentum, rate, scale = np.float32(config.momentum), np.float32(lr), np.float32(clip)
    gradient, other = np.empty((2, BLOCK_ELEMENTS), np.float32)
    for place, decay in _blocks(state.schema, config.weight_decay):
        g, t = gradient[: place.stop - place.start], other[: place.stop - place.start]
        p, u = state.parameters[place], state.optimizer["momentum"][place]
        np.multiply(average[place], scale, out=g)
        np.multiply(u, momentum, out=u)
        np.add(u, g, out=u)
        np.multiply(u, momentum, out=t)
        np.add(g, t, out=t)
        np.multiply(t if config.nesterov else u, rate, out=t)
        if decay:
            np.multiply(p, one - np.float32(lr * decay), out=p)
        np.subtract(p, t, out=p)
