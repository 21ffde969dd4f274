"""The baselines against the formulas written out in plain Python."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.tasks.baselines import bigram_bits, unigram_bits

VOCABULARY = 7
STREAMS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=30), min_size=1)
PAIRS = st.lists(
    st.tuples(st.integers(0, VOCABULARY - 1), st.integers(0, VOCABULARY - 1)),
    min_size=1,
    max_size=20,
)


def ids(tokens):
    return np.array(tokens, np.uint32)


def plain_unigram(streams, token):
    counts = Counter(other for stream in streams for other in stream)
    return (counts[token] + 1) / (counts.total() + VOCABULARY)


def plain_bigram(streams, before, token):
    pairs = Counter(pair for stream in streams for pair in itertools.pairwise(stream))
    seen_before = sum(count for (first, _), count in pairs.items() if first == before)
    smooth = 100.0 * plain_unigram(streams, token)
    return (pairs[before, token] + smooth) / (seen_before + 100.0)


@given(STREAMS, PAIRS)
def test_bits_equal_the_plain_formulas(streams, pairs):
    arrays = [ids(stream) for stream in streams]
    context, target = ids([a for a, _ in pairs]), ids([b for _, b in pairs])
    unigram = sum(-math.log2(plain_unigram(streams, b)) for _, b in pairs)
    bigram = sum(-math.log2(plain_bigram(streams, a, b)) for a, b in pairs)
    assert unigram_bits(arrays, target, VOCABULARY) == pytest.approx(unigram)
    assert bigram_bits(arrays, context, target, VOCABULARY) == pytest.approx(bigram)


@given(STREAMS, st.integers(0, VOCABULARY - 1))
def test_both_models_are_probabilities(streams, before):
    arrays, every = [ids(stream) for stream in streams], range(VOCABULARY)
    unigram = [2 ** -unigram_bits(arrays, ids([token]), VOCABULARY) for token in every]
    bigram = [2 ** -bigram_bits(arrays, ids([before]), ids([token]), VOCABULARY) for token in every]
    assert sum(unigram) == pytest.approx(1.0)
    assert sum(bigram) == pytest.approx(1.0)


def test_a_pair_across_two_shards_is_not_counted():
    together = bigram_bits([ids([0, 0, 1, 1])], ids([0]), ids([1]), VOCABULARY)
    apart = bigram_bits([ids([0, 0]), ids([1, 1])], ids([0]), ids([1]), VOCABULARY)
    assert apart > together
