"""Where something is served: addresses, never names."""

import pytest

from peer.config.endpoint import parse_endpoint
from peer.config.settings import MetricsSettings


@pytest.mark.parametrize("text", ["203.0.113.7:8470", "[2001:db8::7]:8470", "127.0.0.1:1"])
def test_an_address_and_a_port_are_one(text):
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "example.org:80",
        "1.2.3.4",
        "1.2.3.4:0",
        "1.2.3.4:70000",
        "2001:db8::7:80",
        "[::g]:1",
    ],
)
def test_anything_else_is_none(text):
    assert parse_endpoint(text) is None


def test_nothing_is_announced_by_default():
    assert MetricsSettings().announce is None


def test_who_opts_in_says_where_and_listens_there():
    settings = MetricsSettings(host="0.0.0.0", port=8470, announce="203.0.113.7:8470")
    assert settings.announce == "203.0.113.7:8470"
    assert MetricsSettings(announce="127.0.0.1:8470").announce  # a swarm on one machine


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"announce": "203.0.113.7:8470"}, "where only this machine can ask; set host, too"),
        ({"host": "0.0.0.0", "announce": "example.org:1"}, "write an IP address and a port"),
        ({"host": "0.0.0.0", "announce": "0.0.0.0:1"}, "no address that others could ask"),
        ({"host": "0.0.0.0", "announce": "224.0.0.1:1"}, "no address that others could ask"),
    ],
)
def test_an_announcement_of_no_use_is_one_clear_sentence(given, words):
    with pytest.raises(ValueError, match=words):
        MetricsSettings(**given)
