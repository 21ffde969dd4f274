"""What the daemon keeps on the disk for people: its last status, and the curves of the run.

What cannot be read is begun anew, and what cannot be written is said in the log and no more.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peer.observe.history import History

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 20


def save_status(path: Path, status: Mapping[str, Any]) -> None:
    """Keep `status` at `path`, as well as that can be done."""
    _write(path, json.dumps(status), "the last status was not kept")


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
    text = json.dumps(history.to_json(run_id), separators=(",", ":"))
    _write(path, text, "the curves were not kept")


def _write(path: Path, text: str, complaint: str) -> None:
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(text)
        fresh.replace(path)
    except OSError as error:
        log.warning("%s: %s", complaint, error)
