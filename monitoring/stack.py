"""`ctpeer-monitor stack`: Prometheus, Grafana where it is installed, and all that they need.

They run for as long as the command does, on a folder of their own.
"""

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

import click
import platformdirs

from monitoring import servers
from monitoring.children import Program, running
from monitoring.scrape import dialled, target_groups
from peer.config.home import Home, resolve_home
from peer.errors import ConfigurationError, CtpeerError
from peer.run.directory import RunDirectory, write_atomically
from peer.run.invite import looks_like_invite, parse_invite

MONITOR_LISTEN = "127.0.0.1:8472"
PROMETHEUS_LISTEN = "127.0.0.1:9090"
GRAFANA_LISTEN = "127.0.0.1:3000"

_LOOK_S = 5.0

log = logging.getLogger(__name__)


@click.command()
@click.argument("run", required=False)
@click.option(
    "--peers",
    metavar="MULTIADDR",
    multiple=True,
    help="An entry point, or a peer, of RUN's swarm; may be given several times.",
)
@click.option(
    "--monitor",
    metavar="HOST:PORT",
    help=f"Where ctpeer-monitor serves already, or is to serve; {MONITOR_LISTEN} if RUN is given.",
)
@click.option(
    "--home",
    "homes",
    metavar="DIR",
    multiple=True,
    help="The home of a peer here, which is scraped, too; yours if none is given.",
)
@click.option(
    "--target",
    "targets",
    metavar="HOST:PORT",
    multiple=True,
    help="Where another peer serves /metrics; may be given several times.",
)
@click.option(
    "--allow-private",
    is_flag=True,
    help="Scrape peers at private addresses, too: for a swarm in one network.",
)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A host name under which the monitor may be asked, such as a reverse proxy's.",
)
@click.option("--data", metavar="DIR", help="Where all is kept; a folder of yours if not given.")
@click.option("--retention", default="30d", show_default=True, help="How long that is kept.")
@click.option("--prometheus", metavar="HOST:PORT", default=PROMETHEUS_LISTEN, show_default=True)
@click.option("--grafana", metavar="HOST:PORT", default=GRAFANA_LISTEN, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one line of JSON.")
def stack(  # noqa: PLR0913 one parameter an option
    *,
    run: str | None,
    peers: tuple[str, ...],
    monitor: str | None,
    homes: tuple[str, ...],
    targets: tuple[str, ...],
    allow_private: bool,
    hosts: tuple[str, ...],
    data: str | None,
    retention: str,
    prometheus: str,
    grafana: str,
    as_json: bool,
) -> None:
    """Start Prometheus, and Grafana where it is installed, with all of ctpeer's provisioned.

    With RUN (a manifest's path, an invite, or a run's id) ctpeer-monitor is started as well.
    Everything ends with this command.
    """
    try:
        scraped = [dialled(target) for target in targets]
        if run is not None:
            monitor = monitor or MONITOR_LISTEN
        addresses = {
            "monitor": f"http://{dialled(monitor)}" if monitor else None,
            "prometheus": f"http://{dialled(prometheus)}",
            "grafana": f"http://{dialled(grafana)}",
        }
        run_id = None if run is None else run_id_of(run)
        folder = Path(data).expanduser().absolute() if data else _default_folder()
        programs = [
            servers.prometheus(folder, prometheus, retention, monitor=monitor, run_id=run_id)
        ]
        found = [resolve_home(home) for home in homes or (None,)]
        if run is not None and monitor is not None:
            flags = [word for peer in peers for word in ("--peers", peer)]
            flags += [word for host in hosts for word in ("--allow-host", host)]
            flags += ["--allow-private"] * allow_private
            programs.insert(0, servers.exporter(run, found[0].path, monitor, folder, flags))
        if (shown := servers.grafana(folder, grafana, prometheus)) is not None:
            programs.append(shown)
        else:
            addresses["grafana"] = None

        def look() -> None:
            write_targets(folder, found, scraped)

        with _stop_at_signals() as stop:
            serve(programs, stop, look, lambda: click.echo(_told(addresses, as_json=as_json)))
    except CtpeerError as error:
        click.echo(f"ctpeer-monitor: {error}", err=True)
        sys.exit(error.exit_code)


def serve(
    programs: Sequence[Program],
    stop: Event,
    look: Callable[[], None],
    on_ready: Callable[[], None],
) -> None:
    """Run `programs` until `stop`; call `look` now and again, and `on_ready` once.

    Raises:
        CtpeerError: One of them does not start, or ends by itself.
    """
    look()
    with running(programs, stop) as check:
        if not stop.is_set():
            on_ready()
        while not stop.wait(_LOOK_S):
            look()
            check()


def write_targets(folder: Path, homes: Sequence[Home], given: Sequence[str]) -> None:
    """Write which peers to scrape, where that changed; a peer may have got another port."""
    path = folder / "targets" / "peers.json"
    statuses = [text for home in homes if (text := _read(home.last_status_path)) is not None]
    fresh = json.dumps(target_groups(statuses, given), indent=1)
    if _read(path) != fresh:
        try:
            write_atomically(path, fresh.encode())
        except OSError as error:
            log.warning("the list of peers was not written: %s", error)


def run_id_of(run: str) -> str:
    """Return the id of the run that a path, an invite or an id names.

    Raises:
        UsageError: The invite is none, or was mistyped.
        ConfigurationError: The manifest is damaged.
    """
    if looks_like_invite(run):
        return parse_invite(run, 0.0).run_id
    return RunDirectory.open(Path(run)).run_id if Path(run).exists() else run


@contextlib.contextmanager
def _stop_at_signals() -> Iterator[Event]:
    """Give what is set when somebody asks for an end."""
    stop = Event()
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in kinds]
    try:
        yield stop
    finally:
        for number, handler in zip(kinds, before, strict=True):
            signal.signal(number, handler)


def _told(addresses: dict[str, str | None], *, as_json: bool) -> str:
    if as_json:
        return json.dumps(addresses)
    lines = [f"{name:<11} {address}" for name, address in addresses.items() if address]
    if addresses["grafana"] is None:
        lines.append(
            "grafana     is not installed: get it from grafana.com, put it on the PATH, and start "
            "this again; graphs of Prometheus and the alerts are there without it"
        )
    if addresses["monitor"] is None:
        lines.append("monitor     none: give a RUN, or --monitor, to see the swarm as a whole")
    return "\n".join(lines)


def _default_folder() -> Path:
    path = Path(platformdirs.user_data_dir("ctpeer-monitor", appauthor=False))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be made: {error.strerror}; choose another place with --data"
        ) from error
    return path


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
