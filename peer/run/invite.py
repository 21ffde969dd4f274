"""An invite: one short string with which a stranger joins a run, who has nothing else.

It holds the run id and some addresses to start from, and may say until when it holds. It is no
secret and proves nothing: the run id is the hash of the manifest, so that whatever the peers at
those addresses hand out is checked against it.

The form: `ctpeer`, the format's digit, and base58 of four bytes of checksum and the packed lines.
Letters and digits only: nothing in it is an operator to a shell, a URL or a chat's mark-up.
"""

import dataclasses
import hashlib
import re
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Self

from peer.config.address import MAX_ADDRESS_CHARS, parse_address
from peer.errors import ConfigurationError, UsageError

MAX_ADDRESSES = 8
_NAME, _FORMAT = "ctpeer", "1"
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{32}")
_MAX_BODY_BYTES = 200 + MAX_ADDRESSES * (MAX_ADDRESS_CHARS + 1)
_MAX_CHARS = 2 * _MAX_BODY_BYTES
_LATEST_S = 1 << 35  # the year 3058
_CHECKSUM_BYTES = 4
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_COMMON = b"/p2p-circuit/p2p/12D3KooW/quic-v1/dns4//dns//udp//ip6/::1/ip4/127.0.0.1/tcp//p2p/Qm"
"""What addresses often hold, so that packing need not spell it; part of the format."""
_ASK = "ask whoever sent it for another, which `ctpeer invite` prints there"


@dataclasses.dataclass(frozen=True)
class Invite:
    """What an invite says.

    Attributes:
        run_id: The run.
        addresses: Multiaddrs of peers, each ending in /p2p/ID.
        expires_s: Until when it holds, in Unix seconds; None for ever.

    Raises:
        UsageError: It names no run, or too many or unusable addresses, or an absurd time.
    """

    run_id: str
    addresses: tuple[str, ...]
    expires_s: int | None = None

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise UsageError(f"the invite's run id {_cut(self.run_id)} is none; {_ASK}")
        if not 1 <= len(self.addresses) <= MAX_ADDRESSES:
            raise UsageError(
                f"an invite names one to {MAX_ADDRESSES} addresses, this one "
                f"{len(self.addresses)}; {_ASK}"
            )
        for address in self.addresses:
            if len(address) > MAX_ADDRESS_CHARS:
                raise UsageError(
                    f"the invite's address {_cut(address)} is longer than {MAX_ADDRESS_CHARS} "
                    f"characters; {_ASK}"
                )
            parsed = parse_address(address)
            if parsed is None or not parsed.names_a_peer:
                raise UsageError(
                    f"the invite's address {_cut(address)} does not say which peer answers where "
                    f"(it should be like /ip4/203.0.113.7/tcp/31337/p2p/ID); {_ASK}"
                )
        if self.expires_s is not None and not 0 < self.expires_s <= _LATEST_S:
            raise UsageError(f"the invite's end is not a time; {_ASK}")

    @classmethod
    def of(cls, run_id: str, addresses: Iterable[str], expires_s: int | None = None) -> Self:
        """Return an invite with those `addresses` that most strangers can use, at most eight.

        Raises:
            UsageError: None of them names a peer that could be dialled.
        """
        usable = []
        for text in dict.fromkeys(addresses):
            parsed = parse_address(text)
            if parsed is not None and parsed.names_a_peer:
                usable.append((-parsed.reach, text))
        usable.sort(key=lambda found: found[0])
        return cls(run_id, tuple(text for _, text in usable[:MAX_ADDRESSES]), expires_s)


def dump_invite(invite: Invite) -> str:
    """Return the one string that says `invite`."""
    expires = "" if invite.expires_s is None else str(invite.expires_s)
    body = "\n".join((invite.run_id, expires, *invite.addresses)).encode()
    packer = zlib.compressobj(level=9, wbits=-15, zdict=_COMMON)
    packed = packer.compress(body) + packer.flush()
    return _NAME + _FORMAT + _to_base58(_checksum(packed) + packed)


def looks_like_invite(text: str) -> bool:
    """Return whether `text` is meant as an invite, a mistyped one too, and not as a path."""
    found = re.match(rf"\s*{_NAME}[0-9]", text)
    return found is not None and not set(text) & set("/\\.")


def parse_invite(text: str, now_s: float) -> Invite:
    """Return what the invite `text` says; white space in and around it does not matter.

    Args:
        text: From a stranger.
        now_s: The wall clock, in Unix seconds.

    Raises:
        UsageError: It is no invite, was mistyped, or names what cannot be used.
        ConfigurationError: It is of a newer format, or it has expired.
    """
    if not looks_like_invite(text) or len(text) > 2 * _MAX_CHARS:
        raise UsageError(
            f"{_cut(text)} is not an invite: one begins with {_NAME}{_FORMAT} and is one long "
            "word, as `ctpeer invite` prints it"
        )
    word = "".join(text.split())  # a mail or a terminal may have broken it
    kind, code = word[len(_NAME)], word[len(_NAME) + 1 :]
    if kind != _FORMAT:
        raise ConfigurationError(
            f"the invite is of format {kind}, and this ctpeer reads format {_FORMAT}; update "
            "ctpeer, or ask for an invite of that format"
        )
    body = _unpack(code)
    if body is None:
        raise UsageError(
            "the invite is mistyped or cut short: its checksum does not fit; copy it again, whole"
        )
    run_id, expires, *addresses = [*body.split("\n"), "", ""]
    if not re.fullmatch("[0-9]{0,11}", expires):
        raise UsageError(f"the invite's end is not a time; {_ASK}")
    invite = Invite(run_id, tuple(addresses[:-2]), int(expires) if expires else None)
    if invite.expires_s is not None and invite.expires_s <= now_s:
        end = datetime.fromtimestamp(invite.expires_s, UTC)
        raise ConfigurationError(
            f"the invite to {invite.run_id} expired on {end:%Y-%m-%d at %H:%M} UTC; {_ASK} "
            "(if that is still to come, set this machine's clock)"
        )
    return invite


def _unpack(code: str) -> str | None:
    """Return the lines in base58 `code`, or None if anything about it is not right."""
    data = _from_base58(code)
    if data is None or _checksum(data[_CHECKSUM_BYTES:]) != data[:_CHECKSUM_BYTES]:
        return None
    unpacker = zlib.decompressobj(wbits=-15, zdict=_COMMON)
    try:
        body = unpacker.decompress(data[_CHECKSUM_BYTES:], _MAX_BODY_BYTES)
        return body.decode("ascii") if unpacker.eof and not unpacker.unused_data else None
    except (zlib.error, UnicodeDecodeError):
        return None


def _checksum(packed: bytes) -> bytes:
    return hashlib.sha256(b"ctpeer invite 1\n" + packed).digest()[:_CHECKSUM_BYTES]


def _to_base58(data: bytes) -> str:
    number, digits = int.from_bytes(b"\1" + data, "big"), []  # the 1 keeps leading zeros
    while number:
        number, digit = divmod(number, len(_BASE58))
        digits.append(_BASE58[digit])
    return "".join(reversed(digits))


def _from_base58(text: str) -> bytes | None:
    number = 0
    for character in text[:_MAX_CHARS]:
        digit = _BASE58.find(character)
        if digit < 0:
            return None
        number = number * len(_BASE58) + digit
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return data[1:] if data[:1] == b"\1" and len(text) <= _MAX_CHARS else None


def _cut(text: str) -> str:
    """Return `text` as it can be shown: short, and with nothing that a terminal obeys."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")  # noqa: PLR2004 what a line holds
