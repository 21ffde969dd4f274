"""Addresses of peers, in libp2p's spelling, told apart without loading libp2p.

The form is checked lightly: what libp2p would understand passes, a slip of the pen does not.
"""

import dataclasses
import ipaddress
import re

MAX_ADDRESS_CHARS = 300
_PEER = "/p2p/[1-9A-HJ-NP-Za-km-z]{40,60}"
_ADDRESS = re.compile(
    r"/(?:ip4/(?P<ip4>[0-9.]{7,15})|ip6/(?P<ip6>[0-9A-Fa-f:.]{2,45})|dns[46]?/[A-Za-z0-9._-]{1,253})"
    r"/(?:tcp|udp)/(?P<port>[0-9]{1,5})(?:/(?:quic|quic-v1|ws|wss|tls))*"
    rf"(?P<relay>{_PEER}/p2p-circuit)?(?P<peer>{_PEER})?"
)


@dataclasses.dataclass(frozen=True)
class Address:
    """What matters of a multiaddr (https://multiformats.io/multiaddr) here.

    Attributes:
        ip: Its IP address; empty if it names a host.
        port: Its TCP or UDP port.
        relayed: Whether the way leads over another peer.
        peer_id: The peer at its end; empty if it names none.
    """

    ip: str
    port: int
    relayed: bool
    peer_id: str

    @property
    def everywhere(self) -> bool:
        """Whether it stands for every address of a machine: one to listen at, not to dial."""
        return bool(self.ip) and ipaddress.ip_address(self.ip).is_unspecified

    @property
    def names_a_peer(self) -> bool:
        """Whether it can be dialled, and says who must answer there."""
        return bool(self.port and self.peer_id) and not self.everywhere

    @property
    def reach(self) -> int:
        """How far away a machine may be that can dial it: 2 anywhere, 1 nearby, 0 on this one."""
        if not self.ip or self.relayed:
            return 2
        ip = ipaddress.ip_address(self.ip)
        if ip.is_loopback:
            return 0
        return 2 if ip.is_global else 1


def parse_address(text: str) -> Address | None:
    """Return what the multiaddr `text` says, or None if it has not the form of one."""
    found = _ADDRESS.fullmatch(text) if len(text) <= MAX_ADDRESS_CHARS else None
    if found is None or int(found["port"]) > 65535:  # noqa: PLR2004 a port has 16 bits
        return None
    ip = found["ip4"] or found["ip6"] or ""
    if ip and not _is_ip(ip, 4 if found["ip4"] else 6):
        return None
    peer_id = (found["peer"] or "").removeprefix("/p2p/")
    return Address(ip, int(found["port"]), found["relay"] is not None, peer_id)


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
