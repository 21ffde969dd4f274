"""Recomputing everything that a checkpoint claims, with nothing but the run's own files.

Every chunk is hashed into the state root; the other files are held against their digest; the
signatures of certificate and annotation are checked, and that both speak of this very state. It
needs neither torch nor a network, and changes nothing.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors

from peer.checkpoint.annotation import Annotation
from peer.checkpoint.flatfile import FlatFile
from peer.checkpoint.format import LOCAL, STATE, Head, name_of, read_head
from peer.checkpoint.initial import initial_schema
from peer.checkpoint.papers import Claim, annotation_problems, certificate_problems
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.staging import Wanted
from peer.errors import DamagedError, MisbehavedError
from peer.run.directory import RunDirectory
from peer.training.certificate import Base, Certificate
from peer.training.outer import initial_slots
from peer.training.state import StateHeader, root_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What verifying found.

    Attributes:
        name: The checkpoint's directory.
        state_root: Its root, where the head could be read.
        problems: What is wrong; nothing if the checkpoint is good.
        notes: What could not be checked, and why.
        chunks: Chunks of the state that were hashed.
        signers: Peers whose signatures under the certificate are good.
    """

    name: str
    state_root: str | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    chunks: int
    signers: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether everything that is there is as it should be."""
        return not self.problems


def verify_checkpoint(shelf: Shelf, name: str, run: RunDirectory) -> Report:
    """Verify a checkpoint of `run`; it is held meanwhile.

    Raises:
        LookupError: It is gone, or being dropped.
    """
    with shelf.hold(name) as folder:
        return _Verification(folder, name, run, shelf).report()


class _Verification:
    """One checkpoint, and what was found so far."""

    def __init__(self, folder: Path, name: str, run: RunDirectory, shelf: Shelf) -> None:
        self._folder = folder
        self._name = name
        self._run = run
        self._shelf = shelf
        self._notes: list[str] = []
        self._header: StateHeader | None = None
        self._signers: tuple[str, ...] = ()
        self._base: Base | None = None

    def report(self) -> Report:
        head: Head | None = None
        problems: list[str] = []
        try:
            head = read_head(self._folder, self._run.manifest_hash)
            for part in (self._state, self._local, self._certificate, self._annotation):
                problems.extend(part(head))
        except DamagedError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{error.filename or self._folder} cannot be read: {error.strerror}")
        return Report(
            name=self._name,
            state_root=head.state_root if head is not None else None,
            problems=tuple(problems),
            notes=tuple(self._notes),
            chunks=sum(len(hashes) for _, _, hashes in self._header.buffers) if self._header else 0,
            signers=self._signers,
        )

    def _state(self, head: Head) -> Iterator[str]:
        if name_of(head.epoch, head.state_root) != self._name:
            yield f"the directory is named {self._name}, and holds epoch {head.epoch}"
        not_finite = 0

        def look(dtype: str, chunk: bytes) -> None:
            nonlocal not_finite
            numbers = np.frombuffer(chunk, dtype)
            not_finite += len(numbers) - int(np.isfinite(numbers).sum())

        try:
            # It checks what hashes do not: that the file ends where its tensors end.
            with safetensors.safe_open(self._folder / STATE, "numpy"):
                pass
            state = FlatFile(self._folder / STATE)
            self._header = state.header(self._run.manifest_hash, head.epoch, look)
        except FileNotFoundError:
            yield f"{STATE} is missing"
            return
        except DamagedError as error:
            yield str(error)
            return
        except (safetensors.SafetensorError, ValueError) as error:
            yield f"{STATE} cannot be read: {next(iter(str(error).splitlines()), '')}"
            return
        if (root := root_of(self._header)) != head.state_root:
            yield (
                f"the state does not have its root: the chunks hash to {root[:16]}, "
                f"{head.state_root[:16]} is claimed"
            )
        if not_finite:
            yield f"{not_finite} numbers of the state are not finite"
        yield from self._fit(head, self._header)

    def _fit(self, head: Head, header: StateHeader) -> Iterator[str]:
        """Yield whether the state is none of the run's model, by the initial state's tensors."""
        try:
            schema = initial_schema(self._run)
        except DamagedError:
            self._notes.append(
                "the run's initial state is not here, so the tensors' shapes were not compared"
            )
            return
        slots = initial_slots(self._run.manifest.optimizer, schema.elements)
        wanted = Wanted(head.state_root, self._run.manifest_hash, schema, slots)
        try:
            wanted.check(header)
        except MisbehavedError as error:
            yield str(error)

    def _local(self, head: Head) -> Iterator[str]:
        if head.local is None:
            self._notes.append("it was fetched by hand: training does not go on from it")
            return
        try:
            data = (self._folder / LOCAL).read_bytes()
        except FileNotFoundError:
            yield f"{LOCAL} is missing"
            return
        if hashlib.sha256(data).hexdigest() != head.local.get("files", {}).get(LOCAL):
            yield f"{LOCAL} was changed"

    def _certificate(self, head: Head) -> Iterator[str]:
        if head.certificate is None:
            if head.epoch:
                self._notes.append("no certificate lies beside it: it was fetched without one")
            return
        try:
            certificate = Certificate.from_json(head.certificate)
        except ValueError:
            yield "the certificate cannot be read"
            return
        self._signers = tuple(sorted(certificate.signers & set(certificate.vote.group)))
        self._base = certificate.vote.base
        yield from certificate_problems(certificate, self._claim(head))

    def _annotation(self, head: Head) -> Iterator[str]:
        try:
            annotation = self._shelf.annotation(self._name)
        except ValueError as error:
            yield f"the annotation cannot be read: {next(iter(str(error).splitlines()), '')}"
            return
        if annotation is None:
            if head.writer is not None:
                yield f"the annotation by {head.writer} is missing"
            elif head.local is None:
                self._notes.append("it has no annotation: it was fetched without one")
            else:
                self._notes.append("it has no annotation: a ctpeer without lineage wrote it")
            return
        yield from annotation_problems(annotation, self._claim(head), self._base)
        if annotation.writer != head.writer:
            yield f"the annotation is by {annotation.writer}, and {head.writer} wrote the state"
        if annotation.notes.code_version != head.code_version:
            yield "the annotation names another version of the code"
        yield from self._descent(head, annotation)

    def _claim(self, head: Head) -> Claim:
        """Return what the papers have to be about."""
        return Claim(
            run_id=self._run.run_id,
            manifest_hash=self._run.manifest_hash,
            epoch=head.epoch,
            state_root=head.state_root,
            generation=head.generation,
            elements=self._header.elements if self._header is not None else None,
        )

    def _descent(self, head: Head, annotation: Annotation) -> Iterator[str]:
        """Yield what is wrong with the parent that lies here; note what cannot be checked."""
        parent = annotation.notes.parent
        if parent is None or parent.epoch >= head.epoch:
            return
        base = self._base
        extended = base is not None and parent.epoch == base.epoch
        if parent.epoch + 1 < head.epoch and not extended:
            self._notes.append(
                f"the certificates from epoch {parent.epoch} to {head.epoch - 1} are not kept: "
                "that it comes from its parent is its writer's word"
            )
        yield from self._parent_here(parent.epoch, parent.state_root, head)

    def _parent_here(self, epoch: int, state_root: str, head: Head) -> Iterator[str]:
        """Yield what is wrong with the parent's own checkpoint, where it lies here."""
        name = name_of(epoch, state_root)
        if not self._shelf.path(name).is_dir():
            return
        try:
            parent = read_head(self._shelf.path(name), self._run.manifest_hash)
        except (DamagedError, OSError):
            self._notes.append(f"the parent {name} is here, but its head cannot be read")
            return
        if parent.state_root != state_root or parent.generation > head.generation:
            yield f"the parent {name} that lies here is another one"
