"""What a model must beat: unigram and bigram models of tokens, scored in bits.

The unigram model has add-one smoothing; the bigram model interpolates with it by Dirichlet
smoothing (Zhai and Lafferty, 2004, section 3), p(b|a) = (n(a,b) + mu p(b)) / (n(a) + mu).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MU = 100.0

Ids = npt.NDArray[np.uint32]


def unigram_bits(streams: Sequence[Ids], target: Ids, vocabulary: int) -> float:
    """Return the bits that a unigram model needs for all of `target`.

    Args:
        streams: Token ids [n] of each training shard.
        target: Token ids [m] to be predicted.
        vocabulary: How many tokens there are.
    """
    return float(-np.log2(_unigram(streams, vocabulary)[target]).sum())


def bigram_bits(streams: Sequence[Ids], context: Ids, target: Ids, vocabulary: int) -> float:
    """Return the bits that a bigram model needs for all of `target` [m] after `context` [m]."""
    unigram = _unigram(streams, vocabulary)
    pairs = [_pairs(stream[:-1], stream[1:], vocabulary) for stream in streams]
    known, counts = np.unique(np.concatenate(pairs), return_counts=True)
    before = np.bincount(np.concatenate([s[:-1] for s in streams]), minlength=vocabulary)
    wanted = _pairs(context, target, vocabulary)
    place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    seen = np.where(known[place] == wanted, counts[place], 0)
    probability = (seen + _MU * unigram[target]) / (before[context] + _MU)
    return float(-np.log2(probability).sum())


def _unigram(streams: Sequence[Ids], vocabulary: int) -> npt.NDArray[np.float64]:
    counts = np.bincount(np.concatenate(streams), minlength=vocabulary) + 1
    probabilities: npt.NDArray[np.float64] = counts / counts.sum()
    return probabilities


def _pairs(first: Ids, second: Ids, vocabulary: int) -> npt.NDArray[np.int64]:
    return first.astype(np.int64) * vocabulary + second
