"""What a round asks its driver to do: values, carried out elsewhere."""

import dataclasses
from collections.abc import Mapping

from peer.validation.ledger import Mark
from peer.validation.score import Losses, Question
from peer.validation.verdict import Judgement, Verdict


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The checkpoint of an epoch that is a multiple of the manifest's `every_epochs`.

    Attributes:
        epoch: Its epoch.
        state_root: Its name.
        members: Whose contributions are in the certificate that led to it.
        attendance: `committee.attendance` of the certificates of the `every_epochs` epochs that led
            to it; None where this peer lacks one of them, and then it takes no seat.
    """

    epoch: int
    state_root: str
    members: frozenset[str]
    attendance: Mapping[str, int] | None


@dataclasses.dataclass(frozen=True)
class Found:
    """What an evaluation found, and to which question: a newer one may be open meanwhile."""

    question: Question
    losses: Losses


@dataclasses.dataclass(frozen=True)
class PublishTicket:
    """Publish `ticket.make(identity, seed)`."""

    seed: str


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score both states on `score.draw_chunks(question, ...)` and hand in what is `Found`."""

    question: Question
    candidate: Candidate
    baseline: Mark
    place: str


@dataclasses.dataclass(frozen=True)
class PublishCommit:
    """Publish `score.make_commit(identity, question, losses)`."""

    question: Question
    losses: Losses


@dataclasses.dataclass(frozen=True)
class PublishReveal:
    """Publish `score.make_reveal(identity, question, losses, witnessed, ...)`."""

    question: Question
    losses: Losses
    witnessed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Propose:
    """Serve the judgement as a verdict without signatures, and publish a `Proposal` of it."""

    judgement: Judgement


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Fetch the verdict of a judgement's hash, complete or not, from one of `peers`."""

    judgement: str
    peers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SignVerdict:
    """Publish an `Assent` to the judgement."""

    judgement: Judgement


@dataclasses.dataclass(frozen=True)
class Adopt:
    """Keep and serve the verdict, publish `Good`, and do what its ledger says."""

    verdict: Verdict


Action = (
    PublishTicket | Evaluate | PublishCommit | PublishReveal | Propose | Fetch | SignVerdict | Adopt
)
