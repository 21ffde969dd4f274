"""What Prometheus is told to scrape: its configuration, and the peers whose homes lie here. Pure.

The configuration is the committed prometheus.yml with addresses and folders put in. A home says
where its peer serves /metrics, in the status that its daemon leaves there.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from peer.errors import UsageError

MONITOR_JOB = "ctpeer-monitor"
PEER_JOB = "ctpeer"

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 compared, not bound
_LABEL_CHARS = 128


def configuration(
    template: Mapping[str, Any],
    *,
    rules: str,
    targets: str,
    monitor: str | None,
    run_id: str | None,
) -> dict[str, Any]:
    """Return `template` with its addresses and folders put in.

    Args:
        template: The committed configuration.
        rules: The pattern of the rules' files.
        targets: The pattern of the files that list targets.
        monitor: Where ctpeer-monitor serves, as HOST:PORT; None if none does.
        run_id: The run that it watches, if that is known.
    """
    made = copy.deepcopy(dict(template))
    made["rule_files"] = [rules]
    jobs = {job["job_name"]: job for job in made["scrape_configs"]}
    jobs[PEER_JOB]["file_sd_configs"][0]["files"] = [targets]
    if monitor is None:
        del jobs[MONITOR_JOB], jobs[PEER_JOB]["http_sd_configs"]
    else:
        labels = {} if run_id is None else {"run": run_id}
        jobs[MONITOR_JOB]["static_configs"] = [{"targets": [monitor], "labels": labels}]
        jobs[PEER_JOB]["http_sd_configs"][0]["url"] = f"http://{monitor}/sd"
    made["scrape_configs"] = list(jobs.values())
    return made


def target_groups(statuses: Iterable[str], given: Iterable[str]) -> list[dict[str, Any]]:
    """Return the targets as Prometheus' file_sd wants them.

    Args:
        statuses: What daemons left in their homes; what makes no sense is left out.
        given: Addresses of peers, as HOST:PORT.
    """
    groups = [group for text in statuses if (group := _group(text)) is not None]
    groups += [{"targets": [address], "labels": {}} for address in given]
    return sorted(groups, key=lambda group: group["targets"])


def dialled(text: str) -> str:
    """Return where to dial what listens at `text`, which is HOST:PORT.

    Raises:
        UsageError: It is no such address.
    """
    if set(text) & set("/?#@ ") or (address := _address(f"http://{text}")) is None:
        raise UsageError(
            f"{text!r} is no address; write it as HOST:PORT, such as 127.0.0.1:8470 or [::1]:8470"
        )
    return address


def _group(status: str) -> dict[str, Any] | None:
    try:
        said = json.loads(status)
        if said.get("state") == "stopped":  # by somebody, who need not be alarmed
            return None
        address = _address(str(said["metrics_url"]))
        labels = {"run": said["run_id"], "peer_id": said["peer_id"]}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if address is None:
        return None
    known = {k: v[:_LABEL_CHARS] for k, v in labels.items() if isinstance(v, str) and v}
    return {"targets": [address], "labels": known}


def _address(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or not port or parts.username is not None or not host.isascii():
        return None
    host = _EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
