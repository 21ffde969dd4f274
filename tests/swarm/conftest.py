"""Entry points and sandboxes on loopback."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

SANDBOX = (sys.executable, "-m", "peer", "sandbox", "--json")


class EntryPoint:
    """`ctpeer-bootstrap` as a process of its own."""

    def __init__(self, folder, listen):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dht_bootstrap", "--json", "--metrics-port", "0"),
                *("--listen", listen, "--identity", str(folder / "entry.key")),
            ],
            stdout=subprocess.PIPE,
            stderr=(folder / "entry.log").open("ab"),
            text=True,
        )
        self.log_path = folder / "entry.log"
        line = self.process.stdout.readline()
        assert line, self.log_path.read_text()
        self.told = json.loads(line)
        self.addresses = tuple(self.told["addresses"])


@pytest.fixture(scope="module")
def start_entry_point(tmp_path_factory):
    """Start an entry point; it is killed in the end, and p2pd with it."""
    started = []

    def start(folder=None, listen="/ip4/127.0.0.1/tcp/0"):
        started.append(EntryPoint(folder or tmp_path_factory.mktemp("entry"), listen))
        return started[-1]

    yield start
    for entry in started:
        entry.process.kill()
        entry.process.wait(10)
        entry.process.stdout.close()


@pytest.fixture(scope="module")
def entry(start_entry_point):
    """Return an entry point that no test breaks."""
    return start_entry_point()


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Running:
    """A sandbox as a process, and all the processes that it was ever seen to have."""

    def __init__(self, folder, temporary, *arguments):
        self.process = subprocess.Popen(
            [*SANDBOX, "--home", str(folder / "homes"), *arguments],
            stdout=(folder / "stdout").open("wb"),
            stderr=(folder / "stderr").open("wb"),
            env=os.environ | {"TMPDIR": temporary},
        )
        self.homes_path = folder / "homes"
        self._folder = folder
        self._seen = set()

    def kinds(self):
        """Return the kinds of the processes that it has, and remember them."""
        kinds = set()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._seen.add(process)
            try:
                line = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            for kind in ("peer start", "peer.daemon.worker", "p2pd "):
                if kind in line:
                    kinds.add(kind.strip())
        return kinds

    def wait(self, timeout_s):
        """Wait for its end, and look for new processes meanwhile; return the exit code."""
        deadline_s = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, self.stderr
            self.kinds()
            time.sleep(0.2)
        return self.process.wait()

    def left(self):
        return [process for process in self._seen if lives(process)]

    @property
    def seen(self):
        return len(self._seen)

    @property
    def stderr(self):
        return (self._folder / "stderr").read_text()

    @property
    def report(self):
        return json.loads((self._folder / "stdout").read_text())

    def reap(self):
        if self.process.poll() is None:
            self.kinds()
            self.process.kill()
            self.process.wait(10)
        for process in self.left():
            process.kill()


@contextlib.contextmanager
def sandboxes(folder):
    started = []
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as temporary:  # sockets: a short path

        def start(*arguments):
            started.append(Running(folder, temporary, *arguments))
            return started[-1]

        try:
            yield start
        finally:
            for sandbox in started:
                sandbox.reap()


@pytest.fixture
def start_sandbox(tmp_path):
    with sandboxes(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_lasting_sandbox(tmp_path_factory):
    """Start one that several tests look at; its homes are in `homes` of its folder."""
    with sandboxes(tmp_path_factory.mktemp("sandbox")) as start:
        yield start
