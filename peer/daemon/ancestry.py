"""The checkpoints and verdicts on the disk, read beside the event loop while somebody looks.

They are read from the disk, not from events: so they are right before a worker has loaded, and
after one has died. Nobody waits for the disk: what was read last is what is told.
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
_REFRESH_S = 15.0
"""Old ones are dropped, and annotations written, at moments that no event tells of."""


class Ancestry:
    """What lies in `home` of the run that a status is about."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lineage: dict[str, Any] = {"checkpoints": [], "verdicts": [], "problem": None}
        self._read_of: object = None
        self._read_s = 0.0
        self._reading: asyncio.Task[None] | None = None

    def of(self, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the checkpoints and verdicts as JSON has them, newest first."""
        saved, validation = status["checkpoint"], status["validation"]
        now = (
            status["run_id"],
            saved and (saved["root"], saved["epoch"]),
            validation and validation["round"],
            status["worker_pid"],
        )
        old = asyncio.get_running_loop().time() - self._read_s > _REFRESH_S
        if (old or now != self._read_of) and (self._reading is None or self._reading.done()):
            self._read_of = now
            self._reading = asyncio.create_task(self._refresh(status["run_id"]))
        return self._lineage

    async def _refresh(self, run_id: str) -> None:
        self._lineage = await asyncio.to_thread(self._read, run_id)
        self._read_s = asyncio.get_running_loop().time()

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
