import json
import re

import pytest
import yaml

from monitoring.scrape import configuration, dialled, target_groups
from monitoring.servers import PROMETHEUS_PATH
from peer.errors import UsageError

TEMPLATE = yaml.safe_load((PROMETHEUS_PATH / "prometheus.yml").read_text())


def made(monitor=None, run_id=None):
    return configuration(TEMPLATE, rules="/r/*", targets="/t/*", monitor=monitor, run_id=run_id)


def jobs(document):
    return {job["job_name"]: job for job in document["scrape_configs"]}


def status(**changed):
    fields = {"metrics_url": "http://127.0.0.1:8470/metrics", "run_id": "plays", "peer_id": "Qm"}
    return json.dumps(fields | changed)


def test_with_a_monitor_it_is_scraped_and_asked_for_peers():
    document = made("127.0.0.1:9", "plays-1")
    assert document["rule_files"] == ["/r/*"]
    assert jobs(document)["ctpeer-monitor"]["static_configs"] == [
        {"targets": ["127.0.0.1:9"], "labels": {"run": "plays-1"}}
    ]
    assert jobs(document)["ctpeer"]["http_sd_configs"][0]["url"] == "http://127.0.0.1:9/sd"
    assert jobs(document)["ctpeer"]["file_sd_configs"][0]["files"] == ["/t/*"]


def test_without_a_monitor_only_peers_that_are_named_are_scraped():
    document = made()
    assert list(jobs(document)) == ["ctpeer"]
    assert "http_sd_configs" not in jobs(document)["ctpeer"]


def test_the_template_is_left_as_it_is():
    before = yaml.safe_dump(TEMPLATE)
    made("127.0.0.1:9")
    made()
    assert yaml.safe_dump(TEMPLATE) == before


def test_what_strangers_serve_is_bounded():
    for document in (TEMPLATE, made("127.0.0.1:9")):
        job = jobs(document)["ctpeer"]
        assert {"body_size_limit", "sample_limit", "label_limit"} <= set(job)
        assert (job["honor_labels"], job["follow_redirects"]) == (False, False)


def test_a_peer_that_was_stopped_is_not_asked():
    assert target_groups([status(state="stopped")], []) == []


def test_no_peer_speaks_for_the_swarm():
    for document in (TEMPLATE, made("127.0.0.1:9")):
        drop, keep = jobs(document)["ctpeer"]["metric_relabel_configs"]
        assert (drop["action"], keep["action"]) == ("drop", "keep")
        assert re.fullmatch(drop["regex"], "ctpeer_swarm_branches")
        kept = [n for n in ("ctpeer_epoch", "run:x", "ALERTS") if re.fullmatch(keep["regex"], n)]
        assert kept == ["ctpeer_epoch"]


def test_a_home_says_where_its_peer_is_and_who():
    assert target_groups([status()], []) == [
        {"targets": ["127.0.0.1:8470"], "labels": {"run": "plays", "peer_id": "Qm"}}
    ]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://0.0.0.0:8470/metrics", "127.0.0.1:8470"),
        ("http://[::]:8470/metrics", "[::1]:8470"),
        ("http://[fd00::1]:1/metrics", "[fd00::1]:1"),
    ],
)
def test_a_peer_that_listens_everywhere_is_asked_on_this_machine(url, address):
    (group,) = target_groups([status(metrics_url=url)], [])
    assert group["targets"] == [address]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", status(metrics_url=""), status(metrics_url="http://h"), "{}"]
    + [status(metrics_url=url) for url in ("http://[::1/x", "http://a:99999/", "http://u@h:1/")],
)
def test_a_home_that_says_nothing_sensible_is_left_out(text):
    assert target_groups([text], []) == []


def test_a_peer_that_has_not_loaded_yet_has_no_label():
    (group,) = target_groups([status(peer_id=None, run_id="r" * 500)], [])
    assert group["labels"] == {"run": "r" * 128}


def test_given_addresses_are_targets_in_an_order_that_stays():
    groups = target_groups([status()], ["10.0.0.2:1", "10.0.0.1:1"])
    assert [g["targets"][0] for g in groups] == ["10.0.0.1:1", "10.0.0.2:1", "127.0.0.1:8470"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9090", "127.0.0.1:9090"),
        ("0.0.0.0:9090", "127.0.0.1:9090"),
        ("[::1]:9090", "[::1]:9090"),
        ("grafana.example:80", "grafana.example:80"),
    ],
)
def test_an_address_to_listen_at_is_dialled_on_this_machine(text, address):
    assert dialled(text) == address


@pytest.mark.parametrize(
    "text", ["", "9090", "host", "host:0", "host:x", "http://host:1", "u@host:1", "h:1/x", "::1:9"]
)
def test_what_is_no_address_is_refused_with_how_to_write_one(text):
    with pytest.raises(UsageError, match="write it as HOST:PORT"):
        dialled(text)
