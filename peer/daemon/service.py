"""The daemon put together: the run it trains, the lock, the supervisor and what it answers."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from peer.clock import SystemClock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.control import serve_control, serve_metrics
from peer.daemon.supervisor import Supervisor
from peer.errors import ConfigurationError
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory, write_atomically
from peer.run.signature import signers_of

log = logging.getLogger(__name__)

View = Callable[[Supervisor], Coroutine[Any, Any, None]]
"""Shows a running supervisor to somebody until it is cancelled."""


def choose_run(home: Home, given: Path | None) -> RunDirectory:
    """Return the run to train, copied into `home`: the one given, else the last, else the demo.

    Raises:
        ConfigurationError: There is no such run, it is damaged, or its signature is not good.
    """
    run = RunDirectory.open(given) if given is not None else last_or_demo_run(home)
    if missing := sorted(set(run.manifest.founders) - set(signers_of(run))):
        log.warning("run %s is not signed by its founder %s", run.run_id, ", ".join(missing))
    run = run.import_into(home.runs_path)
    try:
        write_atomically(home.last_run_path, run.run_id.encode())
    except OSError as error:
        raise ConfigurationError(
            f"{home.last_run_path} cannot be written: {error.strerror}; free some space there, or "
            "choose another --home"
        ) from error
    return run


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
    ):
        supervisor.metrics_url = metrics_url
        log.info("metrics: %s", metrics_url)
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
    home: Home, settings: Settings, run_id: str, max_epochs: int | None
) -> Supervisor:
    """Return a supervisor on the machine's own clock."""
    return Supervisor(home, settings, run_id, max_epochs=max_epochs, clock=SystemClock())
