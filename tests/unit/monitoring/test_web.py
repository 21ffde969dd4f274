"""Whom the exporter answers, and what it tells Prometheus about targets."""

import pytest

from monitoring.findings import Findings
from monitoring.targets import choose_targets
from monitoring.totals import Totals
from monitoring.view import aggregate
from monitoring.watcher import Picture
from monitoring.web import is_own_host, service_discovery


@pytest.mark.parametrize(
    "header",
    ["127.0.0.1:8472", "127.0.0.1", "[::1]:8472", "[::1]", "10.1.2.3:1", "localhost:8472", "Watch"],
)
def test_addresses_and_own_names_are_answered(header):
    assert is_own_host(header, {"localhost", "watch"})


@pytest.mark.parametrize(
    "header",
    ["", "evil.example", "evil.example:8472", "localhost.evil.example", "[localhost]", "::1", "[x"],
)
def test_any_other_name_is_refused(header):
    assert not is_own_host(header, {"localhost"})


def picture(announced):
    found = Findings(now_s=0.0)
    proven = {peer: {text.rpartition(":")[0]} for peer, text in announced.items()}
    return Picture(
        found=found,
        view=aggregate(found, Totals()),
        targets=choose_targets(announced, proven, (), allow_private=False),
        taken_s=0.0,
        unix_time_s=0.0,
        crawl_s=0.0,
    )


def test_prometheus_is_told_an_empty_list_where_nobody_opted_in():
    assert service_discovery("tiny-1", None) == []
    assert service_discovery("tiny-1", picture({})) == []


def test_prometheus_is_told_where_each_peer_is_and_whose_it_is():
    (target,) = service_discovery("tiny-1", picture({"Qm": "8.8.8.8:8470", "Qx": "10.0.0.1:1"}))
    assert target == {"targets": ["8.8.8.8:8470"], "labels": {"run": "tiny-1", "peer_id": "Qm"}}
