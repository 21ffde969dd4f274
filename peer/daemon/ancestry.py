"""The checkpoints and verdicts on the disk, read beside the event loop when there are new ones.

They are read from the disk, not from events: so they are right before a worker has loaded, and
after one has died.
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peer.config.home import Home
from peer.errors import CtpeerError

if TYPE_CHECKING:
    from peer.validation.verdict import Verdict

_VERDICTS_SHOWN = 32
_UNREAD: tuple[object, ...] = ()


class Ancestry:
    """What lies in `home` of the run that a status is about."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._read_at = _UNREAD
        self._lineage: dict[str, Any] = {"checkpoints": [], "verdicts": [], "problem": None}
        self._reading = asyncio.Lock()

    async def of(self, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the checkpoints and verdicts as JSON has them, newest first."""
        saved, validation = status["checkpoint"], status["validation"]
        now = (
            status["run_id"],
            saved and (saved["root"], saved["epoch"]),
            validation and validation["round"],
            status["worker_pid"],
        )
        if now != self._read_at and not self._reading.locked():
            async with self._reading:
                self._lineage = await asyncio.to_thread(self._read, status["run_id"])
                self._read_at = now
        return self._lineage

    def _read(self, run_id: str) -> dict[str, Any]:
        # numpy loads with it: 13 MB that a supervisor without a page has no use for.
        from peer.checkpoint.card import facts_of
        from peer.checkpoint.lineage import stored
        from peer.checkpoint.shelf import Shelf
        from peer.run.directory import RunDirectory
        from peer.validation.archive import Archive

        found: dict[str, Any] = {"checkpoints": [], "verdicts": [], "problem": None}
        folder = self._home.run_path(run_id)
        if not folder.is_dir():
            return found  # a joiner that has fetched nothing yet
        try:
            run = RunDirectory.open(folder)
            found["checkpoints"] = [
                facts_of(entry)
                | {"bytes": entry.size_bytes, "fetched": entry.fetched, "problem": entry.problem}
                for entry in stored(Shelf(run.checkpoints_path), run.manifest_hash)
            ]
            newest = Archive(run.verdicts_path).newest_first()
            for verdict in itertools.islice(newest, _VERDICTS_SHOWN):
                found["verdicts"].append(_facts(verdict))
        except (CtpeerError, OSError) as error:
            found["problem"] = str(error)
        return found


def _facts(verdict: "Verdict") -> dict[str, Any]:
    """Return what one line of a table holds of `verdict`."""
    judgement = verdict.judgement
    return {
        "round": judgement.round,
        "epoch": judgement.epoch,
        "candidate": judgement.candidate,
        "decision": judgement.decision,
        "reason": judgement.reason,
        "signers": len(verdict.signers()),
        "called": len(judgement.called),
        "generation": judgement.after.generation,
        "last_good_root": judgement.after.last_good.state_root,
    }
