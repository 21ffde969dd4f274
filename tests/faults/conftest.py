"""Real daemons on homes of their own, ended with all their processes whatever happens."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from peer.config.home import Home
from peer.daemon.client import command, get_commits, get_status
from peer.data.demo import DEMO_PATH
from peer.data.index import parse_index
from peer.data.source import ShardSources
from peer.errors import CtpeerError

# Tests are no package: what several modules of them need is found beside this file.
sys.path.append(str(Path(__file__).parent))

CTPEER = (sys.executable, "-m", "peer")
QUICK = {
    "CTPEER_COMPUTE__THREADS": "1",
    "CTPEER_COMPUTE__DEVICE": "cpu",
    "CTPEER_CHECKPOINT__INTERVAL_S": "0.2",
    "CTPEER_METRICS__PORT": "0",
    "CTPEER_PAGE__PORT": "0",
    "CTPEER_SWARM__LISTEN": "/ip4/127.0.0.1/tcp/0",
    # What is tested with one daemon alone needs no others, and hivemind takes seconds to load.
    "CTPEER_SWARM__ENABLED": "false",
}
SWARM = {"CTPEER_SWARM__ENABLED": "true"}
FAULTY_START = (sys.executable, str(Path(__file__).with_name("faulty_start.py")))
START_TIMEOUT_S = 60.0


class Daemon:
    """`ctpeer start` on one home."""

    def __init__(self, home, environment):
        self.home = home
        self._environment = environment
        self._started = []
        self.process = None

    def run(self, *arguments, **environment):
        """Run a command to its end on this home."""
        return subprocess.run(
            [*CTPEER, *arguments],
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def start(self, *arguments, program=CTPEER, **environment):
        """Start the daemon; its output goes to a file beside the home."""
        with self.home.with_suffix(".out").open("ab") as out:
            self.process = subprocess.Popen(
                [*program, "start", *map(str, arguments)],
                env=self._environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._started.append(psutil.Process(self.process.pid))
        return self

    @property
    def output(self):
        return self.home.with_suffix(".out").read_text()

    def status(self):
        return json.loads(self.run("status", "--json").stdout)

    def wait_until(self, condition, timeout_s=START_TIMEOUT_S):
        """Ask for the status until `condition` holds for it; return that status."""
        deadline_s = time.monotonic() + timeout_s
        status = None
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None, self.output
            # Not by `ctpeer status`: asked so often it would take half a core from the daemons.
            with contextlib.suppress(CtpeerError):
                status = get_status(Home(self.home))
                self._remember(status)
                if condition(status):
                    return status
            time.sleep(0.05)
        raise AssertionError(f"it did not come to pass: {status}\n{self.output}")

    def commits(self):
        """Return the certificates that the daemon took in."""
        return get_commits(Home(self.home))

    def wait(self, timeout_s=START_TIMEOUT_S):
        """Wait for the daemon's own end; return its exit code."""
        return self.process.wait(timeout_s)

    def processes(self):
        """Return all processes of this daemon that live."""
        return [p for p in self._started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def wait_for_no_process(self, timeout_s=10.0):
        deadline_s = time.monotonic() + timeout_s
        while self.processes():
            assert time.monotonic() < deadline_s, self.processes()
            time.sleep(0.05)

    def kill_all(self):
        """SIGKILL every process of the daemon."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            self._remember_process(child)
        for process in self.processes():
            process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def _remember(self, status):
        if status["worker_pid"] is not None:
            try:
                worker = psutil.Process(status["worker_pid"])
                for process in (worker, *worker.children(recursive=True)):
                    self._remember_process(process)
            except psutil.NoSuchProcess:
                return

    def p2pd(self):
        """Return the p2pd of the present worker."""
        worker = psutil.Process(self.status()["worker_pid"])
        (found,) = [p for p in worker.children(recursive=True) if p.name() == "p2pd"]
        return found

    def _remember_process(self, process):
        if process not in self._started:
            self._started.append(process)

    def reap(self):
        if self.process is not None and self.process.poll() is None:
            self.kill_all()
        for process in self.processes():
            process.kill()


@contextlib.contextmanager
def daemons_in(folder, **more):
    """Give what makes daemons on homes in `folder`; all are reaped in the end.

    Args:
        folder: Where the homes go.
        more: Variables for all of them.
    """
    daemons = []

    def make(home=None, **environment):
        home = home or folder / f"home{len(daemons)}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment = kept | QUICK | more | {"CTPEER_HOME": str(home)} | environment
        daemons.append(Daemon(home, environment))
        return daemons[-1]

    try:
        yield make
    finally:
        for daemon in daemons:
            daemon.reap()


@pytest.fixture
def make_daemon(tmp_path, request):
    """Return a daemon on a new home, or on the one given; with a network in tests of the swarm."""
    more = SWARM if request.path.name.startswith("test_swarm") else {}
    with daemons_in(tmp_path, **more) as make:
        yield make


@pytest.fixture
def daemon(make_daemon):
    return make_daemon()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """Four small files of real text, not indexed."""
    folder = tmp_path_factory.mktemp("text") / "poems"
    folder.mkdir()
    index = parse_index((DEMO_PATH / "shakespeare" / "index.json").read_bytes(), "shakespeare")
    small = sorted(index.split("train"), key=lambda shard: shard.bytes)[:4]
    for shard in small:
        # Under names of their own: by the old ones they would be found among the demo data, too.
        (folder / f"my-{shard.name}").write_bytes(ShardSources(()).read(shard)[:20_000])
    return folder


@pytest.fixture(scope="session")
def tiny_run(text_folder, tmp_path_factory):
    """A run whose epochs take milliseconds."""
    return found_run(text_folder, tmp_path_factory.mktemp("run"), target_loss_terms=512)


@pytest.fixture(scope="session")
def swarm_run(text_folder, tmp_path_factory):
    """A run whose epochs take so long that a joiner can catch up with a peer that trains alone."""
    return found_run(text_folder, tmp_path_factory.mktemp("swarm"), target_loss_terms=8192)


@pytest.fixture(scope="session")
def make_run(text_folder, tmp_path_factory):
    """Return a run like `swarm_run` with more flags."""

    def make(*flags):
        return found_run(text_folder, tmp_path_factory.mktemp("swarm"), 8192, *flags)

    return make


def found_run(text_folder, folder, target_loss_terms, *more):
    environment = os.environ | {"CTPEER_HOME": str(folder / "founder")}
    flags = {
        "--data": text_folder,
        "--vocab-size": 300,
        "--layers": 1,
        "--hidden": 16,
        "--heads": 2,
        "--sequence-length": 16,
        "--target-loss-terms": target_loss_terms,
        "--evaluation-rows": 16,
        "--warmup-epochs": 5,
    }
    init = [str(part) for flag in flags.items() for part in flag]
    for arguments in (
        ["data", "index", str(text_folder)],
        ["run", "init", str(folder / "tiny"), *init, *more],
    ):
        subprocess.run(
            [*CTPEER, *arguments], env=environment, check=True, capture_output=True, timeout=100
        )
    return folder / "tiny"


class Swarm:
    """Daemons that train one run together, the first one its founder."""

    def __init__(self, daemons):
        self.daemons = daemons

    def statuses(self):
        return [daemon.status() for daemon in self.daemons]

    def commits(self):
        return [daemon.commits() for daemon in self.daemons]

    def wait_for_epoch(self, epoch, timeout_s=START_TIMEOUT_S):
        """Wait until every daemon is at `epoch` or beyond; return how long it took."""
        started_s = time.monotonic()
        for daemon in self.daemons:
            daemon.wait_until(lambda status: (status["epoch"] or 0) >= epoch, timeout_s)
        return time.monotonic() - started_s

    def hold_together(self, epoch):
        """Wait until every daemon holds `epoch`; return the one root that all must have."""
        for daemon in self.daemons:
            daemon.wait_until(
                lambda status: status["state"] == "holding" and status["state_root_epoch"] == epoch
            )
        roots = {status["state_root"] for status in self.statuses()}
        assert len(roots) == 1, roots
        return roots.pop()


def start_swarm(make, run, size, max_epochs=10**6, faults=None, environments=None, **environment):
    """Start daemons that know each other and begin to train at once.

    Args:
        make: Makes a daemon.
        run: The run.
        size: How many.
        max_epochs: Where they hold.
        faults: FAULT by index.
        environments: Variables by index.
        environment: Variables of all.
    """
    own = [(environments or {}).get(index, {}) for index in range(size)]
    daemons = [make(**environment, **more) for more in own]
    given = run
    for index, daemon in enumerate(daemons):
        fault = (faults or {}).get(index)
        flags = ["--paused", "--hold", "--max-epochs", max_epochs]
        if fault is None:
            daemon.start(given, *flags)
        else:
            daemon.start(given, *flags, program=FAULTY_START, FAULT=fault)
        status = daemon.wait_until(lambda s: s["invite"] and s["state"] == "paused")
        given = status["invite"]
    for daemon in daemons:
        daemon.wait_until(lambda s: s["peers"]["reachable"] == size - 1)
    for daemon in daemons:  # at once: the first one would be far ahead of a second process
        command(Home(daemon.home), "resume")
    return Swarm(daemons)


@pytest.fixture
def make_swarm(make_daemon, swarm_run):
    """Return what starts a swarm, by default on a run with epochs of a fraction of a second."""

    def make(size, max_epochs=10**6, run=swarm_run, **given):
        return start_swarm(make_daemon, run, size, max_epochs, **given)

    return make


@pytest.fixture(scope="module")
def make_lasting_swarm(tmp_path_factory, swarm_run):
    """Return what starts a swarm for all tests of a module."""
    with daemons_in(tmp_path_factory.mktemp("lasting"), **SWARM) as make_lasting:

        def make(size, **given):
            return start_swarm(make_lasting, swarm_run, size, **given)

        yield make
