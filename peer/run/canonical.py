"""One spelling for one meaning, so that a hash of it names the meaning.

JSON with sorted keys, no white space, UTF-8, and Python's shortest round-trip spelling of numbers;
a number without a fraction is spelled as an integer, so that `1` and `1.0` are one value wherever
they stand (in the spirit of RFC 8785, without its JavaScript spelling of exponents).
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping

from peer.run.manifest import Manifest

_RUN_ID_HASH_DIGITS = 32
_EXACT = 2**53
"""Up to here a float that is whole stands for one integer only."""


def canonical(value: object) -> bytes:
    """Return the canonical bytes of a JSON-like `value`.

    Raises:
        ValueError: A number in it is not finite, a key is no string, or a type is not JSON's.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def to_base64(data: bytes) -> str:
    """Return `data` in base64."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Return what `text` says in base64; nothing if it is not the one spelling of it."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return data if to_base64(data) == text else b""


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} has no canonical form")
            return int(value) if value.is_integer() and abs(value) < _EXACT else value
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("the keys of a canonical object are strings")
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    raise ValueError(f"a {type(value).__name__} has no canonical form")


def manifest_hash(manifest: Manifest) -> str:
    """Return the SHA-256 of the canonical form of `manifest`, in hexadecimal."""
    body = canonical(manifest.model_dump(mode="json"))
    return hashlib.sha256(b"ctpeer manifest\n" + body).hexdigest()


def run_id(manifest: Manifest) -> str:
    """Return the run's id: its name and 128 bits of its hash."""
    return f"{manifest.name}-{manifest_hash(manifest)[:_RUN_ID_HASH_DIGITS]}"
