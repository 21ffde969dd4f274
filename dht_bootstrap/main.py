"""The command `ctpeer-bootstrap`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import platformdirs

from peer import __version__
from peer.errors import ConfigurationError, CtpeerError
from peer.observe.notify import ServiceManager
from peer.observe.program import set_up, stopped_by_signal
from peer.swarm.listening import check_announced, check_listened, check_peers

if TYPE_CHECKING:
    from dht_bootstrap.service import Bootstrap, Started

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/31337"
DEFAULT_METRICS_PORT = 8471


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 stopped by a signal, 1 failed, 2 usage, 78 configuration.",
)
@click.version_option(__version__, prog_name="ctpeer-bootstrap", message="%(prog)s %(version)s")
@click.option(
    "--listen",
    metavar="MULTIADDR",
    multiple=True,
    default=(DEFAULT_LISTEN,),
    show_default=True,
    help="Where to listen; may be given several times.",
)
@click.option(
    "--announce",
    metavar="MULTIADDR",
    multiple=True,
    help="What to tell others instead, such as /dns4/example.org/tcp/31337.",
)
@click.option(
    "--identity",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The key that makes the peer id; made where there is none.",
)
@click.option(
    "--peers",
    metavar="MULTIADDR",
    multiple=True,
    help="Another entry point, or a peer, to stand together with; may be given several times.",
)
@click.option("--relay", is_flag=True, help="Carry streams for peers that nobody can dial.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Where to serve ...")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_METRICS_PORT,
    show_default=True,
    help="... /metrics; 0 is any free port.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one line of JSON.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def main(*, as_json: bool, log_level: str, **options: Any) -> None:
    """Serve as a long-lived entry point to any number of runs, until stopped.

    Peers are given one of the addresses that this prints.
    """
    set_up(log_level)
    try:
        check_announced(options["announce"])
        check_peers(options["peers"])
        check_listened(options["listen"])
        options["identity"] = _identity_path(options["identity"])
        bootstrap = _bootstrap(**options)
        asyncio.run(_serve(bootstrap, as_json=as_json))
    except CtpeerError as error:
        click.echo(f"ctpeer-bootstrap: {error}", err=True)
        sys.exit(error.exit_code)


def _bootstrap(**options: Any) -> "Bootstrap":
    # hivemind, and torch with it, takes seconds to load.
    from dht_bootstrap.service import Bootstrap
    from peer.identity import Identity
    from peer.observe.serving import Address
    from peer.swarm.node import NodeOptions

    return Bootstrap(
        NodeOptions(
            identity_path=options["identity"],
            listen=options["listen"],
            announce=options["announce"],
            initial_peers=options["peers"],
            relay=options["relay"],
            public=options["relay"],
        ),
        Identity.load_or_create(options["identity"]),
        Address(options["metrics_host"], options["metrics_port"]),
        ServiceManager(),
    )


async def _serve(bootstrap: "Bootstrap", *, as_json: bool) -> None:
    stop = stopped_by_signal()

    def show(started: "Started") -> None:
        if as_json:
            click.echo(json.dumps(started._asdict()))
            return
        click.echo(f"{started.peer_id} is an entry point ({started.reachability}):")
        for address in started.addresses:
            click.echo(f"  {address}")
        click.echo(f"metrics: {started.metrics_url}")

    await bootstrap.serve(stop, show)


def _identity_path(given: Path | None) -> Path:
    path = given or platformdirs.user_data_path("ctpeer") / "bootstrap.key"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{path.parent} cannot be made: {error.strerror}; choose another place with --identity"
        ) from error
    return path
