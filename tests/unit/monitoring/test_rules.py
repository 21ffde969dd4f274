"""The rules of Prometheus: right by promtool's word, tested alert by alert, and explained."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.servers import PROMETHEUS_PATH

DOCS_PATH = Path(__file__).parents[3] / "docs"
CONFIGURATION = yaml.safe_load((PROMETHEUS_PATH / "prometheus.yml").read_text())
RULES = [
    rule
    for path in sorted((PROMETHEUS_PATH / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = {
    path.stem: yaml.safe_load(path.read_text())["tests"]
    for path in (PROMETHEUS_PATH / "tests").glob("*.yml")
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def told_by(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)


def seconds(duration):
    return int(duration[:-1]) * SECONDS[duration[-1]]


@promtool
@pytest.mark.parametrize("path", sorted((PROMETHEUS_PATH / "rules").glob("*.yml")), ids=str)
def test_promtool_accepts_the_rules(path):
    done = told_by("check", "rules", "--lint=all", "--lint-fatal", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_promtool_accepts_the_configuration():
    done = told_by("check", "config", str(PROMETHEUS_PATH / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(list((PROMETHEUS_PATH / 'rules').glob('*.yml')))} rule files" in done.stdout


@promtool
@pytest.mark.parametrize("name", sorted(TESTS))
def test_alerts_fire_when_they_should_and_not_over_a_healthy_run(name):
    done = told_by("test", "rules", str(PROMETHEUS_PATH / "tests" / f"{name}.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
@pytest.mark.parametrize(
    ("series", "values"),
    [
        ("ctpeer_swarm_branches", "1x150 2x20 1x225"),
        ("ctpeer_restarts_total{reason=crash}", "0x125 3x250"),
        ("ctpeer_disk_free_bytes", "1000x375"),
    ],
)
def test_an_unhealthy_run_is_told_from_the_healthy_one(series, values, tmp_path):
    document = yaml.safe_load((PROMETHEUS_PATH / "tests" / "healthy.yml").read_text())
    name, _, label = series.removesuffix("}").partition("{")
    found = [
        one
        for one in document["tests"][0]["input_series"]
        if one["series"].startswith(f"{name}{{") and label.replace("=", '="') in one["series"]
    ]
    found[0]["values"] = values
    document["rule_files"] = [str(PROMETHEUS_PATH / "rules" / "*.yml")]
    (tmp_path / "sick.yml").write_text(yaml.safe_dump(document))
    done = told_by("test", "rules", str(tmp_path / "sick.yml"))
    assert done.returncode != 0
    assert "ALERTS" in done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_a_test_in_which_it_is_silent_and_then_fires(alert):
    steps = [
        step
        for name in ("peer", "swarm")
        for test in TESTS[name]
        for step in test["alert_rule_test"]
        if step["alertname"] == alert
    ]
    assert any(step["exp_alerts"] for step in steps)
    assert any(not step["exp_alerts"] for step in steps)


def test_the_healthy_run_is_looked_at_for_any_alert_at_any_time():
    (test,) = TESTS["healthy"]
    (step,) = test["promql_expr_test"]
    assert step["expr"] == f'count_over_time(ALERTS{{alertstate="firing"}}[{step["eval_time"]}])'
    assert step["exp_samples"] == []


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_says_what_it_is_and_what_to_do(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook"] == f"docs/alerts.md#{alert.lower()}"


def test_the_document_has_a_heading_for_every_alert_and_no_other():
    text = (DOCS_PATH / "alerts.md").read_text()
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == sorted(ALERTS)
    headings = {f"#{alert.lower()}" for alert in ALERTS}
    assert set(re.findall(r"\]\((#\w+)\)", text)) <= headings
    for alert, rule in ALERTS.items():
        words = text.split(f"## {alert}\n")[1].split("\n## ")[0]
        assert words.strip().startswith(f"{rule['labels']['severity'].title()}.")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule.get("record"))
def test_every_range_holds_four_scrapes_and_every_metric_is_known(rule, known_metrics):
    interval = seconds(CONFIGURATION["global"]["scrape_interval"])
    for duration in re.findall(r"\[(\w+)\]", rule["expr"]):
        assert seconds(duration) >= 4 * interval
    used = set(re.findall(r"(?:\w+:)?ctpeer_\w+(?::\w+)?", rule["expr"]))
    assert used <= known_metrics
    assert used or "up{" in rule["expr"]


@promtool
def test_what_the_document_says_of_remote_write_is_right(tmp_path):
    text = (DOCS_PATH / "dashboards.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(block)
    done = told_by("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
