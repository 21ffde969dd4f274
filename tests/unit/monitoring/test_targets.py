"""What Prometheus is told to scrape, and why not the rest."""

import pytest

from monitoring.names import Unfit
from monitoring.targets import MAX_TARGETS, choose_targets, fitness
from peer.config.endpoint import parse_endpoint

PUBLIC = "8.8.8.8:8470"


def fit(text, ip=None, **options):
    proven = {text.rpartition(":")[0].strip("[]") if ip is None else ip}
    return fitness(text, proven, **{"allow_private": False} | options)


@pytest.mark.parametrize("text", [PUBLIC, "[2001:4860:4860::8888]:8470"])
def test_a_public_address_where_the_peer_answered_is_offered(text):
    assert fit(text) == parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1:8470", Unfit.PRIVATE),
        ("10.0.0.1:80", Unfit.PRIVATE),
        ("172.16.3.4:80", Unfit.PRIVATE),
        ("192.168.1.1:80", Unfit.PRIVATE),
        ("100.64.0.1:80", Unfit.PRIVATE),
        ("169.254.169.254:80", Unfit.PRIVATE),
        ("[::1]:80", Unfit.PRIVATE),
        ("[fe80::1]:80", Unfit.PRIVATE),
        ("[fc00::1]:80", Unfit.PRIVATE),
        ("[64:ff9b::a00:1]:80", Unfit.NOT_UNICAST),
        ("[::ffff:10.0.0.1]:80", Unfit.NOT_UNICAST),
        ("[2002:a00:1::]:80", Unfit.NOT_UNICAST),
        ("[2001:0:a00:1::]:80", Unfit.NOT_UNICAST),
        ("0.0.0.0:80", Unfit.NOT_UNICAST),
        ("224.0.0.1:80", Unfit.NOT_UNICAST),
        ("240.0.0.1:80", Unfit.NOT_UNICAST),
        ("255.255.255.255:80", Unfit.NOT_UNICAST),
        ("[ff02::1]:80", Unfit.NOT_UNICAST),
        ("metrics.example.org:80", Unfit.HOST_NAME),
        ("bad.cafe:80", Unfit.HOST_NAME),
        ("localhost:80", Unfit.HOST_NAME),
        ("8.8.8.8", Unfit.MALFORMED),
        ("8.8.8.8:0", Unfit.MALFORMED),
        ("8.8.8.8:65536", Unfit.MALFORMED),
        ("010.8.8.8:80", Unfit.MALFORMED),
        ("134744072:80", Unfit.MALFORMED),
        ("8.8.8.8:80/admin", Unfit.MALFORMED),
        ("", Unfit.MALFORMED),
    ],
)
def test_any_other_address_is_refused_with_its_reason(text, why):
    assert fit(text) is why


@pytest.mark.parametrize("text", ["127.0.0.1:80", "10.0.0.1:80", "[::1]:80", "[fc00::1]:80"])
def test_a_private_address_is_offered_only_where_that_is_asked_for(text):
    assert fit(text, allow_private=True) == parse_endpoint(text)


@pytest.mark.parametrize(
    "text", ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "224.0.0.1:80", "a.local:80"]
)
def test_no_switch_lets_link_local_multicast_or_named_addresses_through(text):
    assert isinstance(fit(text, allow_private=True), Unfit)


def test_an_address_where_the_peer_never_answered_is_refused():
    assert fit(PUBLIC, ip="9.9.9.9") is Unfit.UNPROVEN
    assert fitness(PUBLIC, (), allow_private=True) is Unfit.UNPROVEN


def test_a_newcomer_is_not_offered_beside_peers_that_worked():
    announced = {"old": PUBLIC, "new": "9.9.9.9:1"}
    proven = {"old": {"8.8.8.8"}, "new": {"9.9.9.9"}}
    targets = choose_targets(announced, proven, {"old"}, allow_private=False)
    assert targets.offered == {"old": parse_endpoint(PUBLIC)}
    assert targets.refused == {"new": Unfit.NEWCOMER}
    everybody = choose_targets(announced, proven, (), allow_private=False)
    assert everybody.offered.keys() == {"old", "new"}


def test_one_address_is_offered_once():
    announced = dict.fromkeys("ab", PUBLIC)
    targets = choose_targets(
        announced, {peer: {"8.8.8.8"} for peer in "ab"}, (), allow_private=False
    )
    assert targets.refused == {"b": Unfit.TAKEN}


def test_there_is_a_bound_and_every_reason_has_its_count():
    peers = [f"p{i:03}" for i in range(MAX_TARGETS + 3)]
    announced = {peer: f"8.8.8.8:{1000 + i}" for i, peer in enumerate(peers)}
    proven = {peer: {"8.8.8.8"} for peer in peers}
    targets = choose_targets(announced, proven, peers, allow_private=False)
    assert len(targets.offered) == MAX_TARGETS
    assert targets.counts() == dict.fromkeys(Unfit, 0) | {Unfit.TOO_MANY: 3}
