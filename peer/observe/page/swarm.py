"""The page of a whole swarm, for whoever serves /swarm, /leaderboard, /verdicts and /healthz.

All that it shows is public, and it commands nothing: there is no key, and under which names it may
be asked is for the application to say that it is added to.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from aiohttp import web

from peer.observe.history import Curve
from peer.observe.page.site import Guard, add_files, add_view

SAMPLE_S = 5.0

Look = Callable[[], Mapping[str, Any] | None]
"""Returns what /swarm answers with, or None while nothing is known."""


class SwarmCurves:
    """How the swarm went since its exporter was started, in a bounded room.

    Attributes:
        curves: By name; `loss` and `heldout` are the word of the middle peer.
    """

    def __init__(self) -> None:
        self.curves = {"loss": Curve(), "heldout": Curve(), "live": Curve()}
        self._at = (-1, -1)
        self._values: dict[str, float] = {}

    def take(self, swarm: Mapping[str, Any]) -> None:
        """Take in what /swarm answers with; a new generation takes the curves back.

        Certificates are there before the peers' word on their epoch is: of each epoch the last
        word counts. Silence is none: peers leave when a run ends.
        """
        at = (swarm["generation"], swarm["epoch"])
        if at != self._at:
            for name, value in self._values.items():
                self.curves[name].add(self._at[1], value)
            for curve in self.curves.values():
                curve.back_to(swarm["epoch"] - 1)
            self._at, self._values = at, {}
        told = swarm["self_reported"]
        values = {
            "loss": told["loss_nats"],
            "heldout": told["heldout"],
            "live": swarm["peers"]["live"] or None,
        }
        self._values |= {n: v for n, v in values.items() if v is not None and math.isfinite(v)}

    def shown(self) -> dict[str, Any]:
        """Return every curve's points as `[epoch, value]`, the epoch at hand included."""
        shown = {name: curve.shown() for name, curve in self.curves.items()}
        for name, value in self._values.items():
            shown[name].append([self._at[1], value])
        return shown


def add_swarm_page(app: web.Application, look: Look) -> None:
    """Have `app` serve the page at its root, its files below /assets, and /curves.

    Args:
        app: Not yet started.
        look: Asked every few seconds for what the curves are made of.
    """
    guard, curves = Guard(key=None, loopback_only=False), SwarmCurves()

    async def shown() -> Mapping[str, Any]:
        return curves.shown()

    async def sampling(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(_sample(look, curves))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    add_files(app, guard, "swarm.html")
    add_view(app, guard, "/curves", shown)
    app.cleanup_ctx.append(sampling)


async def _sample(look: Look, curves: SwarmCurves) -> None:
    while True:
        if (swarm := look()) is not None:
            curves.take(swarm)
        await asyncio.sleep(SAMPLE_S)
