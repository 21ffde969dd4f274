"""`ctpeer service`: the daemon as a service of systemd."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from peer.cli.options import json_option
from peer.errors import NotRunningError

if TYPE_CHECKING:
    from peer.daemon.unit import Unit

_UNITS = {"peer": "ctpeer", "bootstrap": "ctpeer-bootstrap", "monitor": "ctpeer-monitor"}

_unit_argument = click.argument(
    "unit", type=click.Choice(list(_UNITS)), default="peer", metavar="[peer|bootstrap|monitor]"
)
_user_option = click.option("--user", is_flag=True, help="Yours alone, without root; peer only.")


@click.group()
def service() -> None:
    """The daemon as a service of systemd, which starts it at every boot.

    A peer, unless an entry point (bootstrap) or the exporter of a whole run (monitor) is meant.
    """


@service.command()
@_unit_argument
@_user_option
@click.option(
    "--now", is_flag=True, help="Start it, too, anew if it runs, and wait until it is ready."
)
@click.option(
    "--run", metavar="INVITE|MANIFEST", help="What to train; else what ran last, or the demo."
)
def install(*, unit: str, user: bool, now: bool, run: str | None) -> None:
    """Have systemd start it at every boot, or with --user at every login.

    Given again with --now, it takes in what a new version brings.
    """
    from peer.daemon.unit import describe, install, restart

    chosen = _choose(unit, user=user)
    changed = install(chosen, run)
    click.echo(f"{'installed' if changed else 'already installed'}: {chosen.path}")
    if now:
        runs = describe(chosen)["active"]
        doing = "it runs, and is restarted to take in what is installed now" if runs else "starting"
        click.echo(f"{doing}; ready once the model has loaded", err=True)
        restart(chosen)
        click.echo("restarted, and running" if runs else "running")
    else:
        click.echo(f"start it with `{chosen.systemctl} restart {chosen.name}`")
    click.echo(f"home: {chosen.home_path}")
    click.echo(f"log: {chosen.journal} -f")


@service.command()
@_unit_argument
@_user_option
def uninstall(*, unit: str, user: bool) -> None:
    """Stop it and take it away from systemd; its home stays."""
    from peer.daemon.unit import uninstall

    chosen = _choose(unit, user=user)
    was_there = uninstall(chosen)
    click.echo(f"{'uninstalled' if was_there else 'it is not installed'}: {chosen.path}")
    if chosen.home_path.exists():
        click.echo(f"its home stays, with identity and checkpoints: {chosen.home_path}")


@service.command()
@_unit_argument
@_user_option
@json_option
def status(*, unit: str, user: bool, as_json: bool) -> None:
    """Say how systemd finds it; exit code 3 if it does not run."""
    from peer.daemon.unit import describe

    found = describe(_choose(unit, user=user))
    click.echo(json.dumps(found, indent=2) if as_json else _plain(found))
    click.get_current_context().exit(0 if found["active"] else NotRunningError.exit_code)


def _choose(unit: str, *, user: bool) -> "Unit":
    from peer.daemon.unit import Unit

    if user and unit != "peer":
        raise click.UsageError(f"there is no {unit} for one user alone; leave out --user")
    return Unit(_UNITS[unit], user)


def _plain(found: Mapping[str, Any]) -> str:
    """Return what `describe` found as lines of label and text."""
    installed = (
        found["path"] if found["installed"] else "not installed; see `ctpeer service install`"
    )
    state = f"{found['state']}, {'enabled' if found['enabled'] else 'not enabled'}"
    if found["result"] not in (None, "success"):
        state += f"; it ended by {found['result']} with code {found['exit_code']}"
    process = f"{found['pid'] or 'none'}, started again {found['restarts']} times"
    rows = [("unit", installed), ("state", state), ("says", found["says"]), ("process", process)]
    rows += [("version", _version(found)), ("home", found["home"]), ("log", found["journal"])]
    return "\n".join(f"{label:<12}{text}" for label, text in rows if text)


def _version(found: Mapping[str, Any]) -> str | None:
    """Return in words which version runs, and how the installed one comes to, if it is another."""
    running: str | None = found["version_running"]
    installed = found["version"]
    if running is None or running == installed:
        return running
    again = f"ctpeer service install{' --user' if found['user'] else ''} --now"
    return f"{running} runs, but this ctpeer is {installed}; `{again}` restarts it as this one"
