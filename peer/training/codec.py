"""How an average travels: encoded once, and decoded from the same bytes by everyone.

The reducer applies what its own encoding decodes to, not what it computed: otherwise it would be
the one peer with a different state. Decoding is one exact conversion and one multiplication that
the encoder made exact, so it gives the same bits on every machine.

- `none`: fp32, little endian.
- `fp16`, `int8`: blocks of 4096 numbers; first the blocks' fp32 scales, then all numbers in 16 or
  8 bits. A number is what is stored times its block's scale. This is block floating point (Drumond
  et al., arXiv:1804.01526), resp. block-wise absmax quantisation (Dettmers et al.,
  arXiv:2110.02861) with a linear map.
"""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from peer.swarm.wire import Body
from peer.training.state import Flat

BLOCK_ELEMENTS = 4096
"""Elements that share a scale: 4 bytes on 8 or 4 KiB."""

_BATCH_ELEMENTS = 8 * BLOCK_ELEMENTS
"""Elements worked on at once: scratch copies stay in the core's cache."""

_SMALLEST_SCALE = np.float32(2.0**-126)
"""The smallest normal number: products with it are exact, and so is its reciprocal."""

_LARGEST_HALF = np.float32(32752.0)
"""The largest fp16 below 2^15, where the scale puts the top of a block."""

_STEPS = np.float32(127.0)
_Words = npt.NDArray[np.uint32]
_Numbers = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """A codec of scaled blocks.

    Attributes:
        dtype: What a number is stored as.
        scales: Makes the blocks' scales [blocks] of their largest magnitudes [blocks].
        pack: Writes numbers [blocks, n], given scales [blocks, 1], into the third array.
        largest_scale: No scale is larger.
        unused_bits: The low bits of a scale that are always zero, so that products are exact.
    """

    dtype: str
    scales: Callable[[Flat], Flat]
    pack: Callable[[Flat, Flat, _Numbers], None]
    largest_scale: np.float32
    unused_bits: np.uint32


def encode(values: Flat, codec: str) -> Body:
    """Return `values` fp32 [n] as the bytes that `codec` sends.

    With `none` they are the memory of `values` itself, which must not change any more.

    Raises:
        ValueError: `codec` is not known, or it scales and a number is not finite.
    """
    if codec == "none":
        return values.astype("<f4", copy=False).view(np.uint8).data
    kind = _blocks_of(codec)
    scales = kind.scales(_largest_magnitudes(values))
    # A BytesIO hands its buffer over as bytes without copying it.
    stream = io.BytesIO(bytes(encoded_bytes(len(values), codec)))
    _pack(kind, values, scales, stream.getbuffer())
    return stream.getvalue()


def decode(data: Body, elements: int, codec: str) -> Flat:
    """Return the fp32 [elements] that `data` holds; the array is read-only.

    Raises:
        ValueError: `codec` is not known, `data` is not of the length of `elements` numbers, or
            the codec scales and `data` stands for a number that is not finite.
    """
    if len(data) != (size := encoded_bytes(elements, codec)):
        raise ValueError(f"{elements} numbers take {size} bytes, not {len(data)}")
    if codec == "none":
        values: Flat = np.frombuffer(data, "<f4")
    else:
        values = _unpack(_blocks_of(codec), data, elements)
    values.flags.writeable = False
    return values


def in_place(target: memoryview, codec: str) -> Flat | None:
    """Return `target` as the numbers whose encoding it is, where a codec stores them as they are.

    What is computed into them needs no encoding. None where the codec changes numbers.
    """
    return np.frombuffer(target, "<f4") if codec == "none" and sys.byteorder == "little" else None


def encoded_bytes(elements: int, codec: str) -> int:
    """Return how many bytes `encode` makes of `elements` numbers.

    Raises:
        ValueError: `codec` is not known.
    """
    if codec == "none":
        return 4 * elements
    return 4 * _block_count(elements) + np.dtype(_blocks_of(codec).dtype).itemsize * elements


def _blocks_of(codec: str) -> _Blocks:
    if codec not in _CODECS:
        raise ValueError(f"no codec is called {codec!r}")
    return _CODECS[codec]


def _block_count(elements: int) -> int:
    return -(-elements // BLOCK_ELEMENTS)


def _batches(elements: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Yield places of numbers, places of scales and [blocks, numbers]; the last may be short."""
    whole = elements - elements % BLOCK_ELEMENTS
    for start in range(0, whole, _BATCH_ELEMENTS):
        stop = min(start + _BATCH_ELEMENTS, whole)
        blocks = slice(start // BLOCK_ELEMENTS, stop // BLOCK_ELEMENTS)
        yield slice(start, stop), blocks, (blocks.stop - blocks.start, BLOCK_ELEMENTS)
    if whole < elements:
        block = whole // BLOCK_ELEMENTS
        yield slice(whole, elements), slice(block, block + 1), (1, elements - whole)


def _largest_magnitudes(values: Flat) -> Flat:
    """Return the largest magnitude fp32 [blocks] of each block.

    Raises:
        ValueError: A number is not finite.
    """
    largest = np.empty(_block_count(len(values)), np.float32)
    for place, blocks, shape in _batches(len(values)):
        batch = values[place].reshape(shape)
        np.maximum(batch.max(axis=1), -batch.min(axis=1), out=largest[blocks])
    if not np.isfinite(largest).all():
        raise ValueError("a number that is not finite cannot be scaled")
    return largest


def _pack(kind: _Blocks, values: Flat, scales: Flat, target: memoryview) -> None:
    count = len(scales)
    np.frombuffer(target, "<f4", count)[:] = scales
    numbers = np.frombuffer(target, kind.dtype, len(values), offset=4 * count)
    for place, blocks, shape in _batches(len(values)):
        batch = values[place].reshape(shape)
        kind.pack(batch, scales[blocks, np.newaxis], numbers[place].reshape(shape))


def _unpack(kind: _Blocks, data: Body, elements: int) -> Flat:
    count = _block_count(elements)
    scales = np.frombuffer(data, "<f4", count)
    _check_scales(kind, scales)
    numbers = np.frombuffer(data, kind.dtype, elements, offset=4 * count)
    values = np.empty(elements, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for place, blocks, shape in _batches(elements):
            batch = values[place].reshape(shape)
            np.copyto(batch, numbers[place].reshape(shape))
            np.multiply(batch, scales[blocks, np.newaxis], out=batch)
            if not np.isfinite(batch).all():
                raise ValueError("it stands for a number that is not finite")
    return values


def _check_scales(kind: _Blocks, scales: Flat) -> None:
    bounded = (scales >= _SMALLEST_SCALE) & (scales <= kind.largest_scale)
    short = scales.astype(np.float32, copy=False).view(np.uint32) & kind.unused_bits == 0
    if not (bounded & short).all():
        raise ValueError("a scale is none that an encoder writes")


def _half_scales(largest: Flat) -> Flat:
    """Return powers of two that bring the blocks' largest magnitudes into [2^14, 2^15)."""
    _, exponents = np.frexp(largest)
    scales: Flat = np.maximum(np.ldexp(np.float32(1.0), exponents - 15), _SMALLEST_SCALE)
    return scales


def _pack_half(values: Flat, scales: Flat, numbers: _Numbers) -> None:
    """Round `values` / `scales` to fp16, ties to even.

    Not by numpy's own conversion, which takes 40 times as long for each number that underflows.
    A magnitude below 2^15 is rounded by adding 2^13 times its power of two, which leaves it in
    the last bits of the sum, in units of fp16's last place.
    """
    scaled = np.divide(values, scales)
    bits = scaled.view(np.uint32)
    magic = np.bitwise_and(bits, np.uint32(0xFF << 23))
    np.maximum(magic, np.uint32((127 - 14) << 23), out=magic)  # below 2^-14 fp16 is evenly spaced
    np.add(magic, np.uint32(13 << 23), out=magic)
    rounded = np.abs(scaled)
    np.minimum(rounded, _LARGEST_HALF, out=rounded)
    np.add(rounded, magic.view(np.float32), out=rounded)
    halves: _Words = rounded.view(np.uint32)
    np.subtract(halves, magic, out=halves)
    np.right_shift(magic, 13, out=magic)  # its exponent, where fp16 has it
    np.subtract(magic, np.uint32((127 - 1) << 10), out=magic)
    np.add(halves, magic, out=halves)
    np.right_shift(bits, 16, out=bits)
    np.bitwise_and(bits, np.uint32(0x8000), out=bits)
    np.bitwise_or(halves, bits, out=halves)
    np.copyto(numbers.view("<u2"), halves, casting="unsafe")


def _byte_scales(largest: Flat) -> Flat:
    """Return the largest magnitudes by 127, rounded up to 17 bits: 127 times that is exact."""
    bits = np.divide(largest, _STEPS).view(np.uint32)
    np.add(bits, _SEVEN_BITS, out=bits)
    np.bitwise_and(bits, ~_SEVEN_BITS, out=bits)
    scales: Flat = np.clip(bits.view(np.float32), _SMALLEST_SCALE, _LARGEST_BYTE_SCALE)
    return scales


def _pack_bytes(values: Flat, scales: Flat, numbers: _Numbers) -> None:
    """Round `values` / `scales` to whole numbers from -127 to 127, ties to even."""
    scaled = np.divide(values, scales)
    np.rint(scaled, out=scaled)
    np.copyto(numbers, scaled, casting="unsafe")


_SEVEN_BITS = np.uint32(0x7F)
_LARGEST_BYTE_SCALE = np.float32(float.fromhex("0x1.0204p121"))
"""The largest number of 17 bits that 127 times still is an fp32."""

_CODECS = {
    "fp16": _Blocks(
        dtype="<f2",
        scales=_half_scales,
        pack=_pack_half,
        largest_scale=np.float32(2.0**113),
        unused_bits=np.uint32(0x7FFFFF),
    ),
    "int8": _Blocks(
        dtype="<i1",
        scales=_byte_scales,
        pack=_pack_bytes,
        largest_scale=_LARGEST_BYTE_SCALE,
        unused_bits=_SEVEN_BITS,
    ),
}
