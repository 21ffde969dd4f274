"""One peer of a sandbox: its processes, its home, and what it last said of itself."""

import contextlib
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from peer.config.home import Home
from peer.daemon.client import command, get_commits, get_status, last_status
from peer.errors import CtpeerError
from peer.sandbox import hostile
from peer.sandbox.chronicle import Commit, Position
from peer.sandbox.outcome import Final
from peer.sandbox.processes import PeerProcesses
from peer.sandbox.rulings import read_row

START_OPTIONS = (
    *("--plain", "--hold", "--threads", "1", "--metrics-port", "0", "--page-port", "0"),
    *("--listen", "/ip4/127.0.0.1/tcp/0"),
)

_SETTINGS = {"CTPEER_VALIDATION__LOOK_S": "0.5"}
"""Peers of one machine are close: they may look for each other's records more often than usual."""

_AT_WORK = {"training", "averaging", "evaluating", "following", "holding"}


class Life(StrEnum):
    """How a peer's processes are."""

    RUNNING = "running"
    FROZEN = "frozen"
    KILLED = "killed"
    ENDED = "ended"
    """By itself, which it should not."""


class Member:
    """A peer of a sandbox.

    Args:
        index: Its number; the founder's is 0.
        home: Its home, prepared.
        mark: Tells its processes from all others on the machine.
        role: What it does to its run, if it is hostile.
    """

    def __init__(self, index: int, home: Home, mark: str, role: str | None = None) -> None:
        self.index = index
        self.home = home
        self.life = Life.RUNNING
        self.status: dict[str, Any] | None = None
        self.peer_id: str | None = None
        self.note = f"hostile: {role}" if role else ""
        self._role = role
        output_path = home.log_path.parent / "output.log"
        if role is None:
            self.processes = PeerProcesses(mark, output_path)
        else:
            self.processes = PeerProcesses(mark, output_path, hostile.COMMAND)
        self._commits: dict[int, Commit] = {}

    def start(self, run: str, max_epochs: int, scratch: Path, *, paused: bool) -> None:
        """Start the daemon on `run`, a manifest's path or an invite."""
        rest = ("--home", str(self.home.path), "--max-epochs", str(max_epochs))
        pause = ("--paused",) if paused else ()
        variables = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
        if self._role is not None:
            variables[hostile.ROLE] = self._role
        self.processes.start(["start", run, *rest, *START_OPTIONS, *pause], scratch, variables)

    @property
    def answers(self) -> bool:
        """Whether it can be asked anything."""
        return self.life is Life.RUNNING and self.home.socket_path.exists()

    @property
    def epoch(self) -> int:
        """Its epoch as far as is known, -1 before it knows."""
        epoch = self.status.get("epoch") if self.status else None
        return -1 if epoch is None else int(epoch)

    @property
    def position(self) -> Position:
        """Its generation and epoch."""
        return (int(self.status["generation"]) if self.status else 0, self.epoch)

    @property
    def judging(self) -> Mapping[str, Any]:
        """What it says of validation; nothing before it knows, and where nothing is judged."""
        return (self.status.get("validation") if self.status else None) or {}

    @property
    def last_verdict(self) -> Mapping[str, Any] | None:
        """The newest verdict that it took in since it was started."""
        return self.judging.get("last_verdict")

    @property
    def state(self) -> str:
        """What its daemon does."""
        return str(self.status["state"]) if self.status else "starting"

    @property
    def doing(self) -> str:
        """What a person is told of it: its state, or what became of its processes."""
        return self.state if self.life is Life.RUNNING else self.life.value

    @property
    def rests(self) -> bool:
        """Whether it waits for `resume`, or has nothing left to do."""
        return self.state in {"paused", "holding"}

    @property
    def trains(self) -> bool:
        """Whether it is past its start, and all that it can do to be with the others."""
        return self.state in _AT_WORK

    @property
    def reachable(self) -> int:
        """How many other peers it reaches."""
        return int(self.status["peers"]["reachable"]) if self.status else 0

    @property
    def invite(self) -> str | None:
        """What others join with."""
        return self.status.get("invite") if self.status else None

    def holds(self, epoch: int) -> bool:
        """Return whether it has come to rest at `epoch`, its root known."""
        return (
            self.status is not None
            and self.state == "holding"
            and self.epoch == self.status["state_root_epoch"] == epoch
        )

    def has_judged(self, epoch: int) -> bool:
        """Return whether it holds to a verdict on `epoch` that lets it stay there."""
        verdict = self.last_verdict
        return (
            verdict is not None
            and verdict["epoch"] == epoch
            and verdict["generation"] == self.position[0]
            and verdict["decision"] != "reject"
        )

    def ask(self) -> None:
        """Ask for its status. One that does not answer just now keeps the last."""
        if self.answers:
            with contextlib.suppress(CtpeerError):
                self._take(get_status(self.home))

    def ask_commits(self) -> None:
        """Ask what it committed; a later word on an epoch replaces an earlier one."""
        if self.answers:
            with contextlib.suppress(CtpeerError):
                for commit in get_commits(self.home):
                    made = Commit(int(commit["generation"]), dict(commit["loss_terms"]))
                    self._commits[int(commit["epoch"])] = made

    def order(self, name: str) -> None:
        """Give it the command `name`.

        Raises:
            CtpeerError: It does not take it.
        """
        command(self.home, name)

    def read_last_status(self) -> None:
        """Take in the status that it left behind when it ended."""
        status = last_status(self.home)
        if status is not None and status.get("pid") == self.processes.pid:
            self._take(status)

    def final(self) -> Final:
        """Return it as the verdict wants it."""
        alive = self.life is Life.RUNNING
        run_id = self.status.get("run_id") if self.status else None
        row = read_row(self.home, run_id) if run_id else ()
        return Final(self.index, alive, self.status, self.peer_id, self._commits, row)

    def _take(self, status: dict[str, Any]) -> None:
        self.status = status
        self.peer_id = status.get("peer_id") or self.peer_id
