"""The daemon put together: the run it trains, the lock, the supervisor and what it answers."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from peer.clock import SystemClock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.control import serve_control, serve_metrics
from peer.daemon.page import serve_page
from peer.daemon.supervisor import Supervisor
from peer.errors import ConfigurationError
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory, write_atomically
from peer.run.invite import looks_like_invite, parse_invite
from peer.run.signature import signers_of

log = logging.getLogger(__name__)

View = Callable[[Supervisor], Coroutine[Any, Any, None]]
"""Shows a running supervisor to somebody until it is cancelled."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A run to train: its id, and where an invite says that its peers are."""

    run_id: str
    addresses: tuple[str, ...] = ()


def choose_run(home: Home, given: str | None) -> Chosen:
    """Return the run to train: the one given by path or invite, else the last, else the demo.

    A run given by its path is copied into `home`; one given by an invite is fetched by the worker.

    Raises:
        UsageError: The invite is none, or was mistyped.
        ConfigurationError: There is no such run, it is damaged, its signature is not good, or the
            invite has expired and its run is not here.
    """
    if given is not None and looks_like_invite(given):
        # A service is given the same invite at every start: it got it for the first one.
        known = parse_invite(given, 0.0).run_id in home.run_ids()
        invite = parse_invite(given, 0.0 if known else SystemClock().now_s())
        _remember(home, invite.run_id)
        return Chosen(invite.run_id, invite.addresses)
    run = RunDirectory.open(Path(given)) if given is not None else last_or_demo_run(home)
    if missing := sorted(set(run.manifest.founders) - set(signers_of(run))):
        log.warning("run %s is not signed by its founder %s", run.run_id, ", ".join(missing))
    run = run.import_into(home.runs_path)
    _remember(home, run.run_id)
    return Chosen(run.run_id)


def _remember(home: Home, run_id: str) -> None:
    """Make `run_id` what the next start without a run trains."""
    try:
        write_atomically(home.last_run_path, run_id.encode())
    except OSError as error:
        raise ConfigurationError(
            f"{home.last_run_path} cannot be written: {error.strerror}; free some space there, or "
            "choose another --home"
        ) from error


def last_or_demo_run(home: Home) -> RunDirectory:
    """Return the run that ran last on `home`, else the demo.

    Raises:
        ConfigurationError: Its manifest makes no sense.
    """
    with contextlib.suppress(FileNotFoundError):
        run_id = home.last_run_path.read_text(errors="replace").strip()
        if run_id in home.run_ids():
            return RunDirectory.open(home.run_path(run_id))
        log.warning("the run that ran last, %r, is gone; the demo run takes its place", run_id)
    return RunDirectory.open(demo_run_path())


async def serve(
    supervisor: Supervisor,
    home: Home,
    settings: Settings,
    *,
    paused: bool,
    view: View | None = None,
) -> int:
    """Run the supervisor with all that it answers; return the daemon's exit code.

    Raises:
        ConfigurationError: A port is taken, or the worker cannot run as configured.
    """
    async with (
        serve_metrics(supervisor, settings.metrics) as metrics_url,
        serve_control(supervisor, home.socket_path),
        serve_page(supervisor, home, settings.page) as page_url,
    ):
        supervisor.metrics_url, supervisor.page_url = metrics_url, page_url
        log.info("metrics: %s", metrics_url)
        if page_url is not None:
            # Logs are shared; whoever has the key commands.
            bare, _, _ = page_url.partition("#")
            log.info("page: %s; `ctpeer status` prints it with its key", bare)
        shown = asyncio.create_task(_show(view, supervisor)) if view is not None else None
        try:
            return await supervisor.run(paused=paused)
        finally:
            if shown is not None:
                shown.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await shown


async def _show(view: View, supervisor: Supervisor) -> None:
    """Run the view; a terminal that goes away ends the view, not the daemon."""
    try:
        await view(supervisor)
    except OSError as error:
        log.warning("the view on the terminal ended: %s", error)


def make_supervisor(
    home: Home, settings: Settings, chosen: Chosen, max_epochs: int | None, *, hold: bool
) -> Supervisor:
    """Return a supervisor on the machine's own clock."""
    return Supervisor(
        home,
        settings,
        chosen.run_id,
        addresses=chosen.addresses,
        max_epochs=max_epochs,
        hold=hold,
        clock=SystemClock(),
    )
