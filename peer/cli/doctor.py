"""`ctpeer doctor`: what is wrong with this peer, and what mends it."""

import dataclasses
import json
import os
import shutil
import sys
import textwrap

import click

from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home

SCHEMA = 1
_STYLES = {"ok": "green", "warn": "yellow", "bad": "red", "skipped": "bright_black"}
_WIDEST = 300


@click.command()
@click.argument("invite", required=False)
@click.option("--peers", multiple=True, metavar="ADDRESS", help="A peer to try to reach, too.")
@json_option
@home_option
def doctor(invite: str | None, *, peers: tuple[str, ...], as_json: bool, home: str | None) -> None:
    """Look this peer over: machine, settings, line, other peers; say what mends what is wrong.

    Works with and without a run, beside a running daemon and without one; with INVITE also before
    a run was ever joined. Exits with 1 if something is bad, with 0 if there are warnings only.
    """
    from peer import __version__
    from peer.clock import SystemClock
    from peer.doctor.examine import admit, examine
    from peer.doctor.judge import is_good, judge

    where = resolve_home(home)
    patient = admit(where, invite, peers, SystemClock().now_s())
    if not as_json and sys.stderr.isatty():
        click.echo("looking at this peer; that takes up to two minutes", err=True)
    findings = judge(examine(patient))
    good = is_good(findings)
    if as_json:
        body = {
            "schema": SCHEMA,
            "version": __version__,
            "home": str(where.path),
            "run_id": patient.run_id,
            "good": good,
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        click.echo(json.dumps(body, indent=2))
    else:
        for finding in findings:
            _print(finding.check, str(finding.level), finding.found, finding.fix)
    click.get_current_context().exit(0 if good else 1)


def _print(check: str, level: str, found: str, fix: str | None) -> None:
    """Print one finding, its fix below it; words may be a stranger's and are made harmless."""
    shown = "".join(c if c.isprintable() else "?" for c in found[:_WIDEST])
    label = level.ljust(8)
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        label = click.style(label, fg=_STYLES[level])
    click.echo(f"{check.replace('_', ' '):<11}{label}{_folded(shown)}")
    if fix is not None:
        click.echo(f"{'':<19}{_folded(f'fix: {fix}')}")


def _folded(text: str) -> str:
    if not sys.stdout.isatty():
        return text
    width = max(40, shutil.get_terminal_size().columns - 20)
    return f"\n{'':<19}".join(textwrap.wrap(text, width)) or text
