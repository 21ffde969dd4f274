"""Where a node listens: whether it can, and from where it can be reached there."""

import errno
import socket
from collections.abc import Iterable

from peer.config.address import parse_address
from peer.errors import ConfigurationError


def reachability_of(addresses: Iterable[str], *, client: bool) -> str:
    """Return from where a node with these `addresses` can be reached, in words."""
    parsed = [found for text in addresses if (found := parse_address(text)) is not None]
    if any(address.relayed for address in parsed):
        return "relayed"
    if client:
        return "client"
    if not parsed:
        return "unknown"
    reach = max(address.reach for address in parsed)
    return ("loopback only", "local network", "public")[reach]


def check_announced(addresses: Iterable[str]) -> None:
    """Raise ConfigurationError unless all `addresses` could be dialled by others."""
    for text in addresses:
        address = parse_address(text)
        if address is None or not address.port or address.everywhere:
            raise ConfigurationError(
                f"{text[:100]!r} is no address that others could dial; write it like "
                "/ip4/203.0.113.7/tcp/31337 or /dns4/example.org/tcp/31337"
            )


def check_peers(addresses: Iterable[str]) -> None:
    """Raise ConfigurationError unless all `addresses` say which peer answers where."""
    for text in addresses:
        address = parse_address(text)
        if address is None or not address.names_a_peer:
            raise ConfigurationError(
                f"{text[:100]!r} is no address of a peer; write it like "
                "/ip4/203.0.113.7/tcp/31337/p2p/ID, as it is printed there"
            )


def check_listened(addresses: Iterable[str]) -> None:
    """Raise ConfigurationError unless all `addresses` can be listened at now.

    p2pd would share a port with another p2pd, and be content with one address of many.
    """
    for text in addresses:
        address = parse_address(text)
        if address is None or not address.ip:
            raise ConfigurationError(
                f"{text[:100]!r} is no address to listen at; write /ip4/0.0.0.0/tcp/31337"
            )
        kind = socket.SOCK_DGRAM if "/udp/" in text else socket.SOCK_STREAM
        _check_free(text, address.ip, address.port, kind)


def _check_free(text: str, ip: str, port: int, kind: socket.SocketKind) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            what = {
                errno.EADDRINUSE: "another program uses that port; end it, or listen at another",
                errno.EACCES: "ports below 1024 are not free for all; listen at another",
                errno.EADDRNOTAVAIL: "this machine has no such address; listen at /ip4/0.0.0.0/...",
            }.get(error.errno or 0, str(error.strerror))
            raise ConfigurationError(f"{text} cannot be listened at: {what}") from error
