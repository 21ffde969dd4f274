"""What a sandbox is asked for: how many peers, how far, and which faults when. Pure."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from peer.errors import UsageError
from peer.sandbox.scenario import Scenario

MAX_PEERS = 64
FOUNDER = 0

_TIMEOUT_S = 300.0
_TIMEOUT_PER_EPOCH_S = 5.0
_TIMEOUT_OF_SCENARIO_S = 300.0
_LONGEST_FREEZE_S = 86_400.0
_KILL = re.compile(r"([0-9]{1,3})@([0-9]{1,9})")
_FREEZE = re.compile(r"([0-9]{1,3})@([0-9]{1,9}):([0-9]{1,5}(?:\.[0-9]{1,3})?)")


class Kind(StrEnum):
    """What is done to a peer; of several at one epoch, in this order."""

    JOIN = "join"
    FREEZE = "freeze"
    KILL = "kill"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something done to `peer` when the swarm reaches `epoch`; a freeze lasts `seconds`."""

    kind: Kind
    peer: int
    epoch: int
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A sandbox from its beginning to its end. Made by `make_plan`.

    Attributes:
        peers: How many there are at first; their indices begin at 0, the founder's.
        max_epochs: The last epoch.
        faults: In the order in which they are injected.
        timeout_s: How long all of it may take.
        validate_every: Every so many epochs there is a candidate; 0 for none.
        scenario: What goes wrong with their judging.
    """

    peers: int
    max_epochs: int
    faults: tuple[Fault, ...] = ()
    timeout_s: float
    validate_every: int = 0
    scenario: Scenario | None = None

    @property
    def ends_judged(self) -> bool:
        """Whether the last epoch is a candidate, which all wait for the verdict on."""
        return bool(self.validate_every) and self.max_epochs % self.validate_every == 0


def parse_kill(text: str) -> Fault:
    """Return what `--kill PEER@EPOCH` asks for.

    Raises:
        UsageError: `text` is spelled otherwise.
    """
    found = _KILL.fullmatch(text)
    if found is None:
        raise UsageError(f"--kill takes PEER@EPOCH, such as 1@5, not {text!r}")
    return Fault(Kind.KILL, int(found[1]), int(found[2]))


def parse_freeze(text: str) -> Fault:
    """Return what `--freeze PEER@EPOCH:SECONDS` asks for.

    Raises:
        UsageError: `text` is spelled otherwise, or the seconds make no sense.
    """
    found = _FREEZE.fullmatch(text)
    if found is None:
        raise UsageError(f"--freeze takes PEER@EPOCH:SECONDS, such as 2@14:20, not {text!r}")
    seconds = float(found[3])
    if not 0.0 < seconds <= _LONGEST_FREEZE_S:
        raise UsageError(
            f"a freeze lasts between 0 and {_LONGEST_FREEZE_S:.0f} seconds, not {text!r}"
        )
    return Fault(Kind.FREEZE, int(found[1]), int(found[2]), seconds)


def make_plan(
    peers: int,
    max_epochs: int,
    *,
    hurts: Iterable[Fault] = (),
    join_at: Iterable[int] = (),
    timeout_s: float | None = None,
    validate_every: int = 0,
    scenario: Scenario | None = None,
) -> Plan:
    """Return the plan of `peers` peers that train up to `max_epochs`.

    Args:
        peers: How many begin.
        max_epochs: The last epoch.
        hurts: Kills and freezes.
        join_at: At which epochs one more peer joins; the earliest gets the next index.
        timeout_s: How long all may take; made up from the rest if None.
        validate_every: Every so many epochs there is a candidate; 0 for none.
        scenario: What goes wrong with their judging.

    Raises:
        UsageError: It cannot be done: no such peer, an epoch that is never reached, nobody left,
            no sensible timeout.
    """
    joins = [Fault(Kind.JOIN, peers + i, epoch) for i, epoch in enumerate(sorted(join_at))]
    if peers + len(joins) > MAX_PEERS:
        raise UsageError(f"a sandbox holds at most {MAX_PEERS} peers")
    order = list(Kind)
    faults = sorted([*joins, *hurts], key=lambda fault: (fault.epoch, order.index(fault.kind)))
    _check(peers, max_epochs, faults)
    if timeout_s is None:
        frozen_s = sum(fault.seconds for fault in faults)
        timeout_s = _TIMEOUT_S + _TIMEOUT_PER_EPOCH_S * max_epochs + frozen_s
        if scenario is not None:
            timeout_s += _TIMEOUT_OF_SCENARIO_S
    if not 0.0 < timeout_s < float("inf"):
        raise UsageError(f"a sandbox ends after some seconds, not after {timeout_s}")
    return Plan(
        peers=peers,
        max_epochs=max_epochs,
        faults=tuple(faults),
        timeout_s=timeout_s,
        validate_every=validate_every,
        scenario=scenario,
    )


def inviter(candidates: Iterable[int], coming: Sequence[Fault]) -> int:
    """Return which of `candidates` invites a peer that joins: whom `coming` spares for longest.

    A peer takes a while to start, and its invite leads to one peer.
    """
    hurt = [fault.peer for fault in coming if fault.kind is not Kind.JOIN]

    def spared(peer: int) -> tuple[int, int]:
        return hurt.index(peer) if peer in hurt else len(hurt), -peer

    return max(candidates, key=spared)


def _check(peers: int, max_epochs: int, faults: Iterable[Fault]) -> None:
    """Raise UsageError unless `faults` can be injected in their order."""
    live, dead, frozen = set(range(peers)), set[int](), set[int]()
    for fault in faults:
        if not 0 <= fault.epoch <= max_epochs:
            raise UsageError(
                f"epoch {fault.epoch} is never reached: the last one is {max_epochs}; choose an "
                "earlier one, or a larger --max-epochs"
            )
        if fault.kind is Kind.JOIN:
            live.add(fault.peer)
            continue
        if fault.peer in dead:
            raise UsageError(f"peer {fault.peer} is dead by epoch {fault.epoch}")
        if fault.peer not in live:
            raise UsageError(f"there is no peer {fault.peer} at epoch {fault.epoch}")
        if fault.kind is Kind.FREEZE:
            if fault.peer in frozen:
                raise UsageError(f"peer {fault.peer} is frozen twice; once has to do")
            frozen.add(fault.peer)
            continue
        live.discard(fault.peer)
        dead.add(fault.peer)
        if not live:
            raise UsageError(f"nobody is left at epoch {fault.epoch}; leave one peer alive")
