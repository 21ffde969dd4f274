"""The dashboards: what is committed is what the code makes, and Grafana's schema knows it all."""

import json
import re

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana.generate import DASHBOARDS_PATH, dashboards
from monitoring.servers import GRAFANA_PATH, PROMETHEUS_PATH

COMMITTED = {path.name: path.read_text() for path in DASHBOARDS_PATH.iterdir()}
NAMES = sorted(COMMITTED)
KNOWN_UNITS = {value for value in vars(units).values() if isinstance(value, str)}
WIDTH = 24


def lost_keys(before, after, path=""):
    """Return what is in `before` and not, or otherwise, in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        lost = [f"{path}/{key}" for key in before if key not in after]
        return lost + [
            each
            for key in before.keys() & after.keys()
            for each in lost_keys(before[key], after[key], f"{path}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return [f"{path} has {len(after)} of {len(before)}"]
        return [
            each
            for index, (one, other) in enumerate(zip(before, after, strict=True))
            for each in lost_keys(one, other, f"{path}[{index}]")
        ]
    return [] if before == after else [f"{path}: {before!r} is {after!r}"]


def panels(name):
    return [p for p in json.loads(COMMITTED[name])["panels"] if p["type"] != "row"]


def every_panel():
    return [pytest.param(p, id=f"{name}-{p['title']}") for name in NAMES for p in panels(name)]


def test_what_is_committed_is_what_the_code_makes_byte_for_byte():
    assert dashboards() == COMMITTED


def test_there_is_one_for_a_peer_the_swarm_validation_and_data():
    wanted = [f"ctpeer-{what}.json" for what in ("data", "peer", "swarm", "validation")]
    assert wanted == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_schema_loses_nothing_of_it(name):
    before = json.loads(COMMITTED[name])
    after = json.loads(JSONEncoder().encode(Dashboard.from_json(before)))
    assert lost_keys(before, after) == []


def test_a_key_that_grafana_does_not_know_is_found():
    before = json.loads(COMMITTED["ctpeer-peer.json"])
    before["panels"][0]["fieldConfig"]["defaults"]["unitt"] = "bytes"
    after = json.loads(JSONEncoder().encode(Dashboard.from_json(before)))
    assert lost_keys(before, after) == ["/panels[0]/fieldConfig/defaults/unitt"]


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_found_by_its_name_and_asks_for_a_run(name):
    made = json.loads(COMMITTED[name])
    assert f"{made['uid']}.json" == name
    variables = [each["name"] for each in made["templating"]["list"]]
    assert variables == ["datasource", "run", *(["peer"] if name == "ctpeer-peer.json" else [])]
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])


@pytest.mark.parametrize("name", NAMES)
def test_numbers_stand_on_top_and_no_two_panels_overlap(name):
    taken = {}
    for panel in json.loads(COMMITTED[name])["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    top = [panel for panel in panels(name) if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in top} == {"stat"}
    assert sum(panel["gridPos"]["w"] for panel in top) == WIDTH


@pytest.mark.parametrize("panel", every_panel())
def test_a_panel_says_what_it_shows_in_which_unit_and_colours(panel):
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in KNOWN_UNITS or defaults["unit"].startswith("suffix:")
    steps = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert steps[0] is None
    assert steps[1:] == sorted(steps[1:])
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", every_panel())
def test_a_query_has_a_legend_a_run_and_known_metrics(panel, known_metrics):
    assert panel["targets"]
    for target in panel["targets"]:
        query = target["expr"]
        assert target["legendFormat"]
        assert target["datasource"] == panel["datasource"]
        assert 'run=~"$run"' in query
        used = re.findall(r"(?:\w+:)?ctpeer_\w+(?::\w+)?|ALERTS", query)
        assert used
        assert set(used) <= known_metrics
        # Of a rate at least four scrapes are needed; an increase is over minutes.
        assert set(re.findall(r"rate\([^[]*\[([^]]*)\]", query)) <= {"$__rate_interval"}


@pytest.mark.parametrize("panel", every_panel())
def test_no_query_divides_by_what_may_be_zero(panel):
    for target in panel["targets"]:
        for divisor in re.findall(r"/ ([a-z_0-9]+)", target["expr"]):
            assert divisor == "clamp_min"


def test_grafana_is_told_where_prometheus_and_the_dashboards_are():
    found = yaml.safe_load((GRAFANA_PATH / "provisioning/datasources/ctpeer.yml").read_text())
    (source,) = found["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "$CTPEER_PROMETHEUS_URL")
    scraped = yaml.safe_load((PROMETHEUS_PATH / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    found = yaml.safe_load((GRAFANA_PATH / "provisioning/dashboards/ctpeer.yml").read_text())
    (provider,) = found["providers"]
    assert provider["options"]["path"] == "$CTPEER_DASHBOARDS"
