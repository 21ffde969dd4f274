"""What a reducer does with the slices that a group sends it: check each, then average.

A slice that fails a check is its sender's fault and is named as such; the others still count.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from peer.training.state import Flat

_BLOCK_ELEMENTS = 1 << 14
_LARGEST_SQUARE = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Reduced:
    """The weighted mean fp32 [n] of the slices that passed, and who did not, with the reason."""

    mean: Flat | None
    refused: Mapping[str, str]


def square_sum(values: Flat) -> float:
    """Return the fp64 sum of squares of `values` fp32 [n]; not finite if any value is not."""
    total = 0.0
    for start in range(0, len(values), _BLOCK_ELEMENTS):
        block = values[start : start + _BLOCK_ELEMENTS].astype(np.float64)
        # Not a dot product: BLAS would wait for threads on cores that are busy training.
        total += float(np.square(block, out=block).sum())
    return total


def check(values: Flat, weight: int, elements: int) -> str | None:
    """Return why a slice cannot be used, or None."""
    if values.shape != (elements,) or values.dtype != np.float32:
        return f"wrong shape: {values.dtype} {list(values.shape)} instead of float32 [{elements}]"
    if weight <= 0:
        return f"wrong weight: {weight}"
    # A square that fp32 cannot hold would make the optimizer's second moment infinite for good.
    if not square_sum(values) < _LARGEST_SQUARE:
        return "not finite"
    return None


def reduce(
    slices: Mapping[str, Flat],
    weights: Mapping[str, int],
    elements: int,
    out: Flat | None = None,
) -> Reduced:
    """Return the mean of `slices`, weighted by the weights that the group agreed on.

    Args:
        slices: fp32 [elements] by peer id.
        weights: Loss terms by peer id, at least one for each of `slices`.
        elements: The length that every slice must have.
        out: Where to put the mean, fp32 [elements]; a new array if not given.
    """
    verdicts = {peer: check(part, weights[peer], elements) for peer, part in slices.items()}
    refused = {peer: reason for peer, reason in verdicts.items() if reason is not None}
    accepted = sorted(set(slices) - set(refused))
    if not accepted:
        return Reduced(None, refused)
    total = sum(weights[peer] for peer in accepted)
    shares = [(slices[peer], np.float32(weights[peer] / total)) for peer in accepted]
    mean = np.empty(elements, np.float32) if out is None else out
    _add_up(shares, mean)
    return Reduced(mean, refused)


def _add_up(shares: Sequence[tuple[Flat, np.float32]], mean: Flat) -> None:
    """Put the sum of slices times shares into `mean`, block by block in the cache."""
    (first, share), *others = shares
    scratch = np.empty(_BLOCK_ELEMENTS, np.float32)
    for start in range(0, len(mean), _BLOCK_ELEMENTS):
        block = mean[start : start + _BLOCK_ELEMENTS]
        product = scratch[: len(block)]
        np.multiply(first[start : start + len(block)], share, out=block)
        for values, weight in others:
            np.multiply(values[start : start + len(block)], weight, out=product)
            np.add(block, product, out=block)
