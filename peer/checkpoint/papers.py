"""A state's papers: the certificate that led to it, and its writer's annotation.

The state itself is proven by its root. Papers are what others say of it: here is what can be
checked of that, for those that lie here and for those that strangers give.
"""

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence

from peer.checkpoint.annotation import MAX_BYTES, Annotation
from peer.errors import MisbehavedError, PeerError
from peer.swarm.download import OnRefusal, Refusal
from peer.swarm.wire import MAX_HEADER_BYTES, Transport, scoped
from peer.training.certificate import Base, Certificate, problem
from peer.training.transfer import timely

PAPERS = "papers"
MAX_CERTIFICATE_BYTES = MAX_HEADER_BYTES
"""In rounds it travels in a header."""

_ASKED = 8
_TIMEOUT_S = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """The state that papers have to be about.

    Attributes:
        run_id: The run.
        manifest_hash: The run's.
        epoch: The state's.
        state_root: Its root.
        generation: How many rollbacks the run is said to have seen; None where nobody says so.
        elements: How many parameters it has; None where that is not known.
    """

    run_id: str
    manifest_hash: str
    epoch: int
    state_root: str
    generation: int | None
    elements: int | None


@dataclasses.dataclass(frozen=True)
class Papers:
    """What stands beside a state, as far as there is any."""

    certificate: Certificate | None = None
    annotation: Annotation | None = None

    @classmethod
    def of(cls, certificate: str | None, annotation: Annotation | None) -> "Papers":
        """Return the papers with the certificate that is JSON text in a checkpoint's head.

        Raises:
            ValueError: The text is none.
        """
        parsed = None if certificate is None else Certificate.from_json(certificate)
        return cls(parsed, annotation)

    @property
    def count(self) -> int:
        """How many there are."""
        return (self.certificate is not None) + (self.annotation is not None)

    @property
    def generation(self) -> int | None:
        """How many rollbacks the run had seen, as far as they say so."""
        if self.annotation is not None:
            return self.annotation.notes.generation
        return self.certificate.vote.base.generation if self.certificate is not None else None

    def problems(self, claim: Claim) -> Iterator[str]:
        """Yield what is wrong with them."""
        base = None
        if self.certificate is not None:
            base = self.certificate.vote.base
            yield from certificate_problems(self.certificate, claim)
        if self.annotation is not None:
            yield from annotation_problems(self.annotation, claim, base)

    def to_frames(self) -> tuple[bytes, bytes]:
        """Return certificate and annotation as they travel; nothing for one that is not there."""
        certificate, annotation = self.certificate, self.annotation
        return (
            b"" if certificate is None else certificate.to_json().encode(),
            b"" if annotation is None else annotation.to_bytes(),
        )

    @classmethod
    def from_frames(cls, certificate: bytes, annotation: bytes) -> "Papers":
        """Return what a stranger's frames hold, not checked any further.

        Raises:
            MisbehavedError: They hold no papers.
        """
        try:
            return cls.of(
                certificate.decode() if certificate else None,
                Annotation.from_bytes(annotation) if annotation else None,
            )
        except (ValueError, RecursionError) as error:
            raise MisbehavedError("what it gave are no papers of a state") from error


def certificate_problems(certificate: Certificate, claim: Claim) -> Iterator[str]:
    """Yield why `certificate` is not the one that led to the state, as far as can be told."""
    if (wrong := problem(certificate)) is not None:
        yield f"the certificate proves nothing: {wrong}"
    base = certificate.vote.base
    if base.run_id != claim.run_id:
        yield "the certificate is of another run"
    generation = claim.generation
    if base.epoch + 1 != claim.epoch or (generation is not None and base.generation > generation):
        yield (
            f"the certificate leads from epoch {base.epoch} of generation {base.generation}, "
            f"not to epoch {claim.epoch} of generation {generation}"
        )
    elements = sum(part.elements for part in certificate.vote.parts)
    if claim.elements not in (None, elements):
        yield "the certificate's average is of another size than the state"


def annotation_problems(annotation: Annotation, claim: Claim, base: Base | None) -> Iterator[str]:
    """Yield why `annotation` is not its writer's word about the state.

    Args:
        annotation: What its writer says.
        claim: The state.
        base: What the certificate extends, if there is one.
    """
    if (wrong := annotation.problem()) is not None:
        yield wrong
    notes, parent = annotation.notes, annotation.notes.parent
    ours = (claim.manifest_hash, claim.state_root, claim.epoch, claim.generation)
    if (notes.manifest, notes.state_root, notes.epoch, notes.generation) != ours:
        yield "the annotation is of another state"
    if parent is None:
        return
    if parent.epoch >= claim.epoch:
        yield f"its parent is of epoch {parent.epoch}, which is no earlier one"
    elif base is not None and parent.epoch == base.epoch and parent.state_root != base.state_root:
        yield "the certificate extends another state than the parent"


async def fetch_papers(
    transport: Transport,
    claim: Claim,
    donors: Sequence[str],
    on_refusal: OnRefusal,
) -> Papers:
    """Return the papers of a state from whoever gives the most that are good; maybe none.

    Args:
        transport: The way to the donors.
        claim: The state; its generation is what the papers say.
        donors: Peer ids. So many are asked at once, and others only where none of those had all.
        on_refusal: Is told of every donor that gave none, or bad ones.
    """
    whole = 2 if claim.epoch else 1  # nothing led to the initial state
    best = Papers()
    for start in range(0, len(donors), _ASKED):
        asked = donors[start : start + _ASKED]
        answers = (_ask(transport, claim, donor, on_refusal) for donor in asked)
        for papers in await asyncio.gather(*answers):
            best = papers if papers.count > best.count else best
        if best.count == whole:
            break
    return best


async def _ask(transport: Transport, claim: Claim, donor: str, on_refusal: OnRefusal) -> Papers:
    try:
        papers = await timely(_receive(transport, claim, donor), _TIMEOUT_S)
        stated = dataclasses.replace(claim, generation=papers.generation)
        if (wrong := next(papers.problems(stated), None)) is not None:
            raise MisbehavedError(wrong)
    except PeerError as error:
        on_refusal(Refusal.of(donor, error))
        return Papers()
    return papers


async def _receive(transport: Transport, claim: Claim, donor: str) -> Papers:
    channel = await transport.open(donor, scoped(claim.run_id, PAPERS))
    try:
        await channel.send({"root": claim.state_root})
        certificate = (await channel.receive(MAX_CERTIFICATE_BYTES)).body
        annotation = (await channel.receive(MAX_BYTES)).body
    finally:
        channel.close()
    return Papers.from_frames(certificate, annotation)
