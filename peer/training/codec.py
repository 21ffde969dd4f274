"""How an average travels: encoded once, and decoded from the same bytes by everyone.

The reducer applies what its own encoding decodes to, not what it computed: otherwise it would be
the one peer with a different state.
"""

import numpy as np

from peer.training.state import Flat


def encode(values: Flat, codec: str) -> bytes:
    """Return `values` fp32 [n] as the bytes that `codec` sends.

    Raises:
        ValueError: `codec` is not known.
    """
    if codec != "none":
        raise ValueError(f"no codec is called {codec!r}")
    return values.astype("<f4", copy=False).tobytes()


def decode(data: bytes, elements: int, codec: str) -> Flat:
    """Return the fp32 [elements] that `data` holds; the array is read-only.

    Raises:
        ValueError: `codec` is not known, or `data` is not of the length of `elements` numbers.
    """
    if codec != "none":
        raise ValueError(f"no codec is called {codec!r}")
    if len(data) != elements * 4:
        raise ValueError(f"{elements} numbers take {elements * 4} bytes, not {len(data)}")
    return np.frombuffer(data, "<f4")
