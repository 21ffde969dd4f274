"""What is encoded once decodes to the same bits everywhere."""

import hypothesis.extra.numpy as st_numpy
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peer.training.codec import decode, encode


@given(st_numpy.arrays(np.uint32, st.integers(0, 50)))
@example(np.array([0x80000000, 0x7F800001, 0xFFC00001, 1], np.uint32))
def test_every_bit_pattern_survives(bits):
    values = bits.view(np.float32)
    decoded = decode(encode(values, "none"), len(values), "none")
    assert decoded.dtype == np.float32
    assert decoded.tobytes() == values.tobytes()


@pytest.mark.parametrize("size", [0, 1, 11, 13, 16])
def test_bytes_of_another_length_are_refused(size):
    with pytest.raises(ValueError, match=f"3 numbers take 12 bytes, not {size}"):
        decode(b"\0" * size, 3, "none")


def test_an_unknown_codec_is_refused():
    with pytest.raises(ValueError, match="no codec is called 'zip'"):
        encode(np.zeros(3, np.float32), "zip")
    with pytest.raises(ValueError, match="no codec is called 'zip'"):
        decode(b"\0" * 12, 3, "zip")


def test_what_was_decoded_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        decode(b"\0" * 12, 3, "none")[0] = 1.0
