"""A real peer but for one thing that it does to its run: a test double for `--scenario`.

    python -m peer.sandbox.hostile start ...    as `ctpeer start`, with the worker below
    python -m peer.sandbox.hostile --fd N       a worker that does what the variable ROLE says

It ships since the scenarios are shown to users: what a swarm survives is best seen. Nothing starts
it but a sandbox.
"""

import dataclasses
import logging
import os
import random
import runpy
import sys
from typing import TYPE_CHECKING

from peer.daemon.supervisor import Supervisor
from peer.sandbox.scenario import parse_poison
from peer.swarm.testimony import MAX_POINTS
from peer.validation.rules import POINTS_A_NAT
from peer.validation.score import Losses

if TYPE_CHECKING:
    from peer.daemon.scoring import Scorer
    from peer.training.contribution import Contribution
    from peer.training.trainer import Trainer
    from peer.validation.actions import Evaluate, Found

ROLE = "SANDBOX_ROLE_OF_CTPEER"
"""`poison:EPOCH` flips contributions from there on; `inflate`, `deflate` and `random` are lies."""

COMMAND = (sys.executable, "-m", "peer.sandbox.hostile")

_LIE_POINTS = 2 * POINTS_A_NAT


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


def _work() -> int:
    from peer.daemon import worker

    role = os.environ[ROLE]
    first = parse_poison(role)
    if first is not None:
        _poison(first)
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
