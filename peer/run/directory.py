"""A run on the disk: the manifest, the blobs that it names by hash, and where its data lies.

- `run.toml`: the manifest
- `run.sig`: the founders' signatures
- `blobs/<hash>`: everything that the manifest names
- `sources.json`: folders on this machine that hold shards; local, never shared
- `shards/<hash>`: shards that came from other peers, or were unpacked for them
- `checkpoints/`: the states that training here wrote
- `verdicts/`: the verdicts that this peer holds to
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from peer.errors import ConfigurationError, DamagedError
from peer.run.canonical import manifest_hash, run_id
from peer.run.manifest import Manifest, dump_manifest, parse_manifest

MANIFEST, SIGNATURES = "run.toml", "run.sig"
_BLOBS, _SOURCES, _SHARDS = "blobs", "sources.json", "shards"
_CHECKPOINTS, _VERDICTS = "checkpoints", "verdicts"


class RunDirectory:
    """A directory that holds a run. Use `open` or `create`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.manifest_hash = manifest_hash(manifest)
        self.run_id = run_id(manifest)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Return the run at `path`, a run directory or the run.toml in one.

        Raises:
            ConfigurationError: There is none, or its manifest makes no sense.
        """
        file = path / MANIFEST if path.is_dir() else path
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"there is no run at {path}; give the path of a run.toml, "
                "or make one with `ctpeer run init`"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the manifest {file} cannot be read: {error}") from error
        return cls(file.parent, parse_manifest(text, str(file)))

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> "RunDirectory":
        """Write `manifest` into `path`, whose blobs are there already, and return the run."""
        write_atomically(path / MANIFEST, dump_manifest(manifest).encode())
        return cls(path, manifest)

    def blob_hashes(self) -> Iterator[tuple[str, str]]:
        """Yield what the manifest names by hash: (what it is, hash)."""
        yield "the model configuration", self.manifest.model.config
        yield "the initial state", self.manifest.initial_state
        yield "the data index", self.manifest.data.index
        for name, hash_ in self.manifest.tokenizer.files.items():
            yield f"the tokenizer's {name}", hash_

    @property
    def shards_path(self) -> Path:
        """Where shards from other peers are kept, each under its hash."""
        return self.path / _SHARDS

    @property
    def checkpoints_path(self) -> Path:
        """Where the checkpoints of a peer that trains the run are kept."""
        return self.path / _CHECKPOINTS

    @property
    def verdicts_path(self) -> Path:
        """Where the verdicts that a peer of the run holds to are kept."""
        return self.path / _VERDICTS

    def blob_path(self, hash_: str) -> Path:
        """Return where the blob `hash_` lies, or would lie."""
        return self.path / _BLOBS / hash_

    def find_blob(self, hash_: str) -> Path | None:
        """Return where the blob `hash_` lies, or None if the manifest does not name it.

        Whatever a stranger asks for, only what the manifest names is found.
        """
        named = any(hash_ == known for _, known in self.blob_hashes())
        path = self.blob_path(hash_)
        return path if named and path.is_file() else None

    def read_blob(self, hash_: str) -> bytes:
        """Return the bytes whose SHA-256 is `hash_`.

        Raises:
            DamagedError: They are missing or not what the hash names.
        """
        path = self.blob_path(hash_)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DamagedError(
                f"{path} is missing; copy the run's directory again from where you got it"
            ) from error
        if hashlib.sha256(data).hexdigest() != hash_:
            raise DamagedError(
                f"{path} was changed or cut short; copy it again from where you got the run"
            )
        return data

    def has_blob(self, hash_: str) -> bool:
        """Return whether the bytes whose SHA-256 is `hash_` are here, undamaged."""
        try:
            self.read_blob(hash_)
        except DamagedError:
            return False
        return True

    def signatures(self) -> str | None:
        """Return the text of the founders' signatures, or None where there are none.

        Raises:
            ConfigurationError: The file cannot be read as text.
        """
        path = self.path / SIGNATURES
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the signatures {path} cannot be read: {error}") from error

    @property
    def sources(self) -> tuple[Path, ...]:
        """Folders of this machine where shards of the run lie."""
        try:
            body = json.loads((self.path / _SOURCES).read_text(encoding="utf-8"))
            folders = TypeAdapter(list[Path]).validate_python(body["folders"])
            return tuple(folders)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigurationError(
                f"{self.path / _SOURCES} does not hold a list of folders; delete it and "
                "start again from the run's own directory"
            ) from error

    def set_sources(self, folders: tuple[Path, ...]) -> None:
        """Remember where shards lie."""
        body = json.dumps({"folders": [str(folder.resolve()) for folder in folders]})
        write_atomically(self.path / _SOURCES, body.encode())

    def import_into(self, runs: Path) -> "RunDirectory":
        """Copy this run, every blob verified, to its place below `runs` and return it there.

        Raises:
            ConfigurationError: A blob is damaged, or the copy cannot be written.
        """
        target = runs / self.run_id
        if target.resolve() == self.path.resolve():
            return self
        try:
            target.mkdir(parents=True, exist_ok=True)
            imported = RunDirectory(target, self.manifest)
            for _, hash_ in self.blob_hashes():
                if not imported.has_blob(hash_):
                    add_blob(target, self.read_blob(hash_))
            if (text := self.signatures()) is not None:
                write_atomically(target / SIGNATURES, text.encode())
            RunDirectory.create(target, self.manifest)
            folders = (*self.sources, *imported.sources)
            imported.set_sources(tuple(dict.fromkeys(folders)))
        except OSError as error:
            raise ConfigurationError(
                f"the run cannot be copied to {target}: {error.strerror or error}; "
                "make room there, or choose another --home"
            ) from error
        return imported


def add_blob(path: Path, data: bytes) -> str:
    """Keep `data` among the blobs of the run directory `path`; return its hash."""
    hash_ = hashlib.sha256(data).hexdigest()
    (path / _BLOBS).mkdir(parents=True, exist_ok=True)
    write_atomically(path / _BLOBS / hash_, data)
    return hash_


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, whole."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
