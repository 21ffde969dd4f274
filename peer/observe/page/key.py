"""The key of a peer's page: whoever can read the home may command the peer, and nobody else."""

import os
import re
import secrets
from pathlib import Path

from peer.errors import ConfigurationError

_BYTES = 24
_KEY = re.compile(r"[A-Za-z0-9_-]{32}")


def load_or_create_key(path: Path) -> str:
    """Return the key at `path`, made there if there is none; a page stays good over restarts.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        path.chmod(0o600)
        if _KEY.fullmatch(key := path.read_text()):
            return key
    except (OSError, ValueError):
        pass
    key = secrets.token_urlsafe(_BYTES)
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key)
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; free some space there, or choose another "
            "--home"
        ) from error
    return key
