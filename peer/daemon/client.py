"""Asks a running daemon over its control socket. Loads nothing heavy: `status` must be quick."""

import contextlib
import http.client
import json
import socket
from typing import Any

from peer.config.home import Home
from peer.errors import CtpeerError, NotRunningError

TIMEOUT_S = 5.0


def get_status(home: Home) -> dict[str, Any]:
    """Return the status of the daemon on `home`.

    Raises:
        NotRunningError: There is none.
        CtpeerError: It does not answer in time, or not with JSON.
    """
    return _ask(home, "GET", "/status", None)


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
        with contextlib.closing(_UnixConnection(str(home.socket_path))) as connection:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotRunningError(_not_running(home)) from error
    except PermissionError as error:
        raise CtpeerError(
            f"the daemon on the home {home.path} belongs to somebody else; ask as that user, "
            "or choose another --home"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CtpeerError(
            f"the daemon on the home {home.path} does not answer ({error or 'no words'}); if it "
            "stays so, end the process that its file `lock` names and start again"
        ) from error
    if not isinstance(answer, dict) or "error" in answer:
        raise CtpeerError(f"the daemon refuses: {answer}")
    return answer


def _not_running(home: Home) -> str:
    sentence = f"no daemon runs on the home {home.path}; `ctpeer start` starts one"
    try:
        last = json.loads(home.last_status_path.read_text())
        return f"{sentence} (the last one stood at epoch {last['epoch']}: {last['reason']})"
    except (OSError, ValueError, KeyError, TypeError):
        return sentence
