"""`ctpeer peers`: the other peers of the run, and how they are."""

import json
from collections.abc import Mapping
from typing import Any

import click

from peer.cli.columns import columns
from peer.cli.options import home_option, json_option
from peer.cli.view import duration
from peer.config.home import resolve_home
from peer.daemon.client import get_status

_HEAD = ("peer", "state", "epoch", "generation", "loss terms/s", "seen", "address")
_RIGHT = {"epoch", "generation", "loss terms/s"}
_WIDEST = 100


@click.command()
@json_option
@home_option
def peers(*, as_json: bool, home: str | None) -> None:
    """List the other peers of the run: who is in the group, who can be reached, who is behind."""
    status = get_status(resolve_home(home))
    found = status.get("swarm_peers") or []
    if as_json:
        body = {"schema": 1, "run_id": status.get("run_id"), "peers": found}
        click.echo(json.dumps(body, indent=2))
        return
    if not found:
        click.echo("no other peer is known; `ctpeer invite` prints what lets somebody join")
        return
    click.echo(columns(_HEAD, map(_row, found), _RIGHT))


def _row(peer: Mapping[str, Any]) -> tuple[str, ...]:
    speed, seen_s = peer.get("loss_terms_per_second"), peer.get("seen_s")
    return (
        _shown(peer.get("peer_id")),
        _shown(peer.get("state")),
        _shown(peer.get("epoch")),
        _shown(peer.get("generation")),
        "-" if speed is None else f"{speed:,.0f}",
        "-" if seen_s is None else f"{duration(seen_s)} ago",
        _shown(peer.get("address")),
    )


def _shown(value: object) -> str:
    """Return `value` as a cell: it may be a stranger's words, which a terminal must not obey."""
    if value is None:
        return "-"
    return "".join(c if c.isprintable() else "?" for c in str(value)[:_WIDEST])
