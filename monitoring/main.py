"""The command `ctpeer-monitor`."""

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from monitoring.chosen import choose
from monitoring.stack import stack
from peer import __version__
from peer.config.home import resolve_home
from peer.errors import ConfigurationError, CtpeerError
from peer.observe.notify import ServiceManager
from peer.observe.program import set_up, stopped_by_signal

if TYPE_CHECKING:
    from monitoring.watched import Watched

DEFAULT_LISTEN = "127.0.0.1:8472"

_ENDS = "Exit codes: 0 stopped by a signal or done, 1 failed, 2 usage, 78 configuration."


class _RunOrCommand(click.Group):
    """A group whose first word may be a run in place of a command: then it is watched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `watch` for granted."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            args = ["watch", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_RunOrCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"`ctpeer-monitor RUN` is `ctpeer-monitor watch RUN`. {_ENDS}",
)
@click.version_option(__version__, prog_name="ctpeer-monitor", message="%(prog)s %(version)s")
def main() -> None:
    """Watch a whole run from outside, for Prometheus and for people; it trains nothing."""


@main.command(epilog=_ENDS)
@click.argument("run")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Where to serve the page, /metrics, /sd, /swarm, /leaderboard, /verdicts and /healthz.",
)
@click.option(
    "--peers",
    metavar="MULTIADDR",
    multiple=True,
    help="A peer of the run, or an entry point, to begin with; may be given several times.",
)
@click.option("--home", metavar="DIR", help="The home of a peer: whom it knows is asked, too.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(1.0, 120.0),
    default=15.0,
    show_default=True,
    help="From one look at the swarm to the next.",
)
@click.option(
    "--allow-private",
    is_flag=True,
    help="Offer Prometheus peers at private addresses, too: for a swarm in one network.",
)
@click.option(
    "--allow-host",
    metavar="NAME",
    multiple=True,
    help="A host name under which this may be asked, beside IP addresses and localhost.",
)
@click.option("--json", "as_json", is_flag=True, help="Look once, print what there is, and end.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def watch(run: str, *, as_json: bool, log_level: str, **options: Any) -> None:
    """Watch RUN: an invite, a run id, or the path of a run's directory."""
    set_up(log_level)
    try:
        home = resolve_home(options["home"]) if options["home"] else None
        private = options["allow_private"]
        watched = choose(run, options["peers"], home, options["interval"], allow_private=private)
        if as_json:
            _look(watched)
        else:
            asyncio.run(_serve(watched, _address(options["listen"]), options["allow_host"]))
    except CtpeerError as error:
        click.echo(f"ctpeer-monitor: {error}", err=True)
        sys.exit(error.exit_code)


main.add_command(stack)


def _look(watched: "Watched") -> None:
    # hivemind, and torch with it, takes seconds to load.
    from monitoring.service import look_once

    click.echo(json.dumps(look_once(watched), indent=1, allow_nan=False))


async def _serve(watched: "Watched", address: tuple[str, int], names: tuple[str, ...]) -> None:
    from monitoring.service import serve
    from peer.observe.serving import Address

    manager, stop = ServiceManager(), stopped_by_signal()

    def show(url: str) -> None:
        click.echo(f"watching {watched.run_id}")
        click.echo(f"page:    {url}/")
        click.echo(f"metrics: {url}/metrics")
        manager.ready()

    def beat(problem: str | None, moves: bool) -> None:  # noqa: FBT001 called by `serve` alone
        # A swarm that is not there is no reason to be started again; a crawl without an end is.
        if moves:
            manager.alive()
        manager.status(problem or "watching")

    try:
        await serve(watched, Address(*address), names, stop, show, beat)
    finally:
        manager.stopping()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 a port has 16 bits
        raise ConfigurationError(
            f"{text!r} is no address to listen at; write it like {DEFAULT_LISTEN}"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)
