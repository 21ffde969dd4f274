"""Whether a peer that only wants to judge has to train now, to have a place among those who may.

Pure. Who may sit is settled by work (`peer.validation.ledger`) whatever a peer calls itself; so one
that would rather not train does as little as keeps its place.
"""

from enum import StrEnum

from peer.validation.committee import Ground
from peer.validation.ledger import Ledger
from peer.validation.roll import prospect
from peer.validation.rules import STRIKE_ROUNDS, Rules

RENEWED_AFTER_ROUNDS = STRIKE_ROUNDS // 2
"""A verdict must count a new contribution before a place lapses, and some verdicts do not come."""

_GATHERING = "gathering the epoch's batch"


class Duty(StrEnum):
    """What a peer does."""

    TRAIN = "train"
    FOLLOW = "follow"


def duty(
    ledger: Ledger, peer_id: str, epoch: int, worked_epoch: int | None, rules: Rules
) -> tuple[Duty, str]:
    """Return what a peer that only wants to judge does from `epoch` on, and why.

    Args:
        ledger: What it holds to.
        peer_id: Whose.
        epoch: Where it stands.
        worked_epoch: The last epoch of this generation to whose average it contributed, if any.
        rules: The run's.
    """
    began = epoch - epoch % rules.every_epochs
    _, ground = ledger.roster(began + rules.every_epochs, (), rules)
    if ground is not Ground.TENURE:
        return Duty.TRAIN, f"{_GATHERING}: whoever makes the next candidate may judge it"
    standing = ledger.standing(peer_id)
    if standing.epochs < rules.tenure_epochs:
        done = f"{standing.epochs} of {rules.tenure_epochs} epochs"
        return Duty.TRAIN, f"{_GATHERING} to earn a place among the validators: {done}"
    rounds = ledger.round - standing.last_round
    # One epoch among those that lead to a candidate is enough for the verdict on it.
    if rounds >= RENEWED_AFTER_ROUNDS and (worked_epoch is None or worked_epoch < began):
        last = f"nothing of it was judged since verdict {standing.last_round}"
        return Duty.TRAIN, f"{_GATHERING} to keep a place among the validators: {last}"
    may_sit, remark = prospect(ledger, standing, rules)
    when = f"may sit in round {ledger.round + 1}" if may_sit else str(remark)
    return Duty.FOLLOW, f"as a validator; {when}"
