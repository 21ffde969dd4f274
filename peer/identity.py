"""A peer's identity: an RSA key in libp2p's form, and the peer id that is its hash.

One key is the libp2p identity and signs every record. Signatures are PKCS#1 v1.5 with SHA-256:
deterministic, so that two signatures of one key over one text are equal.
"""

import contextlib
import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from peer.errors import ConfigurationError, DamagedError

KEY_BITS = 2048
_PUBLIC_EXPONENT = 65537
_PROTOBUF_HEAD = b"\x08\x00\x12"
"""libp2p's crypto.proto, PublicKey and PrivateKey alike: field 1 (type) = RSA, then field 2."""
_MULTIHASH_SHA256 = b"\x12\x20"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Identity:
    """A private key and what follows from it."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public_key = _wrap(spki)
        """The key as libp2p's PublicKey protobuf."""
        self.peer_id = peer_id_of(self.public_key)

    @classmethod
    def load_or_create(cls, path: Path) -> "Identity":
        """Return the identity kept at `path`, making one where there is none.

        Raises:
            ConfigurationError: The file cannot be read or written.
            DamagedError: The file does not hold a key of ours.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            identity = cls(rsa.generate_private_key(_PUBLIC_EXPONENT, KEY_BITS))
            return identity._keep(path)
        except OSError as error:
            raise ConfigurationError(f"the identity {path} cannot be read: {error}") from error
        try:
            key = serialization.load_der_private_key(_unwrap(data), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, rsa.RSAPrivateKey) or not _is_of_our_kind(key.public_key()):
            raise DamagedError(
                f"{path} is not an identity key (RSA-{KEY_BITS}); restore it, or delete it to "
                "become another peer"
            )
        return cls(key)

    def sign(self, data: bytes) -> bytes:
        """Return the PKCS#1 v1.5 SHA-256 signature over `data`, the same each time."""
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def _keep(self, path: Path) -> "Identity":
        """Write the key to `path`, readable by its owner only, whole or not at all."""
        der = self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        try:
            descriptor, fresh = tempfile.mkstemp(prefix=".identity-", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:  # mkstemp made it 0600
                    file.write(_wrap(der))
                    file.flush()
                    os.fsync(file.fileno())
                # A link, not a rename: of two processes that make a key at once, one wins.
                os.link(fresh, path)
            finally:
                with contextlib.suppress(OSError):
                    Path(fresh).unlink()
        except FileExistsError:
            return Identity.load_or_create(path)
        except OSError as error:
            raise ConfigurationError(f"the identity {path} cannot be written: {error}") from error
        return self


def peer_id_of(public_key: bytes) -> str:
    """Return the peer id of a PublicKey protobuf: base58 of its SHA-256 multihash."""
    return _base58(_MULTIHASH_SHA256 + hashlib.sha256(public_key).digest())


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` over `data` is by `public_key`, an RSA-2048 key with e = 65537.

    Junk of any kind is False, never an exception.
    """
    key = _load_public(public_key)
    if key is None:
        return False
    try:
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=1024)
def _load_public(public_key: bytes) -> rsa.RSAPublicKey | None:
    try:
        key = serialization.load_der_public_key(_unwrap(public_key))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, rsa.RSAPublicKey) and _is_of_our_kind(key) else None


def _is_of_our_kind(key: rsa.RSAPublicKey) -> bool:
    return key.key_size == KEY_BITS and key.public_numbers().e == _PUBLIC_EXPONENT


def _wrap(der: bytes) -> bytes:
    """Return the protobuf message {type: RSA, data: der}."""
    length, size = b"", len(der)
    while size > 0x7F:  # noqa: PLR2004 a varint carries seven bits a byte
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return _PROTOBUF_HEAD + length + bytes([size]) + der


def _unwrap(message: bytes) -> bytes:
    """Return the DER in a protobuf message; only our own spelling of it is accepted."""
    start = len(_PROTOBUF_HEAD)
    while start < len(message) and message[start] & 0x80:
        start += 1
    der = message[start + 1 :]
    if _wrap(der) != message:
        raise ValueError("not a libp2p RSA key")
    return der


def _base58(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits
