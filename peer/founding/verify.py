"""Whether a run is whole: signatures, every file against its hash, and that all parts fit."""

import json
from collections.abc import Iterator

from peer.data.index import parse_index
from peer.data.source import ShardSources
from peer.errors import ConfigurationError, DamagedError
from peer.run.directory import RunDirectory
from peer.run.signature import signers_of
from peer.tasks import registry
from peer.training.state import check_initial_state


def problems_of(opened: RunDirectory) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong; what depends on it is not looked at."""
    try:
        missing = set(opened.manifest.founders) - set(signers_of(opened))
    except ConfigurationError as error:
        yield str(error)
    else:
        for founder in sorted(missing):
            yield f"the founder {founder} has not signed it; ask for run.sig"
    damaged = False
    for what, hash_ in opened.blob_hashes():
        try:
            opened.read_blob(hash_)
        except DamagedError as error:
            damaged = True
            yield f"{what}: {error}"
    if not damaged:
        yield from _misfits(opened)


def _misfits(opened: RunDirectory) -> Iterator[str]:
    manifest = opened.manifest
    files = {name: opened.read_blob(hash_) for name, hash_ in manifest.tokenizer.files.items()}
    try:
        task = registry.create(manifest.task, files)
        config = json.loads(opened.read_blob(manifest.model.config))
        task.check_model(config)
        check_initial_state(opened.read_blob(manifest.initial_state), task.build_model(config))
        index = parse_index(opened.read_blob(manifest.data.index), "the data index")
    except (ConfigurationError, ValueError) as error:
        yield str(error)
        return
    sources = ShardSources(opened.sources)
    for shard in index.shards:
        try:
            sources.read(shard)
        except DamagedError as error:
            yield str(error)
