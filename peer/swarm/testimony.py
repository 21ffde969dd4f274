"""What validators say in the DHT: strict, bounded, and signed by themselves.

Each is a record of one peer and kind, replaced by its next one, so the body names the round, by its
seed. Tickets, commits, reveals and assents bear a signature of their own beside the envelope's:
they live on as evidence inside a verdict, which is a blob.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, ClassVar, Protocol, Self

from pydantic import Field

from peer import identity
from peer.run.canonical import canonical, from_base64, to_base64
from peer.run.manifest import Finite, Hash, Word
from peer.swarm.bodies import RecordBody

PROTOCOL = 1
"""Peers of different protocols draw different tickets."""
CALLED = 12
"""Seats and reserves of a committee of full size."""
MAX_CHUNKS = 48
MAX_POINTS = 1_000_000
"""A loss of a hundred nats; anything beyond, and what is not finite, is written as this.

A model that knows nothing has about ten. Beyond some hundred, two honest scores may be further
apart than scores that agree. Whoever changes it changes what is decided, and must raise `PROTOCOL`.
"""

Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{0,1024}={0,2}$")]
Brief = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""The beginning of a hash: enough to tell a dozen commits apart."""
Count = Annotated[int, Field(ge=0, le=10**9)]
Points = Annotated[int, Field(ge=0, le=MAX_POINTS)]
ChunkPoints = Annotated[tuple[Points, ...], Field(min_length=1, max_length=MAX_CHUNKS)]
"""Mean loss of each chunk, in 1e-4 nats."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""Whether the second is a signature of the first, a key, over the third; see `identity.verify`."""

_ROLE = "validator"


class Signer(Protocol):
    """Whoever signs; `peer.identity.Identity` is one."""

    public_key: bytes
    peer_id: str

    def sign(self, data: bytes, /) -> bytes:
        """Return the signature over `data`, the same each time."""
        ...


class Signed(RecordBody):
    """Something that one peer says and that stays proven outside its envelope."""

    prefix: ClassVar[bytes]

    seed: Hash
    public_key: Base64
    signature: Base64

    @property
    def peer_id(self) -> str:
        """Whose word it is."""
        return peer_of(self.public_key)

    def statement(self) -> bytes:
        """Return the bytes that are signed."""
        return self.prefix + canonical(self.model_dump(mode="json", exclude={"signature"}))

    def is_good(self, verify: Verify = identity.verify) -> bool:
        """Return whether the signature is the peer's."""
        return verify(from_base64(self.public_key), from_base64(self.signature), self.statement())

    def signed_by(self, signer: Signer) -> Self:
        """Return this with the key and the signature of `signer`."""
        own = self.model_copy(update={"public_key": to_base64(signer.public_key)})
        return own.model_copy(update={"signature": to_base64(signer.sign(own.statement()))})


class Ticket(Signed):
    """That its owner is alive, and its lot in the draw."""

    prefix: ClassVar[bytes] = b"ctpeer ticket\n"

    protocol: Annotated[int, Field(ge=1, le=10**6)] = PROTOCOL

    def statement(self) -> bytes:
        """Return the role, the protocol and the seed, which leave the owner nothing to choose."""
        return self.prefix + canonical([_ROLE, self.protocol, self.seed])


class Commit(Signed):
    """The hash of a score that is not shown yet, and of the question that it answers."""

    prefix: ClassVar[bytes] = b"ctpeer commit\n"

    question: Hash
    digest: Hash

    @property
    def brief(self) -> str:
        """What reveals name it by."""
        return self.digest[:16]


class Reveal(Signed):
    """A score: losses by chunk, of candidate and baseline on the same rows.

    Attributes:
        candidate: By chunk.
        baseline: By chunk.
        salt: What kept the commit from being guessed.
        witnessed: Which commits the peer had seen when it took no more.
        environment: The code and the libraries that it was computed with.
        metrics: The task's own metrics of the candidate; they decide nothing.
    """

    prefix: ClassVar[bytes] = b"ctpeer reveal\n"

    candidate: ChunkPoints
    baseline: ChunkPoints
    salt: Hash
    witnessed: Annotated[tuple[Brief, ...], Field(max_length=CALLED)] = ()
    environment: Annotated[str, Field(pattern=r"^[ -~]{0,100}$")] = ""
    metrics: Annotated[dict[Word, Finite], Field(max_length=8)] = Field(default_factory=dict)


class Assent(Signed):
    """A signature under a judgement, by its hash."""

    prefix: ClassVar[bytes] = b"ctpeer verdict\n"

    judgement: Hash

    def statement(self) -> bytes:
        """Return the judgement's hash; the rest is in the judgement."""
        return assent_statement(self.judgement)


class Proposal(RecordBody):
    """That the peer has a judgement, with what signatures it knows, to fetch by hash."""

    seed: Hash
    judgement: Hash


class Good(RecordBody):
    """Where a peer stands: the verdict that it holds to, and the state that is good by it.

    Peers say so all the time, before the first verdict, too (with what a chain begins with).
    Joiners and peers that were away go by these, counted over distinct tenured peers.
    """

    round: Count
    verdict: Hash
    state_root: Hash
    generation: Count


def assent_statement(judgement: str) -> bytes:
    """Return what is signed under a judgement of that hash."""
    return Assent.prefix + canonical(judgement)


@lru_cache(maxsize=4096)
def peer_of(public_key: str) -> str:
    """Return the peer id of a key in base64."""
    return identity.peer_id_of(from_base64(public_key))
