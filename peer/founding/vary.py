"""A run like another one, but for some of its settings."""

from pathlib import Path
from typing import Any

from peer.identity import Identity
from peer.run.directory import SIGNATURES, RunDirectory, add_blob, write_atomically
from peer.run.signature import sign_manifest


def vary(source: RunDirectory, target: Path, founder: Identity, **sections: Any) -> RunDirectory:
    """Return the run at `target` that has all of `source`, but these sections and this founder.

    Args:
        source: The run to begin from; it is not changed.
        target: A directory that does not exist yet.
        founder: Who signs it.
        **sections: Sections of the manifest by name.

    Raises:
        ConfigurationError: A file that the run names is missing or damaged.
    """
    manifest = source.manifest.model_copy(update={"founders": (founder.peer_id,), **sections})
    target.mkdir(parents=True)
    for _, hash_ in source.blob_hashes():
        add_blob(target, source.read_blob(hash_))
    run = RunDirectory.create(target, manifest)
    write_atomically(target / SIGNATURES, sign_manifest(manifest, founder).encode())
    run.set_sources(source.sources)
    return run
