"""Where something is served over TCP, as an IP address and a port; names of hosts are none.

A name may lead to another address each time it is asked for, also to one that is private.
"""

import ipaddress
import re
from typing import NamedTuple

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_ENDPOINT_CHARS = 56
_ENDPOINT = re.compile(
    r"(?:\[(?P<ip6>[0-9A-Fa-f:.]{2,45})\]|(?P<ip4>[0-9.]{7,15})):(?P<port>[0-9]{1,5})"
)


class Endpoint(NamedTuple):
    """An address and a port above 0."""

    ip: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"  # noqa: PLR2004


def parse_endpoint(text: str) -> Endpoint | None:
    """Return what `text` says, 203.0.113.7:8470 or [2001:db8::7]:8470, or None if it is none."""
    found = _ENDPOINT.fullmatch(text)
    if found is None or not 0 < int(found["port"]) <= 65535:  # noqa: PLR2004 a port has 16 bits
        return None
    try:
        ip = (
            ipaddress.IPv6Address(found["ip6"])
            if found["ip6"]
            else ipaddress.IPv4Address(found["ip4"])
        )
    except ValueError:
        return None
    return Endpoint(ip, int(found["port"]))
