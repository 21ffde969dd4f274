"""Hashed transfer, the taking side: a file by SHA-256, from one donor after the other.

Donors are strangers: each may be slow, break off, or lie. What they give together is trusted only
when it has its hash; when it has not, it is taken whole from one at a time, and the liar is known.
Never is more on the disk than the cap.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from peer.errors import (
    ConfigurationError,
    DeclinedError,
    MisbehavedError,
    PeerError,
    UnreachableError,
)
from peer.swarm.blobs import FRAME_BYTES, MAX_BLOB_BYTES
from peer.swarm.wire import Frame, Transport, scoped

_PATIENCE_S = (5.0, 20.0)
"""How long a donor may take for a frame: little while others may be better, then more."""

_SLICE_BYTES = 1 << 20
_NAMED_AT_MOST = 8
_REASON_CHARS = 300
_SIZE = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=MAX_BLOB_BYTES)])

OnProgress = Callable[[int, int], None]
"""Is told the bytes that are here, and those there will be."""


class ConflictError(PeerError):
    """What several peers gave does not fit together, and nobody knows yet who lied."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A donor that did not give what was asked for.

    Attributes:
        donor: Its peer id.
        kind: `declined`, `misbehaved`, `conflicting` or `unreachable`, after the PeerError.
        reason: In words, some of which may be the donor's own.
    """

    donor: str
    kind: str
    reason: str

    @classmethod
    def of(cls, donor: str, error: PeerError) -> "Refusal":
        """Return what `error` says of `donor`, as it can be shown on a terminal."""
        words = "".join(c if c.isprintable() else "?" for c in str(error)[:_REASON_CHARS])
        return cls(donor, _kind(error), words)


def _kind(error: PeerError) -> str:
    match error:
        case DeclinedError():
            return "declined"
        case MisbehavedError():
            return "misbehaved"
        case ConflictError():
            return "conflicting"
    return "unreachable"


OnRefusal = Callable[[Refusal], None]


class FetchError(PeerError):
    """No donor gave what was asked for; the message names what each of them did instead.

    Args:
        what: What was asked for.
        refusals: Of all donors, in order.
    """

    def __init__(self, what: str, refusals: Sequence[Refusal]) -> None:
        last = {refusal.donor: refusal.reason for refusal in refusals}
        named = [f"{donor}: {reason}" for donor, reason in last.items()][:_NAMED_AT_MOST]
        if len(last) > _NAMED_AT_MOST:
            named.append(f"and {len(last) - _NAMED_AT_MOST} others")
        super().__init__(f"nobody gave {what} ({'; '.join(named) or 'there was nobody to ask'})")
        self.refusals = tuple(refusals)


async def fetch_blob(
    transport: Transport,
    run_id: str,
    sha256: str,
    size_cap_bytes: int,
    target: Path,
    donors: Sequence[str],
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
) -> None:
    """Fetch the file whose SHA-256 is `sha256` to `target`.

    What came of it stays in `target` with `.part` added, and a later call goes on from there. One
    call at a time for one target. Every frame has a deadline, the whole has none: cancelling it
    is as good as any other interruption.

    Args:
        transport: The way to the donors.
        run_id: The run.
        sha256: The hash of the whole file.
        size_cap_bytes: The most that is taken and written.
        target: Where the file appears when it is whole and has its hash.
        donors: Peer ids to ask in turn.
        on_progress: Is told of every frame.
        on_refusal: Is told of every donor that failed, also where another one gave it.

    Raises:
        FetchError: No donor gave it.
        ConfigurationError: It cannot be written.
    """
    download = _Download(
        transport=transport,
        name=scoped(run_id, "blob"),
        sha256=sha256,
        size_cap_bytes=size_cap_bytes,
        target=target,
        on_progress=on_progress or (lambda _done, _size: None),
        on_refusal=on_refusal or (lambda _refusal: None),
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if await has_hash(target, sha256):
            return
        await download.resume()
        if not await _together(download, donors) and not await _one_alone(download, donors):
            raise FetchError(f"the file {sha256[:12]}", download.refusals)
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written: {error.strerror or error}; make room there, or choose "
            "another --home"
        ) from error


async def has_hash(path: Path, sha256: str) -> bool:
    """Return whether the file at `path` is there and has that SHA-256; gives others their turn."""
    try:
        digest, _ = await _digest(path)
    except OSError:
        return False
    return digest.hexdigest() == sha256


async def _together(download: "_Download", donors: Sequence[str]) -> bool:
    """Let each donor go on where the last one ended; who gave something gets another turn."""
    for patience_s in _PATIENCE_S:
        turns = list(donors)
        while turns:
            gave = []
            for donor in turns:
                before = download.received_bytes
                if await download.attempt(donor, patience_s):
                    return True
                if download.mixed:
                    return False
                if download.received_bytes > before:
                    gave.append(donor)
            turns = gave
    return False


async def _one_alone(download: "_Download", donors: Sequence[str]) -> bool:
    """Take the file whole from a single donor, so that a wrong hash says who lied."""
    if not download.doubtful:
        return False
    rest = [donor for donor in donors if donor not in download.liars]
    for donor in sorted(rest, key=lambda donor: donor in download.suspects):
        download.discard()
        before = -1
        while before < download.received_bytes:
            before = download.received_bytes
            if await download.attempt(donor, _PATIENCE_S[-1]):
                return True
    return False


@dataclasses.dataclass(kw_only=True)
class _Download:
    """The part of a file that is here, who gave it, and who did not."""

    transport: Transport
    name: str
    sha256: str
    size_cap_bytes: int
    target: Path
    on_progress: OnProgress
    on_refusal: OnRefusal
    refusals: list[Refusal] = dataclasses.field(default_factory=list)
    liars: set[str] = dataclasses.field(default_factory=set)
    suspects: set[str] = dataclasses.field(default_factory=set)
    received_bytes: int = 0
    mixed: bool = False
    doubtful: bool = False

    def __post_init__(self) -> None:
        self._part = self.target.with_name(f"{self.target.name}.part")
        self._forget()

    def _forget(self) -> None:
        self._hash = hashlib.sha256()
        self._offset = 0
        self._size: int | None = None
        self._givers: set[str] = set()

    def discard(self) -> None:
        """Begin anew with nothing."""
        self._part.unlink(missing_ok=True)
        self._forget()

    async def resume(self) -> None:
        """Take up what an earlier call left."""
        with contextlib.suppress(FileNotFoundError):
            if self._part.stat().st_size > self.size_cap_bytes:
                self.discard()
                return
            self._hash, self._offset = await _digest(self._part)
            self._givers = {"an earlier attempt"} if self._offset else set()

    async def attempt(self, donor: str, patience_s: float) -> bool:
        """Go on with `donor`; return whether the file is whole and at its place."""
        if donor in self.liars:
            return False
        try:
            await self._take(donor, patience_s)
            self._finish(donor)
        except PeerError as error:
            refusal = Refusal.of(donor, error)
            self.refusals.append(refusal)
            self.on_refusal(refusal)
            if isinstance(error, MisbehavedError):
                self.liars.add(donor)
            return False
        return True

    async def _take(self, donor: str, patience_s: float) -> None:
        async with _patience(donor, patience_s):
            channel = await self.transport.open(donor, self.name)
        try:
            async with _patience(donor, patience_s):
                await channel.send({"sha256": self.sha256, "offset": self._offset})
                size = _size_in(await channel.receive(), donor)
            self._check_size(size, donor)
            with self._part.open("ab") as file:
                while self._offset < size:
                    await channel.may_receive(min(FRAME_BYTES, size - self._offset))
                    async with _patience(donor, patience_s):
                        frame = await channel.receive(FRAME_BYTES)
                    if len(frame.body) != min(FRAME_BYTES, size - self._offset):
                        raise MisbehavedError(f"{donor} sends frames of another size")
                    file.write(frame.body)
                    self._count(donor, size, frame.body)
        finally:
            channel.close()

    def _check_size(self, size: int, donor: str) -> None:
        if size > self.size_cap_bytes:
            raise MisbehavedError(
                f"{donor} says that it has {size} bytes where {self.size_cap_bytes} are the most"
            )
        known = self._size if self._size is not None else size
        if size != known or size < self._offset:
            # Somebody is wrong, and nobody can say who before a hash does.
            self.doubtful = True
            self.suspects |= self._givers
            raise ConflictError(f"{donor} says that it has {size} bytes, others say more or less")

    def _count(self, donor: str, size: int, body: bytes) -> None:
        self._size = size
        self._givers.add(donor)
        self._hash.update(body)
        self._offset += len(body)
        self.received_bytes += len(body)
        self.on_progress(self._offset, size)

    def _finish(self, donor: str) -> None:
        if self._hash.hexdigest() == self.sha256:
            self._part.replace(self.target)
            return
        givers = self._givers
        self.discard()
        if givers <= {donor}:
            raise MisbehavedError(f"{donor} sent bytes that are not what the hash names")
        self.mixed = self.doubtful = True
        self.suspects |= givers
        raise ConflictError(
            f"the bytes that {', '.join(sorted(givers))} sent together are not what the hash names"
        )


@contextlib.asynccontextmanager
async def _patience(donor: str, patience_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(patience_s):
            yield
    except TimeoutError as error:
        raise UnreachableError(f"{donor} sent nothing for {patience_s:.0f} s") from error


def _size_in(frame: Frame, donor: str) -> int:
    try:
        return _SIZE.validate_python(frame.header.get("size"))
    except ValidationError as error:
        raise MisbehavedError(f"{donor} does not say how large the file is") from error


async def _digest(path: Path) -> "tuple[hashlib._Hash, int]":
    """Return the running SHA-256 of a file and its size, giving others their turn."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_SLICE_BYTES):
            digest.update(piece)
            size += len(piece)
            await asyncio.sleep(0)
    return digest, size
