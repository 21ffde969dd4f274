"""Which peers Prometheus is told to scrape: those that opted in, where they proved to be. Pure.

A record says where its peer wants to be scraped. It is a stranger's word, so it is believed only
for an address at which that very peer answered over libp2p, which proves its key: nobody can have
somebody else's machine scraped. Names of hosts are never looked up.
"""

import dataclasses
import ipaddress
from collections import Counter
from collections.abc import Collection, Mapping

from monitoring.names import Unfit
from peer.config.endpoint import Endpoint, IpAddress, parse_endpoint

MAX_TARGETS = 256

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is assigned for unicast; what else looks global carries an IPv4 address within."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """What is offered to Prometheus.

    Attributes:
        offered: By peer id.
        refused: Why the others are not, by peer id.
    """

    offered: Mapping[str, Endpoint]
    refused: Mapping[str, Unfit]

    def counts(self) -> Counter[Unfit]:
        """Return how many are refused, by reason; every reason is there."""
        counts = Counter(dict.fromkeys(Unfit, 0))
        counts.update(self.refused.values())
        return counts


def choose_targets(
    announced: Mapping[str, str],
    proven: Mapping[str, Collection[str]],
    members: Collection[str],
    *,
    allow_private: bool,
) -> Targets:
    """Return which announced addresses to offer, and why not the others.

    Args:
        announced: Where peers say that their /metrics is, by peer id.
        proven: IP addresses at which they answered.
        members: Who contributed to the run; everybody where nobody is named.
        allow_private: Whether addresses of a local network, and of this machine, may be offered.
    """
    offered: dict[str, Endpoint] = {}
    refused: dict[str, Unfit] = {}
    for peer in sorted(announced, key=lambda peer: (peer not in members, peer)):
        found = fitness(announced[peer], proven.get(peer, ()), allow_private=allow_private)
        if isinstance(found, Unfit):
            refused[peer] = found
        elif members and peer not in members:
            refused[peer] = Unfit.NEWCOMER
        elif found in offered.values():
            refused[peer] = Unfit.TAKEN
        elif len(offered) >= MAX_TARGETS:
            refused[peer] = Unfit.TOO_MANY
        else:
            offered[peer] = found
    return Targets(offered, refused)


def fitness(text: str, proven: Collection[str], *, allow_private: bool) -> Endpoint | Unfit:
    """Return where a peer may be scraped, or why it may not be.

    Args:
        text: What it announced.
        proven: IP addresses at which it answered.
        allow_private: Whether addresses of a local network, and of this machine, are fit.
    """
    endpoint = parse_endpoint(text)
    if endpoint is None:
        named = any(c.isalpha() for c in text.rpartition(":")[0]) and not text.startswith("[")
        return Unfit.HOST_NAME if named else Unfit.MALFORMED
    ip = endpoint.ip
    reserved = ip.is_reserved and not ip.is_loopback
    if ip.is_multicast or ip.is_unspecified or reserved or _embeds_another(ip):
        return Unfit.NOT_UNICAST
    if not _is_public(ip) and not (allow_private and not ip.is_link_local):
        return Unfit.PRIVATE
    if ip not in {_ip(each) for each in proven}:
        return Unfit.UNPROVEN
    return endpoint


def _is_public(ip: IpAddress) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.is_global and ip in _GLOBAL_UNICAST
    return ip.is_global


def _embeds_another(ip: IpAddress) -> bool:
    """Return whether an IPv6 address stands for an IPv4 address, which may be any."""
    if isinstance(ip, ipaddress.IPv4Address):
        return False
    return ip.ipv4_mapped is not None or ip.sixtofour is not None or ip.teredo is not None


def _ip(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
