"""Drives a sandbox: starts its peers, watches them, injects faults, ends everything.

It sees what anybody sees: the peers' control sockets. What it does to them it does from outside,
with signals. It decides nothing about the run.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from peer.config.home import Home
from peer.errors import CtpeerError, UsageError
from peer.sandbox.chronicle import Chronicle
from peer.sandbox.member import Life, Member
from peer.sandbox.outcome import Outcome, conclude
from peer.sandbox.plan import FOUNDER, Fault, Kind, Plan, inviter
from peer.sandbox.scenario import find_seat

_TICK_S = 0.1
_COMMITS_INTERVAL_S = 2.0
_FINISH_S = 60.0
_STOP_S = 35.0
_LEFT_S = 2.0
_SAY_EPOCH_S = 1.0
_VERDICT_S = 120.0
"""So long all wait at the last epoch for the verdict on it, or the one before that."""


class _EndedError(Exception):
    """There is a reason to end the sandbox before its end."""


class Sandbox:
    """Runs one plan.

    Args:
        plan: What to do.
        folder: Where the homes lie: `folder`/0, `folder`/1 and so on.
        scratch: Where the peers' temporary files go.
        manifest: The run to train.
        interrupts: Filled by signal handlers: at the first all end well, at the second at once.
        say: Takes a sentence now and then.
        show: Takes the peers again and again.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        scratch: Path,
        manifest: Path,
        interrupts: Sequence[str],
        say: Callable[[str], None],
        show: Callable[[Sequence[Member]], None],
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._scratch = scratch
        self._manifest = manifest
        self._interrupts = interrupts
        self._say = say
        self._show = show
        self._token = secrets.token_hex(8)
        self._members: list[Member] = []
        self._chronicle = Chronicle()
        self._problems: list[str] = []
        self._thaw_s: dict[int, float] = {}
        self._started_s = 0.0
        self._commits_due_s = self._said_s = 0.0
        self._held_s: float | None = None

    def run(self) -> Outcome:
        """Do all that is planned; whatever happens, no process is left.

        Raises:
            ConfigurationError: A home cannot be used.
            UsageError: The homes have been further than the plan goes.
        """
        self._started_s = time.monotonic()
        try:
            self._meet()
            self._train()
            self._finish()
        except _EndedError as error:
            self._problems.append(str(error))
            self._say(f"{error}; ending")
            self._ask_commits()
            self._stop()
        except CtpeerError:
            self._stop()
            raise
        finally:
            for member in self._members:
                self._problems += member.processes.kill()
        return conclude(
            [member.final() for member in self._members],
            self._chronicle,
            self._plan,
            self._now_s(),
            self._problems,
        )

    # ---- the three parts

    def _meet(self) -> None:
        """Start the peers, paused, and wait until each of them reaches all others."""
        self._start(FOUNDER, str(self._manifest), paused=True)
        for _ in self._ticks("waiting for the founder"):
            self._check_all_run()
            invite = self._members[FOUNDER].invite
            if invite is not None:
                break
        for index in range(1, self._plan.peers):
            self._start(index, invite, paused=True)
        others = self._plan.peers - 1
        for _ in self._ticks("waiting for the peers to meet"):
            self._check_all_run()
            if all(m.rests and m.reachable >= others for m in self._members):
                break
        generation, epoch = max(member.position for member in self._members)
        if epoch >= self._plan.max_epochs:
            raise UsageError(
                f"the homes in {self._folder} are at epoch {epoch} already; choose a larger "
                "--max-epochs, or another --home"
            )
        self._say(f"{self._plan.peers} peers have met after {self._now_s():.1f} s")
        self._chronicle = Chronicle(epoch, generation)
        for member in self._members:
            if member.position == (generation, epoch):
                self._chronicle.starts(member.index)
        for member in self._members:
            self._order(member, "resume")

    def _check_all_run(self) -> None:
        for member in self._members:
            if member.life is Life.ENDED:
                raise _EndedError(f"peer {member.index} is gone before the peers have met")

    def _train(self) -> None:
        """Watch, and inject what is due, until all live peers hold the last epoch."""
        due = list(self._plan.faults)
        for _ in self._ticks("training"):
            self._look()
            while due and due[0].epoch <= self._chronicle.epoch:
                self._inject(due.pop(0), due)
            self._kill_seat(due)
            for index in [i for i, at_s in self._thaw_s.items() if at_s <= self._now_s()]:
                self._thaw(self._members[index])
            if not due and not self._thaw_s and self._all_hold() and self._all_judged():
                return

    def _finish(self) -> None:
        """Let all live peers score the last epoch, save and leave."""
        self._say(f"all hold epoch {self._plan.max_epochs} after {self._now_s():.1f} s")
        live = [member for member in self._members if member.life is Life.RUNNING]
        for member in live:
            member.ask_commits()
        for member in live:
            self._order(member, "finish")
        self._wait(lambda: all(m.processes.exit_code() is not None for m in live), _FINISH_S)
        for member in live:
            code = member.processes.exit_code()
            if code is None:
                self._problems.append(f"peer {member.index} did not finish in {_FINISH_S:.0f} s")
            elif code != 0:
                self._problems.append(_ending(member, code))
            else:
                member.read_last_status()
                self._note_left(member)

    def _stop(self) -> None:
        """Let all peers save and leave, but not for long; those that never loaded just end."""
        for member in self._members:
            if member.epoch < 0:
                self._problems += member.processes.kill()
                continue
            if member.life is Life.FROZEN:
                member.processes.thaw()
            member.processes.terminate()
        gone = [m.processes.exit_code for m in self._members]
        self._wait(lambda: all(code() is not None for code in gone), _STOP_S)
        for member in self._members:
            if member.life in (Life.RUNNING, Life.FROZEN):
                member.read_last_status()

    # ---- each tick

    def _ticks(self, doing: str) -> Iterator[None]:
        """Ask all peers again and again, for as long as there is no reason to end.

        Raises:
            _EndedError: Time is up, somebody interrupts, or nobody is left.
        """
        while True:
            for member in self._members:
                self._note_end(member)
                member.ask()
            self._show(self._members)
            if self._interrupts:
                raise _EndedError(f"interrupted by {self._interrupts[0]} while {doing}")
            if self._now_s() > self._plan.timeout_s:
                raise _EndedError(f"{self._plan.timeout_s:.0f} s have passed while {doing}")
            if not any(m.life in (Life.RUNNING, Life.FROZEN) for m in self._members):
                raise _EndedError(f"nobody is left while {doing}")
            yield
            time.sleep(_TICK_S)

    def _look(self) -> None:
        """Take down where the swarm is, and who is at its epoch."""
        now_s = self._now_s()
        running = [member for member in self._members if member.life is Life.RUNNING]
        position = max((member.position for member in running), default=(0, -1))
        if position > self._chronicle.position:
            generation, epoch = position
            self._chronicle.saw(epoch, now_s, generation)
            self._say_epoch(running)
        for member in running:
            self._look_at_verdict(member)
            there = member.trains and member.position >= self._chronicle.position
            if there and not self._chronicle.is_live(member.index):
                self._chronicle.catches_up(member.index, now_s)
                member.note = f"caught up at epoch {member.epoch}"
                self._say(f"peer {member.index} has caught up with epoch {member.epoch}")
        if now_s >= self._commits_due_s:
            self._ask_commits()

    def _look_at_verdict(self, member: Member) -> None:
        """Take down the newest verdict that `member` knows, and the generation that it is in."""
        now_s, verdict = self._now_s(), member.last_verdict
        self._chronicle.saw_generation(member.index, member.position[0], now_s)
        if verdict is not None and self._chronicle.saw_verdict(verdict["round"], now_s):
            epoch, decision, reason = (verdict[name] for name in ("epoch", "decision", "reason"))
            self._say(f"verdict on epoch {epoch}: {decision}, {reason}")
            if self._held_s is not None:
                self._held_s = now_s

    def _ask_commits(self) -> None:
        self._commits_due_s = self._now_s() + _COMMITS_INTERVAL_S
        for member in self._members:
            member.ask_commits()

    def _say_epoch(self, running: Sequence[Member]) -> None:
        if self._now_s() - self._said_s < _SAY_EPOCH_S:
            return
        self._said_s = self._now_s()
        first = max(running, key=lambda member: member.position)
        assert first.status is not None
        loss = first.status["loss"]
        tail = "" if loss is None else f", loss {loss:.3f}"
        group = first.status["rounds"]["group"]
        self._say(f"epoch {first.epoch}: group of {group}{tail}")

    def _all_hold(self) -> bool:
        live = [member for member in self._members if member.life is Life.RUNNING]
        hold = bool(live) and all(member.holds(self._plan.max_epochs) for member in live)
        if not hold:
            self._held_s = None
        return hold

    def _all_judged(self) -> bool:
        """Return whether there is nothing to wait for: a verdict on the last epoch, or time is up.

        Called while all hold that epoch. They leave it again when its verdict is against it.
        """
        last = self._plan.max_epochs
        live = [member for member in self._members if member.life is Life.RUNNING]
        if not self._plan.ends_judged or all(member.has_judged(last) for member in live):
            return True
        if self._held_s is None:
            self._say(f"all hold epoch {last}; waiting for the verdict on it")
            self._held_s = self._now_s()
        if self._now_s() - self._held_s < _VERDICT_S:
            return False
        without = ", ".join(str(m.index) for m in live if not m.has_judged(last))
        self._problems.append(
            f"there was no verdict on epoch {last} in {_VERDICT_S:.0f} s at the peers {without}"
        )
        return True

    def _note_end(self, member: Member) -> None:
        """Take down if a peer ended though nobody asked it to."""
        if member.life is not Life.RUNNING or member.processes.exit_code() is None:
            return
        member.life = Life.ENDED
        self._chronicle.ends(member.index)
        member.note = _ending(member, member.processes.exit_code())
        self._problems.append(member.note)
        self._say(member.note)

    # ---- what is done to peers

    def _start(self, index: int, run: str | None, *, paused: bool) -> None:
        assert run is not None
        home = Home(self._folder / str(index))
        home.prepare()
        scenario = self._plan.scenario
        role = scenario.roles.get(index) if scenario is not None else None
        member = Member(index, home, f"{self._token}/{index}", role)
        self._members.append(member)
        member.start(run, self._plan.max_epochs, self._scratch, paused=paused)
        self._say(f"peer {index} starts as process {member.processes.pid}")

    def _order(self, member: Member, name: str) -> None:
        try:
            member.order(name)
        except CtpeerError as error:
            self._problems.append(f"peer {member.index} took no `{name}`: {error}")

    def _let_join(self, fault: Fault, coming: Sequence[Fault]) -> None:
        inviting = [m.index for m in self._members if m.life is Life.RUNNING and m.invite]
        if not inviting:
            raise _EndedError(f"no live peer could invite peer {fault.peer}")
        self._chronicle.inject(fault, self._now_s())
        self._start(fault.peer, self._members[inviter(inviting, coming)].invite, paused=False)
        self._members[fault.peer].note = f"joins at epoch {self._chronicle.epoch}"

    def _inject(self, fault: Fault, coming: Sequence[Fault]) -> None:
        """Do what `fault` says; `coming` are those after it."""
        if fault.kind is Kind.JOIN:
            self._let_join(fault, coming)
            return
        self._ask_commits()
        member = self._members[fault.peer]
        self._note_end(member)
        if member.life is Life.ENDED:
            return
        self._chronicle.inject(fault, self._now_s())
        if fault.kind is Kind.KILL:
            self._thaw_s.pop(fault.peer, None)
            self._problems += member.processes.kill()
            member.life = Life.KILLED
            member.note = f"killed at epoch {self._chronicle.epoch}"
        else:
            member.processes.freeze()
            member.life = Life.FROZEN
            self._thaw_s[fault.peer] = self._now_s() + fault.seconds
            member.note = f"frozen at epoch {self._chronicle.epoch} for {fault.seconds:g} s"
        self._say(f"peer {member.index}: {member.note}")

    def _kill_seat(self, coming: Sequence[Fault]) -> None:
        """Kill a validator in its seat, if the scenario wants that now."""
        scenario = self._plan.scenario
        if scenario is None or not scenario.kills:
            return
        judging = {
            member.index: member.judging
            for member in self._members
            if member.life is Life.RUNNING and member.index != FOUNDER
        }
        seat = find_seat(judging, self._chronicle.unseated, scenario.kills)
        if seat is not None:
            self._say(f"peer {seat.peer} is {seat.phase} epoch {seat.candidate_epoch}")
            self._chronicle.unseated.append(seat)
            self._inject(Fault(Kind.KILL, seat.peer, self._chronicle.epoch), coming)

    def _thaw(self, member: Member) -> None:
        del self._thaw_s[member.index]
        member.processes.thaw()
        member.life = Life.RUNNING
        member.note = f"thawed at epoch {self._chronicle.epoch}"
        self._chronicle.thaws(member.index, self._now_s())
        self._say(f"peer {member.index}: {member.note}")

    def _note_left(self, member: Member) -> None:
        """Take down which processes outlive the daemon's own end."""
        if not self._wait(lambda: not member.processes.left(), _LEFT_S):
            left = ", ".join(member.processes.left())
            self._problems.append(f"peer {member.index} left {left} behind")

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition` holds; return False after `timeout_s` or another interrupt."""
        deadline_s = time.monotonic() + timeout_s
        enough = len(self._interrupts) + 1
        while not condition():
            if time.monotonic() > deadline_s or len(self._interrupts) >= enough:
                return False
            time.sleep(_TICK_S)
        return True

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s


def _ending(member: Member, code: int | None) -> str:
    words = member.processes.last_words()
    return f"peer {member.index} ended by itself with code {code}" + (f": {words}" if words else "")
