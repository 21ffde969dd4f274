"""A real peer but for one thing that it does to its run: a test double for `--scenario`.

    python -m peer.sandbox.hostile start ...    as `ctpeer start`, with the worker below
    python -m peer.sandbox.hostile --fd N       a worker that does what the variable ROLE says

It ships since the scenarios are shown to users: what a swarm survives is best seen. Nothing starts
it but a sandbox.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import random
import runpy
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peer.daemon.supervisor import Supervisor
from peer.errors import PeerError
from peer.identity import Identity
from peer.sandbox.scenario import parse_poison
from peer.swarm.bodies import RecordBody
from peer.swarm.testimony import MAX_POINTS, Commit, Reveal
from peer.validation.rules import POINTS_A_NAT
from peer.validation.score import Losses

if TYPE_CHECKING:
    from peer.daemon.scoring import Scorer
    from peer.swarm.dht import Dht
    from peer.training.contribution import Contribution
    from peer.training.trainer import Trainer
    from peer.validation.actions import Evaluate, Found

ROLE = "SANDBOX_ROLE_OF_CTPEER"
"""`poison:EPOCH` flips contributions from there on; `inflate`, `deflate` and `random` are lies
about losses, `copy` takes those of another peer."""

COMMAND = (sys.executable, "-m", "peer.sandbox.hostile")

_LIE_POINTS = 2 * POINTS_A_NAT
_COPY_LOOK_S, _COPY_TIMEOUT_S = 0.2, 10.0


class Poison:
    """Says when to flip contributions: from some epoch on, until a rollback."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._newest = 0
        self._over = False

    def flips(self, epoch: int) -> bool:
        """Return whether to flip what is brought at `epoch`."""
        self._over |= epoch < self._newest
        self._newest = max(self._newest, epoch)
        return epoch >= self._first and not self._over


def distort(losses: Losses, lie: str, chance: random.Random) -> Losses:
    """Return what a liar says that it found."""
    match lie:
        case "inflate":
            candidate = [min(MAX_POINTS, points + _LIE_POINTS) for points in losses.candidate]
        case "deflate":
            candidate = [max(0, points - _LIE_POINTS) for points in losses.candidate]
        case "random":
            candidate = [chance.randrange(10 * POINTS_A_NAT) for _ in losses.candidate]
        case _:
            raise ValueError(f"nobody has the role {lie!r}")
    return dataclasses.replace(losses, candidate=tuple(candidate))


class Copier:
    """Says what another one of the committee says: its commit, and then what it shows."""

    def __init__(self) -> None:
        self._seed = self._victim = ""

    async def instead(
        self, dht: "Dht", me: Identity, run_id: str, kind: str, body: RecordBody
    ) -> RecordBody:
        """Return what to publish instead of `body`: another's words as ours, if they come in time.

        Args:
            dht: Where they lie.
            me: Who signs them.
            run_id: The run.
            kind: The kind of record that `body` is.
            body: What an honest peer would publish.
        """
        if not isinstance(body, Commit | Reveal):
            return body
        with contextlib.suppress(TimeoutError, PeerError):
            async with asyncio.timeout(_COPY_TIMEOUT_S):
                while True:
                    said = await dht.get(run_id, kind)
                    found = self._pick(
                        body.seed, {p: said[p].body for p in said if p != me.peer_id}
                    )
                    if found is not None:
                        return found.signed_by(me)
                    await asyncio.sleep(_COPY_LOOK_S)
        return body

    def _pick(self, seed: str, said: Mapping[str, Any]) -> Commit | Reveal | None:
        """Return the word of the round's victim, which is the first peer that said one."""
        of_round = {peer: word for peer, word in said.items() if word.seed == seed}
        if self._seed != seed and of_round:
            self._seed, self._victim = seed, min(of_round)
        return of_round.get(self._victim)


def _poison(first: int) -> None:
    from peer.training.trainer import Trainer

    poison, honest = Poison(first), Trainer.contribution

    def contribution(self: "Trainer", base_root: str) -> "Contribution":
        made = honest(self, base_root)
        if not poison.flips(self.state.epoch):
            return made
        return dataclasses.replace(made, values=-made.values)

    Trainer.contribution = contribution  # type: ignore[method-assign]


def _lie(lie: str) -> None:
    from peer.daemon.scoring import Scorer

    honest, chance = Scorer.score, random.Random()  # noqa: S311 no secret

    async def score(self: "Scorer", asked: "Evaluate") -> "Found | str":
        found = await honest(self, asked)
        if isinstance(found, str):
            return found
        return dataclasses.replace(found, losses=distort(found.losses, lie, chance))

    Scorer.score = score  # type: ignore[method-assign]


def _copy() -> None:
    from peer.swarm.dht import Dht

    honest, copier = Dht.put, Copier()

    async def put(self: "Dht", run_id: str, kind: str, body: RecordBody, lifetime_s: float) -> bool:
        told = await copier.instead(self, self._identity, run_id, kind, body)
        return await honest(self, run_id, kind, told, lifetime_s)

    Dht.put = put  # type: ignore[method-assign]


def _work() -> int:
    from peer.daemon import worker

    role = os.environ[ROLE]
    first = parse_poison(role)
    if first is not None:
        _poison(first)
    elif role == "copy":
        _copy()
    else:
        _lie(role)
    return worker.main()


def main() -> None:
    """Run the worker or the whole daemon, as the arguments say."""
    if "--fd" in sys.argv:
        code = _work()
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)  # as the honest worker ends
    defaults = Supervisor.__init__.__kwdefaults__
    assert defaults is not None
    defaults["command"] = COMMAND
    runpy.run_module("peer", run_name="__main__")


if __name__ == "__main__":
    main()
