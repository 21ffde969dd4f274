"""A daemon's status for a person: lines of label and text, plain or live."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Status = Mapping[str, Any]

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 40
_BAR_WIDTH = 40
_STYLES = {
    "training": "green",
    "averaging": "green",
    "evaluating": "green",
    "following": "green",
    "paused": "yellow",
    "restarting": "yellow",
    "failed": "red",
}


def lines(status: Status) -> list[tuple[str, str]]:
    """Return what a person wants to know, as (label, text); what is not known yet is left out."""
    rows = [("state", f"{status['state']}: {status['reason']}"), ("run", _run(status))]
    if status["role"] != "trainer":
        rows.append(("role", status["role"]))
    target = status["contribution"]["target_weight"]
    if target is not None:
        rows.append(("epoch", _epoch(status, target)))
    if status["loss"] is not None:
        rows.append(("loss", f"{status['loss']:.3f} nats  {spark(status['losses'])}"))
    if status["heldout"]["value"] is not None:
        rows.append(("held-out", _heldout(status["heldout"])))
    speed = f"{status['tokens_per_second']:,.0f} tokens/s, {status['tokens_total']:,} tokens so far"
    rows.append(("speed", speed))
    rows.append(("rounds", _rounds(status["rounds"])))
    if status["addresses"]:
        rows.append(("peers", _peers(status)))
        rows.append(("invite", status["invite"] or "none: nobody could dial this peer"))
    if status["validation"] is not None:
        rows.append(("validation", _validation(status)))
    if status["shards"]:
        rows.append(("data", _data(status)))
    if felt := status["limits"]["felt"]:
        rows.append(("limits", "; ".join(felt.values())))
    rows.append(("checkpoint", _checkpoint(status["checkpoint"])))
    rows.append(("process", _process(status)))
    rows.append(("metrics", status["metrics_url"]))
    if status["page_url"] is not None:
        rows.append(("page", status["page_url"]))
    return rows


def plain(status: Status) -> str:
    """Return the lines as plain text."""
    return "\n".join(f"{label:<12}{text}" for label, text in lines(status))


def table(status: Status, hint: str) -> "Table":
    """Return the lines as a rich table, the hint below them."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for label, text in lines(status):
        style = _STYLES.get(status["state"], "") if label == "state" else ""
        grid.add_row(label, Text(text, style))
    grid.add_row("", Text(hint, "dim"))
    return grid


def spark(values: Sequence[float]) -> str:
    """Return `values` as a line of small bars, each the mean of its part; junk is left out."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    width = min(_SPARK_WIDTH, len(finite))
    parts = [
        finite[i * len(finite) // width : (i + 1) * len(finite) // width] for i in range(width)
    ]
    # Halved, so that not even the distance of the largest numbers is infinite.
    means = [sum(value / 2 / len(part) for value in part) for part in parts]
    low, high = min(means), max(means)
    step = (high - low) / (len(_SPARKS) - 1) or 1.0
    return "".join(_SPARKS[round((mean - low) / step)] for mean in means)


def duration(seconds: float) -> str:
    """Return `seconds` in the largest two units that say enough."""
    minutes, left_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left_s} s" if minutes else f"{left_s} s"


def _run(status: Status) -> str:
    if status["task"] is None:
        return str(status["run_id"])
    millions = status["parameters"] / 1e6
    return (
        f"{status['run_id']}, {status['task']}, {millions:,.1f} M parameters on {status['device']}"
    )


def _epoch(status: Status, target: int) -> str:
    weight = status["contribution"]["weight"]
    done = min(_BAR_WIDTH, _BAR_WIDTH * weight // target)
    bar = "━" * done + "╌" * (_BAR_WIDTH - done)
    return f"{status['epoch']:,}  {bar} {weight:,} of {target:,} loss terms"


def _heldout(heldout: Mapping[str, Any]) -> str:
    name = heldout["name"].replace("_", " ")
    text = f"{heldout['value']:.3f} {name} at epoch {heldout['epoch']:,}"
    for baseline, value in heldout["baselines"].items():
        text += f", {baseline} {value:.3f}"
    return f"{text}  {spark([value for _, value in heldout['history']])}"


def _rounds(rounds: Mapping[str, Any]) -> str:
    text = f"{rounds['committed']:,} committed, {rounds['failed']:,} failed"
    if rounds["group"]:
        text += f", group of {rounds['group']}"
    if rounds["last_failure"]:
        text += f" (last: {rounds['last_failure']})"
    return text


def _validation(status: Status) -> str:
    now, good = status["validation"], status["validation"]["last_good"]
    text = str(now["doing"] or now["phase"])
    text += f"; last good is epoch {good['epoch']:,}, {now['round']:,} verdicts"
    if (verdict := now["last_verdict"]) is not None:
        text += f" (last: {verdict['decision']} of epoch {verdict['epoch']:,}, {verdict['reason']})"
    if now["problem"]:
        text += f"; {now['problem']}"
    if status["rollbacks"]:
        text += f"; {status['rollbacks']} rolled back: {status['last_rollback']}"
    return text


def _peers(status: Status) -> str:
    peers = status["peers"]
    others = peers["reachable"]
    ours = status["reachability"]
    text = f"{others} other{'' if others == 1 else 's'} reachable, this one is {ours}"
    if unreachable := peers["known"] - others:
        text += f"; {unreachable} known but out of reach"
    if status["epochs_lost_in_branches"]:
        text += f"; {status['epochs_lost_in_branches']} epochs lost in branches"
    return text


def _data(status: Status) -> str:
    size = sum(shard["bytes"] for shard in status["shards"])
    text = f"{len(status['shards'])} shards, {size / 1e6:,.1f} MB"
    if quarantined := status["shards_quarantined"]:
        text += f"; not trained on: {', '.join(sorted(quarantined))}"
    return text


def _checkpoint(checkpoint: Mapping[str, Any] | None) -> str:
    if checkpoint is None:
        return "none yet"
    return f"epoch {checkpoint['epoch']:,}, {duration(checkpoint['age_s'])} ago"


def _process(status: Status) -> str:
    text = f"up {duration(status['uptime_s'])}, {status['rss_bytes'] / 1e6:,.0f} MB"
    for reason, count in status["restarts_by_reason"].items():
        text += f", {reason.replace('_', ' ')} {count} times"
    return text
