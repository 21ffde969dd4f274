"""`ctpeer status`: what the daemon does, once or again and again."""

import contextlib
import json
import sys
import time

import click

from peer.cli.options import home_option, json_option
from peer.cli.view import plain, table
from peer.config.home import Home, resolve_home
from peer.daemon.client import get_status

_INTERVAL_S = 1.0


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@home_option
def status(*, as_json: bool, watch: bool, home: str | None) -> None:
    """Say what the daemon does, and why.

    Answers while the worker is loading, stuck or dead. With --json and --watch: one line of JSON
    a second.
    """
    where = resolve_home(home)
    if not watch:
        now = get_status(where)
        click.echo(json.dumps(now, indent=2) if as_json else plain(now))
        return
    with contextlib.suppress(KeyboardInterrupt):
        if as_json or not sys.stdout.isatty():
            _print_again_and_again(where, as_json=as_json)
        else:
            _watch(where)


def _print_again_and_again(home: Home, *, as_json: bool) -> None:
    while True:
        now = get_status(home)
        click.echo(json.dumps(now) if as_json else plain(now) + "\n")
        time.sleep(_INTERVAL_S)


def _watch(home: Home) -> None:
    from rich.live import Live

    hint = "Ctrl-C ends the watching, not the daemon"
    with Live(table(get_status(home), hint), auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(_INTERVAL_S)
            live.update(table(get_status(home), hint), refresh=True)
