"""Scenarios: what goes wrong with the judging of checkpoints, and who does it. Pure.

The founder is never hostile and never killed: the others join with its invite.
"""

import dataclasses
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from peer.errors import UsageError
from peer.validation.committee import size_of
from peer.validation.state import Phase

_POISONED_CANDIDATE = 3
_POISON = re.compile(r"poison:([0-9]{1,9})")
_LIES = ("inflate", "deflate", "copy", "random")
_PHASES = (Phase.COMMIT, Phase.REVEAL, Phase.VERDICT)
"""What a seat does, in that order."""


class ScenarioName(StrEnum):
    """What `--scenario` takes."""

    POISONED_CANDIDATE = "poisoned-candidate"
    LYING_VALIDATORS = "lying-validators"
    KILLED_SEATS = "killed-seats"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario in a sandbox of a certain size. Made by `make_scenario`.

    Attributes:
        name: Which one.
        roles: What hostile peers do, by index; see `peer.sandbox.hostile`.
        poison_from: The epoch from which on contributions are flipped, until a rollback: training
            does not wait for verdicts, so the first candidate of it may be superseded.
        kills: How many seats are killed at most, each of them at another candidate.
    """

    name: ScenarioName
    roles: Mapping[int, str] = dataclasses.field(default_factory=dict)
    poison_from: int | None = None
    kills: int = 0


@dataclasses.dataclass(frozen=True)
class Unseated:
    """A peer that was killed in its seat, and what it was about."""

    peer: int
    candidate_epoch: int
    phase: str


def make_scenario(name: ScenarioName, peers: int, max_epochs: int, every: int) -> Scenario:
    """Return a scenario for so many peers.

    Args:
        name: Which one.
        peers: How many there are.
        max_epochs: The last epoch.
        every: How far candidates are apart.

    Raises:
        UsageError: It needs more peers, or more candidates.
    """
    candidates = max_epochs // every if every else 0
    if candidates < 2:  # noqa: PLR2004 one that goes wrong, and one after it
        raise UsageError(
            f"the scenario {name} needs two candidates at least; choose a smaller "
            "--validate-every, or a larger --max-epochs"
        )
    spare = peers - size_of(peers).quorum
    match name:
        case ScenarioName.POISONED_CANDIDATE:
            hostile = peers // 2 + 1
            _need(name, peers, 3)
            first = every * (min(_POISONED_CANDIDATE, candidates) - 1)
            roles = dict.fromkeys(range(peers - hostile, peers), f"poison:{first}")
            return Scenario(name=name, roles=roles, poison_from=first)
        case ScenarioName.LYING_VALIDATORS:
            _need(name, peers, 4)
            liars = range(peers - min(spare, len(_LIES)), peers)
            return Scenario(name=name, roles=dict(zip(liars, _LIES, strict=False)))
        case ScenarioName.KILLED_SEATS:
            _need(name, peers, 4)
            return Scenario(name=name, kills=min(spare, candidates - 1))


def parse_poison(role: str) -> int | None:
    """Return the epoch from which on the role poisons; None if it is another role."""
    found = _POISON.fullmatch(role)
    return int(found[1]) if found is not None else None


def find_seat(
    judging: Mapping[int, Mapping[str, Any]], done: list[Unseated], kills: int
) -> Unseated | None:
    """Return which seat to kill now, or None.

    The first candidate is left alone, to see how long a verdict takes; of the others each loses
    one seat, in turn while it scores, reveals and signs. Phases are short: who was missed in the
    wanted one is taken in the one after it.

    Args:
        judging: What the live peers but the founder say of validation, by index.
        done: Who was killed before.
        kills: How many are to be killed.
    """
    if len(done) >= kills:
        return None
    wanted = len(done) % len(_PHASES)
    hurt = {each.candidate_epoch for each in done}
    for index, says in sorted(judging.items()):
        epoch, phase = says.get("candidate_epoch"), says.get("phase")
        if says.get("seat") is None or not says.get("round") or epoch in hurt:
            continue
        if phase in _PHASES[wanted:]:
            return Unseated(index, int(str(epoch)), str(phase))
    return None


def _need(name: ScenarioName, peers: int, needed: int) -> None:
    if peers < needed:
        raise UsageError(f"the scenario {name} needs {needed} peers at least")
