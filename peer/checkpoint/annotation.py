"""What a writer says beside a checkpoint, signed: where the state comes from and how good it is.

The state root names the state and nothing else, so it is equal on all peers; parent, generation,
code version, data seen and scores are one writer's word. They are small and outlive the state,
which is how the lineage of a model stays readable after its old states are gone. Pure.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field, TypeAdapter

from peer.identity import Identity, peer_id_of, verify
from peer.run.canonical import canonical, from_base64, to_base64
from peer.run.manifest import Finite
from peer.training.certificate import Base64, Count, Name

MAX_BYTES = 1 << 16
"""No annotation is longer."""

_PREFIX = b"ctpeer annotation\n"
_MAX_SCORES = 64

ScoreName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Version = Annotated[str, Field(pattern=r"^[!-~]{1,40}$")]
UnixTime = Annotated[float, Field(ge=0.0, le=1e11, allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True)
class Ancestor:
    """A state that another one comes from."""

    epoch: Count
    state_root: Name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heritage:
    """What a checkpoint's writer knows of it beyond the state itself.

    Attributes:
        parent: The checkpoint, or else the state, that it comes from.
        loss_terms: What all peers brought since the parent, by the certificates in between.
        scores: On held-out data, by name.
    """

    parent: Ancestor | None = None
    loss_terms: int = 0
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notes:
    """The statement that is signed.

    Attributes:
        manifest: The run's hash.
        state_root: The state that this is about.
        epoch: The state's.
        generation: How many rollbacks the run had seen.
        parent: The checkpoint, or else the state, that it comes from; None if it is not known.
        code_version: The ctpeer that wrote it.
        loss_terms: What all peers brought since the parent.
        own_samples: Rows that the writer had trained on in the run.
        own_tokens: Tokens that the writer had trained on in the run.
        scores: On held-out data, by name, as far as they are known and finite.
        accepted_by: The hash of the verdict that accepted the state, if there is one.
        written_s: When, in Unix seconds.
    """

    manifest: Name
    state_root: Name
    epoch: Count
    generation: Count
    parent: Ancestor | None
    code_version: Version
    loss_terms: Count
    own_samples: Count
    own_tokens: Count
    scores: Annotated[dict[ScoreName, Finite], Field(max_length=_MAX_SCORES)]
    accepted_by: Name | None
    written_s: UnixTime

    def statement(self) -> bytes:
        """Return the bytes that the writer signs."""
        return _PREFIX + canonical(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Notes with their writer's key and signature; `problem` says whether it is a good one."""

    notes: Notes
    public_key: Base64
    signature: Base64

    @property
    def writer(self) -> str:
        """The peer id of the writer, derived from its key."""
        return peer_id_of(from_base64(self.public_key))

    def problem(self) -> str | None:
        """Return why this is not its writer's word, or None if it is."""
        signature = from_base64(self.signature)
        if not verify(from_base64(self.public_key), signature, self.notes.statement()):
            return "the annotation is not signed by the writer that it names"
        return None

    def to_bytes(self) -> bytes:
        """Return the one form in which an annotation is kept."""
        return canonical(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Annotation":
        """Return the annotation that `data` holds, whose signature is yet to be checked.

        Raises:
            ValueError: It holds none, or in another form than `to_bytes` gives.
        """
        if len(data) > MAX_BYTES:
            raise ValueError(f"an annotation has at most {MAX_BYTES} bytes")
        annotation = _ADAPTER.validate_json(data, strict=True)
        if annotation.to_bytes() != data:
            raise ValueError("it is not in canonical form")
        return annotation


_ADAPTER = TypeAdapter(Annotation)


@dataclasses.dataclass(frozen=True)
class Author:
    """Who annotates the checkpoints of a store, and the wall clock that dates them."""

    identity: Identity
    now_s: Callable[[], float]

    def sign(self, notes: Notes) -> Annotation:
        """Return `notes` under this author's signature."""
        signature = self.identity.sign(notes.statement())
        return Annotation(notes, to_base64(self.identity.public_key), to_base64(signature))


def finite_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return `scores` without what is no number: a diverged model's perplexity has no value."""
    return {name: float(value) for name, value in scores.items() if math.isfinite(value)}
