"""A round: one attempt to average. What it could not do is a value, never just a log line.

`Rounds` is the interface that the training loop knows. `LoneRounds` is a peer without a network;
`peer.training.averaging` is the swarm. A group of one goes the same way in both: contribution,
reduction, encoding, vote and certificate, with nobody to wait for.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from peer.events import RoundFailure
from peer.identity import Identity
from peer.swarm.wire import Body
from peer.training import codec
from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Vote,
    group_id,
    sign_part,
    sign_vote,
)
from peer.training.contribution import Contribution
from peer.training.reducer import reduce, square_sum
from peer.training.state import Flat, GlobalState


@dataclasses.dataclass(frozen=True)
class Failed:
    """The round brought nothing.

    Attributes:
        failure: The class of the failure, for counting.
        detail: What happened, in words.
        keep: Whether the contribution is worth another round.
    """

    failure: RoundFailure
    detail: str
    keep: bool


@dataclasses.dataclass(frozen=True)
class Committed:
    """The round ended in a certificate.

    Attributes:
        average: The decoded average, fp32 [elements], the same bits on every member.
        certificate: The proof; its vote holds the parts' sums of squares.
        parts: The encoded average by part.
        seconds_by_phase: Where the time went; empty where others did the work.
    """

    average: Flat
    certificate: Certificate
    parts: tuple[Body, ...]
    seconds_by_phase: Mapping[str, float]

    def consumed(self, contribution_id: str) -> bool:
        """Return whether the average holds the contribution of that name."""
        entries = self.certificate.vote.entries
        return any(entry.contribution_id == contribution_id for entry in entries)


@dataclasses.dataclass(frozen=True)
class Replaced:
    """Our state is not the run's: another one takes its place.

    Attributes:
        state: The certified state that others hold.
        led_by: The certificate that led to it, if it is known.
        reason: Why it counts and ours does not, in words.
        lost_epochs: Epochs of ours that the run does not know.
        lost_weight: Our own loss terms in them.
    """

    state: GlobalState
    led_by: Certificate | None
    reason: str
    lost_epochs: int
    lost_weight: int


@dataclasses.dataclass(frozen=True)
class Waiting:
    """The run is ahead of us, and what leads there cannot be had yet: training on would be lost."""

    reason: str


Step = Committed | Replaced | Waiting
"""What brings us to where the run is."""

Abandon = Callable[[], bool]
"""Says that the one who waits has something better to do."""


class Rounds(Protocol):
    """Whoever averages contributions for the training loop."""

    def start(self) -> None:
        """Meet the others; our own state is known by now."""
        ...

    def stand(
        self, generation: int, epoch: int, root: str | None, led_by: Certificate | None
    ) -> None:
        """Note where we are; `root` is None while it is computed, `led_by` what led there."""
        ...

    def gather(self, weight: int, rate: float) -> None:
        """Note the loss terms gathered since the last epoch, and how many a second."""
        ...

    def rest(self, *, resting: bool) -> None:
        """Note that we train, or that nobody should wait for us."""
        ...

    @property
    def others_train(self) -> bool:
        """Whether anybody else trains, as far as we know."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether the swarm has gathered an epoch's batch, so that we should bring ours."""
        ...

    @property
    def behind(self) -> bool:
        """Whether `catch_up` has something to find out."""
        ...

    @property
    def asked_for_state(self) -> bool:
        """Whether somebody joins and looks for a state, since this was last asked."""
        ...

    def saved(self, oldest_epoch: int) -> None:
        """Note that states before `oldest_epoch` are given to nobody any more."""
        ...

    def restart(self) -> None:
        """Forget the certificates so far: a new generation begins from a good state."""
        ...

    def run(self, base: Base, contribution: Contribution, abandon: Abandon) -> Committed | Failed:
        """Try once to average `contribution` on top of `base`, within a deadline."""
        ...

    def catch_up(self, base: Base, abandon: Abandon) -> Step | None:
        """Return what others have beyond `base`: the next epoch, another state, or nothing."""
        ...


class LoneRounds:
    """Rounds of a peer without a network."""

    others_train = False
    wanted = False
    behind = False
    asked_for_state = False

    def __init__(self, identity: Identity, codec_name: str) -> None:
        self._identity = identity
        self._codec = codec_name

    def start(self) -> None:
        """There is nobody to meet."""

    def stand(
        self, generation: int, epoch: int, root: str | None, led_by: Certificate | None
    ) -> None:
        """Nobody asks."""

    def gather(self, weight: int, rate: float) -> None:
        """Nobody asks."""

    def rest(self, *, resting: bool) -> None:
        """Nobody waits."""

    def saved(self, oldest_epoch: int) -> None:
        """Nobody is given any."""

    def restart(self) -> None:
        """There is nothing to forget."""

    def run(self, base: Base, contribution: Contribution, abandon: Abandon) -> Committed | Failed:  # noqa: ARG002 nothing takes long
        """Certify this peer's own contribution as the average."""
        return average_alone(self._identity, self._codec, base, contribution)

    def catch_up(self, base: Base, abandon: Abandon) -> Step | None:  # noqa: ARG002
        """Nobody is ahead."""
        return None


def average_alone(
    identity: Identity, codec_name: str, base: Base, contribution: Contribution
) -> Committed | Failed:
    """Return `contribution` as the certified average of a group of one."""
    me, elements = identity.peer_id, len(contribution.values)
    started_s = time.perf_counter()
    reduced = reduce({me: contribution.values}, {me: contribution.weight}, elements)
    if reduced.mean is None:
        return refusal(reduced.refused[me])
    reduced_s = time.perf_counter()
    data = codec.encode(reduced.mean, codec_name)
    average = codec.decode(data, elements, codec_name)
    entries = (Entry(me, contribution.contribution_id, contribution.weight, 0),)
    name = group_id(base, entries)
    part = sign_part(identity, name, data, elements, square_sum(average))
    vote = Vote(base=base, entries=entries, parts=(part,))
    return Committed(
        average=average,
        certificate=Certificate(vote, (sign_vote(identity, vote),)),
        parts=(data,),
        seconds_by_phase={
            "reduce": reduced_s - started_s,
            "certify": time.perf_counter() - reduced_s,
        },
    )


def refusal(reason: str) -> Failed:
    """Return the failure of a round to which we cannot bring our own contribution."""
    failure = RoundFailure.NOT_FINITE if reason == "not finite" else RoundFailure.REFUSED
    return Failed(failure, f"own contribution {reason}", keep=False)
