"""The verdicts that a peer holds to, on its disk: a file each, and a file that names the last one.

    <round>-<hash>.json   a verdict, in the form in which it travels
    tip                   the hash of the last judgement

What is read is hashed again; whoever holds to it judges it again. A verdict that cannot be read
ends the chain there: the others have it, too.
"""

import itertools
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from peer.errors import DamagedError, MisbehavedError
from peer.run.directory import write_atomically
from peer.validation.verdict import MAX_VERDICT_BYTES, Verdict

log = logging.getLogger(__name__)

_TIP = "tip"
_HASH = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[0-9]{9,10}-([0-9a-f]{64})\.json")


class Archive:
    """The verdicts below `folder`, which need not be there; the daemon alone writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, verdict: Verdict) -> None:
        """Write `verdict`, and let the chain end with it.

        Raises:
            OSError: The disk is full or fails.
        """
        judgement = verdict.judgement
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{judgement.round:09d}-{judgement.hash}.json"
        write_atomically(self.folder / name, verdict.to_bytes())
        write_atomically(self.folder / _TIP, judgement.hash.encode())

    def get(self, name: str) -> Verdict | None:
        """Return the verdict with the judgement of that hash, its signatures yet to be checked."""
        path = self._files().get(name)
        if path is None:
            return None
        try:
            return _read(path, name)
        except DamagedError as error:
            log.warning("%s", error)
            return None

    def newest_first(self) -> Iterator[Verdict]:
        """Yield the verdicts that lead to the last one, as far back as they are here.

        Raises:
            DamagedError: A file is in the way that cannot be read.
        """
        name = self._last()
        if name is None:
            return
        files = self._files()
        if name not in files:
            raise DamagedError(f"{self.folder / _TIP} names a verdict that is not here; delete it")
        while (path := files.get(name)) is not None:
            verdict = _read(path, name)
            yield verdict
            name = verdict.judgement.previous

    def chain(self, newest: int | None = None) -> list[Verdict]:
        """Return the verdicts that lead to the last one, oldest first, as far as they are here.

        Args:
            newest: How many at most; the older ones are not read. None: all of them.
        """
        found: list[Verdict] = []
        try:
            found.extend(itertools.islice(self.newest_first(), newest))
        except DamagedError as error:
            log.warning("%s", error)
        return found[::-1]

    def _last(self) -> str | None:
        path = self.folder / _TIP
        try:
            name = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DamagedError(f"{path} cannot be read: {error}; delete it") from error
        if not _HASH.fullmatch(name):
            raise DamagedError(f"{path} names no verdict; delete it")
        return name

    def _files(self) -> dict[str, Path]:
        """Return where each verdict lies, by the hash of its judgement."""
        try:
            paths = list(self.folder.iterdir())
        except OSError:
            return {}
        named = ((_FILE.fullmatch(path.name), path) for path in paths)
        return {match[1]: path for match, path in named if match is not None}


def _read(path: Path, name: str) -> Verdict:
    try:
        with path.open("rb") as file:
            verdict = Verdict.from_bytes(file.read(MAX_VERDICT_BYTES + 1))
    except (OSError, MisbehavedError) as error:
        raise DamagedError(f"the verdict in {path} cannot be read; delete it") from error
    if verdict.judgement.hash != name:
        raise DamagedError(f"{path} holds another verdict than its name says; delete it")
    return verdict
