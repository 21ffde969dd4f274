"""The log: a file in the home that does not grow for ever, and plain lines on a terminal."""

import logging
import logging.handlers
import sys
from pathlib import Path

_FILE_BYTES = 10 << 20
_FILES = 5
FORMAT = "%(asctime)s %(levelname)s %(message)s"


class PatientFileHandler(logging.handlers.RotatingFileHandler):
    """A rotating file that is let go of silently while the disk is full, and taken up again."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        """Drop `record` if the disk is the reason; the daemon is worth more than its log."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def set_up(path: Path, level: str, *, terminal: bool) -> None:
    """Send all log records to the file at `path`, and to stderr unless a `terminal` view runs."""
    formatter = logging.Formatter(FORMAT)
    handlers: list[logging.Handler] = [
        PatientFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES - 1, delay=True)
    ]
    if not terminal:
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    # One line a scrape would drown everything else.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
