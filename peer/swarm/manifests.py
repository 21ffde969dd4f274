"""Getting a whole run by its id, with nothing but some peers to ask.

The run id holds the manifest's hash, and the manifest names everything else by hash: so whoever is
asked, what comes is what the founder made, or it is refused.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from peer.errors import ConfigurationError, DeclinedError, MisbehavedError, PeerError
from peer.run.canonical import run_id as run_id_of
from peer.run.directory import SIGNATURES, RunDirectory, write_atomically
from peer.run.manifest import Manifest, parse_manifest
from peer.run.signature import signers
from peer.swarm.download import FetchError, OnRefusal, Refusal, fetch_blob
from peer.swarm.wire import PROTOCOL, Transport, call, scoped

MANIFEST_TIMEOUT_S = 10.0
_MAX_MANIFEST_BYTES = 1 << 17
_MAX_CONFIG_BYTES = 1 << 20
_MAX_INDEX_BYTES = _MAX_TOKENIZER_BYTES = 64 << 20
_MAX_STATE_BYTES = 1 << 36
_MAX_LINE_CHARS = 1500

OnFile = Callable[[str, int, int], None]
"""Is told what is being fetched, the bytes of it that are here, and those there will be."""


@dataclasses.dataclass(frozen=True)
class ManifestAnswer:
    """What a donor answered.

    Attributes:
        text: The manifest as TOML.
        manifest: What `text` says.
        signatures: The founders' signatures, each of them good, or None.
    """

    text: str
    manifest: Manifest
    signatures: str | None


class _OtherVersionError(DeclinedError):
    """The manifest is for another version of ctpeer; the message is for the person."""


async def fetch_manifest(
    transport: Transport,
    run_id: str,
    donors: Sequence[str],
    timeout_s: float = MANIFEST_TIMEOUT_S,
    on_refusal: OnRefusal | None = None,
) -> ManifestAnswer:
    """Return the manifest of the run, from the first donor that has it.

    Args:
        transport: The way to the donors.
        run_id: The run.
        donors: Peer ids to ask in turn.
        timeout_s: How long each may take.
        on_refusal: Is told of every donor that failed.

    Raises:
        FetchError: No donor gave it.
        ConfigurationError: It is for another version of ctpeer, says a donor, and no other donor
            has it in this version's form.
    """
    refusals: list[Refusal] = []
    other: _OtherVersionError | None = None
    for donor in donors:
        try:
            answer = await _ask(transport, run_id, donor, timeout_s)
        except PeerError as error:
            refusals.append(Refusal.of(donor, error))
            if on_refusal is not None:
                on_refusal(refusals[-1])
            other = error if isinstance(error, _OtherVersionError) else other
        else:
            return answer
    if other is not None:
        raise ConfigurationError(str(other))
    raise FetchError(f"the manifest of {run_id}", refusals)


async def fetch_run(
    transport: Transport,
    run_id: str,
    donors: Sequence[str],
    runs_path: Path,
    on_progress: OnFile | None = None,
    on_refusal: OnRefusal | None = None,
) -> RunDirectory:
    """Fetch the run below `runs_path` and return it there.

    Its manifest is written last, so that a directory with one is whole; what is there already is
    not fetched again, nor is the half of a file.

    Args:
        transport: The way to the donors.
        run_id: The run.
        donors: Peer ids to ask in turn.
        runs_path: The home's folder of runs.
        on_progress: Is told of every frame.
        on_refusal: Is told of every donor that failed.

    Raises:
        FetchError: No donor gave a file, or the manifest.
        ConfigurationError: It is for another version of ctpeer, or cannot be written.
    """
    path = runs_path / run_id
    here = _here(path, run_id)
    signatures = None
    if here is None:
        answer = await fetch_manifest(transport, run_id, donors, on_refusal=on_refusal)
        here, signatures = RunDirectory(path, answer.manifest), answer.signatures
    for what, hash_, cap_bytes in _named_files(here):
        target = here.blob_path(hash_)
        progress = _told(on_progress, what)
        try:
            await fetch_blob(
                transport, run_id, hash_, cap_bytes, target, donors, progress, on_refusal
            )
        except FetchError as error:
            raise FetchError(f"{what} of {run_id}", error.refusals) from error
    return _write(here, signatures)


async def _ask(transport: Transport, run_id: str, donor: str, timeout_s: float) -> ManifestAnswer:
    frame = await call(
        transport,
        donor,
        scoped(run_id, "manifest"),
        {},
        timeout_s=timeout_s,
        max_body_bytes=_MAX_MANIFEST_BYTES,
    )
    try:
        text = frame.body.decode()
        # Parsing TOML takes time with the square of a key's length.
        if max(map(len, text.split("\n"))) > _MAX_LINE_CHARS:
            raise MisbehavedError(f"{donor} sent no manifest")
        manifest = parse_manifest(text, f"the manifest from {donor}")
        if (found := run_id_of(manifest)) != run_id:
            raise MisbehavedError(
                f"{donor} sent the manifest of {found}, whose hash is not the invite's"
            )
        match frame.header.get("signatures"):
            case None:
                return ManifestAnswer(text, manifest, None)
            case str(signatures):
                signers(manifest, signatures)
                return ManifestAnswer(text, manifest, signatures)
        raise MisbehavedError(f"{donor} sent signatures that are no text")
    except ConfigurationError as error:
        raise _other_version(text, run_id) or MisbehavedError(str(error)) from error
    except ValueError as error:
        raise MisbehavedError(f"{donor} sent no manifest") from error


def _other_version(text: str, run_id: str) -> _OtherVersionError | None:
    """Return what to say of a manifest that is for another version of ctpeer, if it is."""
    top, _, _ = text.partition("\n[")
    stated = dict(re.findall(r"^(protocol|schema_version) = ([0-9]{1,6})$", top, re.MULTILINE))
    for field, ours, verb in (("protocol", PROTOCOL, "speaks"), ("schema_version", 1, "has")):
        theirs = int(stated.get(field, ours))
        if theirs != ours:
            advice = "update ctpeer" if theirs > ours else "it takes an older ctpeer to join it"
            return _OtherVersionError(
                f"the run {run_id} {verb} {field.replace('_', ' ')} {theirs}, this ctpeer {ours}: "
                f"{advice}"
            )
    return None


def _here(path: Path, run_id: str) -> RunDirectory | None:
    """Return the run at `path` if its manifest is there already, as it should be."""
    try:
        run = RunDirectory.open(path)
    except ConfigurationError:
        return None
    return run if run.run_id == run_id else None


def _named_files(run: RunDirectory) -> list[tuple[str, str, int]]:
    """Return all that the manifest names: (what it is, hash, the most that it may weigh)."""
    caps = {
        run.manifest.model.config: _MAX_CONFIG_BYTES,
        run.manifest.data.index: _MAX_INDEX_BYTES,
        run.manifest.initial_state: _MAX_STATE_BYTES,
    }
    files = [(what, h, caps.get(h, _MAX_TOKENIZER_BYTES)) for what, h in run.blob_hashes()]
    return sorted(files, key=lambda file: file[2])


def _told(on_progress: OnFile | None, what: str) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, size: on_progress(what, done, size)


def _write(run: RunDirectory, signatures: str | None) -> RunDirectory:
    try:
        for _, hash_ in run.blob_hashes():
            with run.blob_path(hash_).open("rb") as file:
                os.fsync(file.fileno())
        if signatures is not None:
            write_atomically(run.path / SIGNATURES, signatures.encode())
        return RunDirectory.create(run.path, run.manifest)
    except OSError as error:
        raise ConfigurationError(
            f"the run cannot be written to {run.path}: {error.strerror or error}; make room "
            "there, or choose another --home"
        ) from error
