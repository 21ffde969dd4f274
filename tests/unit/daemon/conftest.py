"""A supervisor over stand-in workers, one script for each start."""

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

from peer.clock import SystemClock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.supervisor import Supervisor

STAND_IN = Path(__file__).with_name("stand_in.py")


class Scripts:
    """A command that plays its n-th script the n-th time; the last one again and again."""

    def __init__(self, scripts):
        self._scripts = list(scripts)
        self.starts = 0

    def __iter__(self):
        script = self._scripts[min(self.starts, len(self._scripts) - 1)]
        self.starts += 1
        return iter((sys.executable, str(STAND_IN), json.dumps(script)))


class ScriptedSupervisor(Supervisor):
    """Starts stand-ins and counts them."""

    def __init__(self, home, scripts, settings):
        self._scripts = Scripts(scripts)
        clock = SystemClock()
        super().__init__(home, settings, "run", max_epochs=None, clock=clock, command=self._scripts)

    @property
    def starts(self):
        return self._scripts.starts


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def supervise(home):
    """Return a supervisor that starts a worker for each of `scripts`, one after the other."""

    def make(*scripts, **worker):
        settings = Settings.model_validate({"worker": worker})
        return ScriptedSupervisor(home, scripts, settings)

    return make


@pytest.fixture
def until():
    """Wait for a condition, at most ten seconds."""

    async def wait(condition):
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 nothing tells us
                await asyncio.sleep(0.01)

    return wait


class Listener:
    """The end of the socket that systemd holds."""

    def __init__(self, path):
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self):
        """Return what came since the last call."""
        words = []
        while True:
            try:
                words.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return words

    def close(self):
        self._socket.close()


@pytest.fixture
def listener(tmp_path):
    listener = Listener(tmp_path / "notify")
    yield listener
    listener.close()
