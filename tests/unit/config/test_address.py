"""Addresses are told apart by what they lead to, and a slip of the pen is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.config.address import MAX_ADDRESS_CHARS, Address, parse_address

ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/ip4/1.2.3.4/tcp/5", Address("1.2.3.4", 5, False, "")),
        (f"/ip4/1.2.3.4/tcp/5/p2p/{ID}", Address("1.2.3.4", 5, False, ID)),
        ("/ip6/::1/udp/65535/quic-v1", Address("::1", 65535, False, "")),
        (f"/dns4/a.example/tcp/443/wss/p2p/{ID}", Address("", 443, False, ID)),
        (f"/ip4/1.2.3.4/tcp/5/p2p/{ID}/p2p-circuit", Address("1.2.3.4", 5, True, "")),
        (f"/ip4/1.2.3.4/tcp/5/p2p/{ID}/p2p-circuit/p2p/{ID}", Address("1.2.3.4", 5, True, ID)),
    ],
)
def test_an_address_says_where_and_who(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "1.2.3.4:5",
        "/ip4/1.2.3.4",
        "/ip4/1.2.3.4/tcp",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3/tcp/5",
        "/ip4/1.2.3.256/tcp/5",
        "/ip4/::1/tcp/5",
        "/ip6/1.2.3.4/tcp/5",
        "/ip6/:::/tcp/5",
        "/ip4/1.2.3.4/tcp/5/",
        "/ip4/1.2.3.4/tcp/5\n",
        " /ip4/1.2.3.4/tcp/5",
        "/ip4/1.2.3.4/tcp/\u0665",
        "/ip4/1.2.3.4/tcp/5/p2p/",
        "/ip4/1.2.3.4/tcp/5/p2p/" + "0" * 46,
        "/dns4/a b/tcp/5",
        "/dns4/" + "a" * MAX_ADDRESS_CHARS + "/tcp/5",
    ],
)
def test_what_has_not_the_form_of_an_address_is_none(text):
    assert parse_address(text) is None


@given(st.text(max_size=100) | st.from_regex(r"/(ip4|ip6|dns)/[^/]*/tcp/[^/]*", fullmatch=True))
def test_any_text_is_an_address_or_none(text):
    address = parse_address(text)
    assert address is None or 0 <= address.port <= 65535


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("/ip4/8.8.8.8", 2),
        ("/dns/a.example", 2),
        ("/ip6/2606:4700::1111", 2),
        ("/ip4/192.168.1.7", 1),
        ("/ip4/100.64.0.1", 1),
        ("/ip6/fe80::1", 1),
        ("/ip4/127.0.0.1", 0),
        ("/ip6/::1", 0),
    ],
)
def test_the_reach_of_an_address_is_that_of_its_host(host, reach):
    assert parse_address(f"{host}/tcp/5").reach == reach
    relayed = parse_address(f"{host}/tcp/5/p2p/{ID}/p2p-circuit/p2p/{ID}")
    assert relayed.reach == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"/ip4/1.2.3.4/tcp/5/p2p/{ID}", True),
        (f"/dns/a.example/tcp/5/p2p/{ID}", True),
        ("/ip4/1.2.3.4/tcp/5", False),
        (f"/ip4/1.2.3.4/tcp/0/p2p/{ID}", False),
        (f"/ip4/0.0.0.0/tcp/5/p2p/{ID}", False),
        (f"/ip6/::/tcp/5/p2p/{ID}", False),
        (f"/ip4/1.2.3.4/tcp/5/p2p/{ID}/p2p-circuit", False),
    ],
)
def test_a_peer_is_named_where_somebody_known_can_be_dialled(text, named):
    assert parse_address(text).names_a_peer is named
