"""The local page: the supervisor as a browser shows it, on the loopback interface.

Whoever has the address with its key commands the daemon, as with the control socket; so the key
lies in the home and is told by `ctpeer status`, which its owner alone can ask.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from peer.config.home import Home
from peer.config.settings import PageSettings
from peer.daemon.ancestry import Ancestry
from peer.daemon.control import Control
from peer.daemon.supervisor import Supervisor
from peer.observe.page.key import load_or_create_key
from peer.observe.page.site import Guard, add_files, add_view
from peer.observe.serving import application, listen, serving, url_of

DEFAULT_PAGE_PORT = 8460

_HOST = "127.0.0.1"
_SECRETS = {"page_url"}
"""What a page has no use for; it stands in screenshots and recordings otherwise."""


@contextlib.asynccontextmanager
async def serve_page(
    supervisor: Supervisor, home: Home, settings: PageSettings
) -> AsyncIterator[str | None]:
    """Serve the page and yield its address, key included; None if it is not wanted.

    Raises:
        ConfigurationError: The port or the key cannot be had.
    """
    if not settings.enabled:
        yield None
        return
    guard = Guard(key=load_or_create_key(home.page_key_path))
    listener = listen(
        _HOST,
        settings.port,
        what="the page",
        choice="--page-port, or port under [page] in peer.toml",
        default=DEFAULT_PAGE_PORT,
    )
    async with serving(_application(supervisor, home, guard), listener):
        yield f"{url_of(listener)}/#{guard.key}"


def _application(supervisor: Supervisor, home: Home, guard: Guard) -> web.Application:
    app, view, control = application(), _View(supervisor, home), Control(supervisor)
    add_files(app, guard, "peer.html")
    add_view(app, guard, "/view", view.now)
    for name, command in control.commands.items():
        app.router.add_post(f"/{name}", guard.around(command))
    return app


class _View:
    """What the page shows."""

    def __init__(self, supervisor: Supervisor, home: Home) -> None:
        self._supervisor = supervisor
        self._ancestry = Ancestry(home)

    async def now(self) -> Mapping[str, Any]:
        """Return all of it, as JSON has it."""
        supervisor = self._supervisor
        status = supervisor.status()
        commits = supervisor.snapshot.commits
        return {
            "schema": 1,
            "status": {name: value for name, value in status.items() if name not in _SECRETS},
            "paused": supervisor.paused,
            "quiet_s": supervisor.quiet_s,
            "rss_bytes": dict(supervisor.rss_bytes()),
            "history": supervisor.snapshot.history.shown(),
            "last_group": dict(commits[-1].loss_terms) if commits else {},
            "lineage": self._ancestry.of(status),
        }
