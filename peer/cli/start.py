"""`ctpeer start`: the daemon, in this terminal."""

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import click

from peer.cli.options import home_option
from peer.config.home import resolve_home

if TYPE_CHECKING:
    from peer.daemon.service import View
    from peer.daemon.supervisor import Supervisor

_REFRESH_S = 0.5
_HINT = "Ctrl-C stops after a checkpoint; see also `ctpeer pause`, `ctpeer finish`, `ctpeer logs`"


@click.command()
@click.argument("run", required=False, metavar="[MANIFEST|INVITE]", envvar="CTPEER_RUN")
@home_option
@click.option("--paused", is_flag=True, help="Load everything, but begin only on `ctpeer resume`.")
@click.option("--max-epochs", type=click.IntRange(min=1), help="End when this epoch is complete.")
@click.option("--hold", is_flag=True, help="Stay and serve when that epoch is complete.")
@click.option(
    "--role",
    type=click.Choice(["trainer", "validator"]),
    help="validator: judge what others train, and train only to have a place among the judges.",
)
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="torch's threads; one less than the cores if not given.",
)
@click.option(
    "--micro-batch", type=click.IntRange(1, 65536), help="Samples at once; found out if not given."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Where to serve /metrics; 8470 if it is free.",
)
@click.option(
    "--page-port",
    type=click.IntRange(0, 65535),
    help="Where to serve the local page; 8460 if it is free.",
)
@click.option("--listen", multiple=True, metavar="ADDRESS", help="Where others reach this peer.")
@click.option(
    "--announce",
    multiple=True,
    metavar="ADDRESS",
    help="What others are told instead, such as a router's forwarded port.",
)
@click.option(
    "--peers", multiple=True, metavar="ADDRESS", help="A peer to begin with, beside those known."
)
@click.option("--client", is_flag=True, help="Serve nobody: for machines that nobody can dial.")
@click.option("--alone", is_flag=True, help="Meet no other peers.")
@click.option("--plain", is_flag=True, help="Print log lines, also on a terminal.")
def start(  # noqa: PLR0913 one parameter an option
    *,
    run: str | None,
    home: str | None,
    paused: bool,
    max_epochs: int | None,
    hold: bool,
    role: str | None,
    device: str | None,
    threads: int | None,
    micro_batch: int | None,
    metrics_port: int | None,
    page_port: int | None,
    listen: tuple[str, ...],
    announce: tuple[str, ...],
    peers: tuple[str, ...],
    client: bool,
    alone: bool,
    plain: bool,
) -> None:
    """Train the run of MANIFEST, a run.toml or its directory, or the one that INVITE leads to.

    Without either: the one that $CTPEER_RUN gives, else what ran last on this home, else the demo,
    a small GPT-2 on Shakespeare's plays. A run goes on where its last checkpoint stands. Other
    peers of the run are looked for; `ctpeer invite` prints what they join with.
    """
    from peer.config.layers import load_settings
    from peer.daemon import lock
    from peer.daemon.service import choose_run, make_supervisor, serve
    from peer.observe.logs import set_up
    from peer.observe.notify import dump_when_aborted

    where = resolve_home(home)
    where.prepare()
    flags = {
        "compute.device": device,
        "compute.threads": threads,
        "compute.micro_batch": micro_batch,
        "metrics.port": metrics_port,
        "page.port": page_port,
        "swarm.listen": list(listen) or None,
        "swarm.announce": list(announce) or None,
        "swarm.peers": list(peers) or None,
        "swarm.client": client or None,
        "swarm.enabled": False if alone else None,
        "validation.role": role,
    }
    settings = load_settings(where.settings_path, flags).settings
    live = sys.stdout.isatty() and not plain
    dump_when_aborted()
    with lock.hold(where):
        set_up(where.log_path, settings.log.level, terminal=live)
        chosen = choose_run(where, run)
        logging.getLogger(__name__).info("run %s on the home %s", chosen.run_id, where.path)
        supervisor = make_supervisor(where, settings, chosen, max_epochs, hold=hold)
        view: View | None = None
        if sys.stdout.isatty():
            view = _show if live else _tell_page
        code = asyncio.run(serve(supervisor, where, settings, paused=paused, view=view))
    click.get_current_context().exit(code)


async def _tell_page(supervisor: "Supervisor") -> None:
    """Print the page's address with its key on the terminal, and nowhere else."""
    if supervisor.page_url is not None:
        click.echo(f"page: {supervisor.page_url}")


async def _show(supervisor: "Supervisor") -> None:
    """Keep a live view on the terminal, with warnings above it."""
    from rich.console import Console
    from rich.live import Live
    from rich.logging import RichHandler

    from peer.cli.view import table

    console = Console()
    handler = RichHandler(logging.WARNING, console, show_path=False)
    logging.getLogger().addHandler(handler)
    try:
        with Live(console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(table(supervisor.status(), _HINT), refresh=True)
                    await asyncio.sleep(_REFRESH_S)
            finally:
                live.update(table(supervisor.status(), ""), refresh=True)
    finally:
        logging.getLogger().removeHandler(handler)
