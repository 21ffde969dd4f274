"""Asks a running daemon over its control socket. Loads nothing heavy: `status` must be quick."""

import contextlib
import http.client
import json
import socket
from typing import Any

from peer.config.home import Home
from peer.daemon import lock
from peer.errors import CtpeerError, NotRunningError

TIMEOUT_S = 5.0


def get_status(home: Home) -> dict[str, Any]:
    """Return the status of the daemon on `home`.

    Raises:
        NotRunningError: There is none.
        CtpeerError: It does not answer in time, or not with JSON.
    """
    return _ask(home, "GET", "/status", None)


def get_commits(home: Home) -> list[dict[str, Any]]:
    """Return the last certificates that the daemon on `home` took in, oldest first.

    Each is `{epoch, generation, loss_terms}`: the epoch that it led to, in which generation, and
    what every peer of the group brought.

    Raises:
        NotRunningError: There is none.
        CtpeerError: It does not answer in time, or not with JSON.
    """
    commits = _ask(home, "GET", "/commits", None).get("commits")
    if not isinstance(commits, list):
        raise CtpeerError(f"the daemon on the home {home.path} answers with something else")
    return commits


def command(home: Home, name: str, **fields: Any) -> dict[str, Any]:
    """Give the command `name` (pause, resume, finish, stop) and return the status after it.

    Raises:
        NotRunningError: There is no daemon on `home`.
        CtpeerError: It refuses, does not answer in time, or not with JSON.
    """
    return _ask(home, "POST", f"/{name}", json.dumps(fields))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(home: Home, method: str, target: str, body: str | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        home.socket_path.stat()  # a path that is too long for a socket is missing before that
        with contextlib.closing(_UnixConnection(str(home.socket_path))) as connection:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise _missing(home) from error
    except PermissionError as error:
        raise CtpeerError(
            f"the daemon on the home {home.path} belongs to somebody else; ask as that user or "
            "with sudo, or choose another --home"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CtpeerError(
            f"the daemon on the home {home.path} does not answer ({error or 'no words'}); if it "
            "stays so, end the process that its file `lock` names and start again"
        ) from error
    if not isinstance(answer, dict):
        raise CtpeerError(f"the daemon on the home {home.path} answers with something else")
    if "error" in answer:
        raise CtpeerError(str(answer["error"]))
    return answer


def _missing(home: Home) -> CtpeerError:
    """Return the error about a daemon that does not listen."""
    holder = lock.holder(home)
    if holder is not None:
        return CtpeerError(
            f"a daemon (process {holder}) holds the home {home.path} but does not listen: it is "
            f"just starting or ending, or its control.sock was deleted; `kill {holder}` ends it"
        )
    return NotRunningError(_not_running(home))


def last_status(home: Home) -> dict[str, Any] | None:
    """Return the status as the last daemon on `home` left it, or None."""
    try:
        status = json.loads(home.last_status_path.read_text())
        return status if isinstance(status, dict) else None
    except (OSError, ValueError):
        return None


def _not_running(home: Home) -> str:
    sentence = f"no daemon runs on the home {home.path}; `ctpeer start` starts one"
    last = last_status(home)
    if last is None or last.get("epoch") is None:
        return sentence
    return f"{sentence} (the last one stood at epoch {last['epoch']}: {last['reason']})"
