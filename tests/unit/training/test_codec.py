"""What is encoded once decodes to the same bits everywhere, and to nearly what it was."""

import hashlib

import hypothesis.extra.numpy as st_numpy
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peer.training.codec import BLOCK_ELEMENTS, decode, encode, encoded_bytes

LOSSY = ["fp16", "int8"]
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
TINY_SCALE = 2.0**-126

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
arrays = st_numpy.arrays(np.float32, st.integers(0, 50), elements=finite)


def roundtrip(values, codec):
    return decode(encode(values, codec), len(values), codec)


def blocks_of(values):
    return [values[i : i + BLOCK_ELEMENTS] for i in range(0, len(values), BLOCK_ELEMENTS)]


def error_bounds(block, codec):
    """Return by how much each number of one block may be off, fp64."""
    largest = np.abs(block.astype(np.float64)).max()
    if codec == "fp16":
        step = max(largest * 2.0**-14, TINY_SCALE) * 2.0**-24
        return np.maximum(np.abs(block.astype(np.float64)) * 2.0**-11, step / 2)
    # The scale is rounded up to 17 bits, and is a whole step smaller only next to fp32's end.
    steps = 0.5 if largest < LARGEST / 2 else 0.51
    return np.full(len(block), steps * max(largest / 127 * (1 + 2.0**-16), TINY_SCALE))


def mixed(seed, elements):
    """Return numbers whose magnitudes lie all over fp32's range, changing from block to block."""
    draw = np.random.default_rng(seed)
    powers = draw.integers(-149, 128, -(-elements // 1000)).repeat(1000)[:elements]
    return np.ldexp(draw.uniform(-1, 1, elements), powers).astype(np.float32)


@given(st_numpy.arrays(np.uint32, st.integers(0, 50)))
@example(np.array([0x80000000, 0x7F800001, 0xFFC00001, 1], np.uint32))
def test_without_scaling_every_bit_pattern_survives(bits):
    values = bits.view(np.float32)
    decoded = roundtrip(values, "none")
    assert decoded.dtype == np.float32
    assert decoded.tobytes() == values.tobytes()


@pytest.mark.parametrize("codec", LOSSY)
@given(values=arrays)
@example(np.array([LARGEST, -LARGEST, 1.0, SMALLEST], np.float32))
@example(np.array([SMALLEST, -SMALLEST, 190 * SMALLEST, 0.0], np.float32))
@example(np.array([32760.0, 32767.0, -32768.0, 2.0**-10], np.float32))
@example(np.array([2.0**-126, 2.0**-127], np.float32))
def test_no_number_is_off_by_more_than_the_codec_allows(codec, values):
    decoded = roundtrip(values, codec).astype(np.float64)
    if len(values):
        assert (np.abs(decoded - values) <= error_bounds(values, codec)).all()
    assert not (decoded * values < 0).any()


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("elements", [4095, 4096, 4097, 12288, 32768, 32769, 70001])
def test_every_block_has_a_scale_of_its_own(codec, elements):
    values = mixed(elements, elements)
    decoded = roundtrip(values, codec).astype(np.float64)
    bounds = np.concatenate([error_bounds(block, codec) for block in blocks_of(values)])
    assert (np.abs(decoded - values) <= bounds).all()


@pytest.mark.parametrize("codec", LOSSY)
@given(values=arrays)
@example(np.array([LARGEST, -LARGEST, 1.0], np.float32))
@example(np.array([32767.9, 1.0], np.float32))
@example(np.array([SMALLEST, 127 * SMALLEST], np.float32))
def test_what_was_decoded_encodes_to_the_same_bytes(codec, values):
    data = encode(values, codec)
    assert encode(decode(data, len(values), codec), codec) == data


@pytest.mark.parametrize("codec", LOSSY)
def test_what_was_decoded_encodes_to_the_same_bytes_over_many_blocks(codec):
    for seed in range(20):
        values = mixed(seed, 40_000)
        data = encode(values, codec)
        assert encode(decode(data, len(values), codec), codec) == data


@given(st_numpy.arrays(np.float32, 50, elements=st.floats(-32752, 32752, width=32)))
def test_halves_are_rounded_as_numpy_rounds_them(values):
    # The first number lets the scale be one.
    values = np.concatenate([np.array([2.0**14], np.float32), values])
    assert roundtrip(values, "fp16").tobytes() == values.astype(np.float16).astype("<f4").tobytes()


@given(st.integers(-60, 60), arrays)
def test_fp16_does_not_depend_on_the_magnitude(power, values):
    # Within a bound that lets neither end of fp32's range be reached.
    values = np.clip(values, -1.0, 1.0) * (np.abs(values) > 2.0**-12)
    if not values.any():
        return
    scaled = np.ldexp(values, power).astype(np.float32)
    assert (roundtrip(scaled, "fp16") == np.ldexp(roundtrip(values, "fp16"), power)).all()


def test_a_number_next_to_one_ten_million_times_larger_is_kept_in_fp16():
    values = np.array([1e3, 1e-4, -3e-4], np.float32)
    assert roundtrip(values, "fp16") == pytest.approx(values, rel=2e-2)


@pytest.mark.parametrize("codec", ["none", *LOSSY])
@pytest.mark.parametrize("elements", [0, 1, 4096, 5000])
def test_zeros_stay_zeros(codec, elements):
    assert not roundtrip(np.zeros(elements, np.float32), codec).any()


@pytest.mark.parametrize(
    ("codec", "bytes_"), [("none", 40_000), ("fp16", 20_000 + 12), ("int8", 10_000 + 12)]
)
def test_the_size_is_known_beforehand(codec, bytes_):
    assert len(encode(np.ones(10_000, np.float32), codec)) == bytes_
    assert encoded_bytes(10_000, codec) == bytes_
    assert encoded_bytes(0, codec) == len(encode(np.ones(0, np.float32), codec)) == 0


@pytest.mark.parametrize(
    ("codec", "digest"),
    [
        ("fp16", "854407312697f750"),
        ("int8", "c830b8276b5d36d4"),
    ],
)
def test_the_bytes_are_the_same_on_every_machine(codec, digest):
    # Made of integers and exact divisions, so that the numbers, too, are the same everywhere.
    values = (np.arange(20_000) * 7919 % 65_537 - 32_768).astype(np.float32) / np.float32(1024)
    values[5000:9000] /= np.float32(2.0**20)
    data = encode(values, codec)
    decoded = decode(data, len(values), codec)
    assert hashlib.sha256(data + decoded.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4999])
def test_what_is_not_finite_is_not_encoded(codec, bad, place):
    values = np.ones(5000, np.float32)
    values[place] = bad
    with pytest.raises(ValueError, match="not finite"):
        encode(values, codec)


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00])
def test_a_half_that_is_not_finite_is_refused(bits):
    data = bytearray(encode(np.ones(5000, np.float32), "fp16"))
    data[-2:] = bits.to_bytes(2, "little")
    with pytest.raises(ValueError, match="not finite"):
        decode(data, 5000, "fp16")


@pytest.mark.parametrize(("codec", "number"), [("fp16", b"\xff\x7b"), ("int8", b"\x80")], ids=LOSSY)
def test_a_product_that_is_not_finite_is_refused(codec, number):
    data = bytearray(encode(np.array([1.0, LARGEST], np.float32), codec))
    data[4 : 4 + len(number)] = number
    with pytest.raises(ValueError, match="not finite"):
        decode(data, 2, codec)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize(
    "scale", [np.nan, np.inf, -1.0, 0.0, -0.0, 1 / 3, 2.0**-127, 2.0**122], ids=str
)
def test_a_scale_that_no_encoder_writes_is_refused(codec, block, scale):
    if codec == "fp16" and scale == 2.0**122:
        scale = 2.0**114
    data = bytearray(encode(np.ones(5000, np.float32), codec))
    data[4 * block : 4 * block + 4] = np.array(scale, "<f4").tobytes()
    with pytest.raises(ValueError, match="a scale is none that an encoder writes"):
        decode(data, 5000, codec)


@pytest.mark.parametrize("codec", LOSSY)
@given(data=st.data())
def test_junk_is_refused_or_decodes_to_finite_numbers(codec, data):
    junk = data.draw(st.binary(min_size=encoded_bytes(9, codec), max_size=encoded_bytes(9, codec)))
    try:
        decoded = decode(junk, 9, codec)
    except ValueError:
        return
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("codec", ["none", *LOSSY])
@pytest.mark.parametrize("off", [-1, 1, 4, 100])
def test_bytes_of_another_length_are_refused(codec, off):
    size = encoded_bytes(30, codec)
    with pytest.raises(ValueError, match=f"30 numbers take {size} bytes, not {size + off}"):
        decode(b"\0" * (size + off), 30, codec)


def test_an_unknown_codec_is_refused():
    with pytest.raises(ValueError, match="no codec is called 'zip'"):
        encode(np.zeros(3, np.float32), "zip")
    with pytest.raises(ValueError, match="no codec is called 'zip'"):
        decode(b"\0" * 12, 3, "zip")
    with pytest.raises(ValueError, match="no codec is called 'zip'"):
        encoded_bytes(3, "zip")


def test_the_codecs_are_those_that_a_manifest_may_name():
    from typing import get_args

    from peer.run.manifest import AveragingSection

    names = get_args(AveragingSection.model_fields["codec"].annotation)
    for name in names:
        assert encoded_bytes(1, name) > 0
    assert set(names) == {"none", *LOSSY}


@pytest.mark.parametrize("codec", ["none", *LOSSY])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_was_decoded_cannot_be_written_to(codec, kind):
    data = kind(encode(np.ones(3, np.float32), codec))
    with pytest.raises(ValueError, match="read-only"):
        decode(data, 3, codec)[0] = 1.0
