import pytest
import yaml

from monitoring.names import FAMILIES
from monitoring.servers import PROMETHEUS_PATH
from peer.daemon.lifecycle import State
from peer.daemon.restart import FailureClass
from peer.events import RoundFailure
from peer.observe.metrics import Metrics
from peer.swarm.records import Refusal


@pytest.fixture(scope="session")
def known_metrics():
    """Return every name that Prometheus, a peer, the exporter or a rule of ours gives to series."""
    names = {"up", "ALERTS"} | {family.exposed for family in FAMILIES}
    for path in (PROMETHEUS_PATH / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            names |= {rule["record"] for rule in group["rules"] if "record" in rule}
    for family in Metrics(State, RoundFailure, FailureClass, Refusal).registry.collect():
        ends = {
            "counter": ("_total",),
            "info": ("_info",),
            "histogram": ("_bucket", "_sum", "_count"),
        }
        names |= {f"{family.name}{end}" for end in ends.get(family.type, ("",))}
    return names
