"""Keeps the curves of a run on the disk, so that they survive the daemon, too.

They are for people: what cannot be read is begun anew, and what cannot be written is said in the
log and no more.
"""

import json
import logging
from pathlib import Path

from peer.observe.history import History

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 20


def load_history(path: Path, run_id: str) -> History:
    """Return the history of the run `run_id` that is kept at `path`, or an empty one."""
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_LARGEST_BYTES))
        return History.from_json(body, run_id)
    except FileNotFoundError:
        return History()
    except (OSError, ValueError, RecursionError) as error:
        log.info("the curves begin anew: %s", error)
        return History()


def save_history(path: Path, run_id: str, history: History) -> None:
    """Keep `history` at `path`, as well as that can be done."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(history.to_json(run_id), separators=(",", ":")))
        fresh.replace(path)
    except OSError as error:
        log.warning("the curves were not kept: %s", error)
