"""Whether the daemon lives: what its worker last said of the DHT, of training and of its rests.

`judge` is pure. It decides what the supervisor does about a worker that hangs, and whether a
service manager's watchdog is told that all is well.
"""

import dataclasses
from collections import deque
from enum import Enum, auto

from peer.daemon.lifecycle import State
from peer.events import (
    BranchLeft,
    CheckpointWritten,
    Evaluated,
    Heartbeat,
    LimitFelt,
    LogLine,
    Message,
    PartRefused,
    PeerMisbehaved,
    PeersSeen,
    Phase,
    PhaseChanged,
    Progress,
    RolledBack,
    RoundCommitted,
    RoundFailed,
    ShardTokenised,
    ValidationMoved,
    VerdictAdopted,
)

_STARTING = {State.STARTING, State.RESTARTING}
_ENDED = {State.STOPPED, State.FAILED}
_SCORING = {Phase.EVALUATING, Phase.FOLLOWING}
_RESTS = {Phase.PAUSED, Phase.HOLDING, Phase.FOLLOWING}
"""Phases in which a worker does as it should while it makes no tokens, and says so each second."""
_BESIDE_TRAINING = (
    LimitFelt,
    LogLine,
    PartRefused,
    PeerMisbehaved,
    PeersSeen,
    ShardTokenised,
    ValidationMoved,
    VerdictAdopted,
)
"""What comes from other threads, and goes on while the training thread hangs."""
_ACHIEVEMENTS = (
    BranchLeft,
    CheckpointWritten,
    Evaluated,
    RolledBack,
    RoundCommitted,
    RoundFailed,
    ShardTokenised,
)
"""A round that failed has come to its end, too; the next one is another attempt."""
_STEPS: dict[Phase, tuple[type[Message], ...]] = {
    Phase.JOINING: (BranchLeft, RolledBack, RoundCommitted),
    Phase.TRAINING: (Progress,),
    Phase.AVERAGING: (RoundCommitted,),
    Phase.EVALUATING: (Evaluated, Heartbeat),
    Phase.FOLLOWING: (BranchLeft, RolledBack, RoundCommitted),
}
"""Phases whose steps may be long and say nothing meanwhile, such as a micro-batch or an outer step,
and what a worker says when it has come through one."""
_MARGIN = 3.0
"""A step may take so many times as long as the longest one so far."""
_STATEMENTS_KEPT = 8
_MOVED_BYTES = 1 << 20
"""So many bytes to and from others are progress; signs of life alone take long to come to that."""


class Pulse(Enum):
    """What is to be done."""

    ALIVE = auto()
    """Nothing."""
    HUNG = auto()
    """Print where the worker hangs, kill it, and start another."""
    LOST = auto()
    """Say nothing to the watchdog any more: new workers do not help."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signs:
    """How long ago things happened, in seconds.

    Attributes:
        state: What the daemon does.
        silent_s: Since the worker's last word.
        still_s: Since the last word from its training thread.
        idle_s: Since something got done or a rest was stated, or since the worker's start.
        futile_s: The same, but since the first start of a worker after that.
        dht_silent_s: Since its network last said who is there; None if it has not joined, or does
            without a network.
        step_s: The longest that its training thread said nothing while it did what it does now;
            None before it came through a step of that.
    """

    state: State
    silent_s: float
    still_s: float
    idle_s: float
    futile_s: float
    dht_silent_s: float | None
    step_s: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for each of the signs, in seconds.

    Attributes:
        silence_s: For a word of the worker at work; longer if its steps are.
        still_s: For a word of its training thread; longer if its steps are.
        start_s: Until a worker gets to work, and for its first step of each kind.
        stop_s: For a word of a worker that was told to stop; a checkpoint under way speaks.
        idle_s: Until something gets done. No step may take longer.
        dht_s: For a word of the DHT.
    """

    silence_s: float
    still_s: float
    start_s: float
    stop_s: float = 5.0
    idle_s: float = 1800.0
    dht_s: float = 60.0


def judge(signs: Signs, patience: Patience) -> tuple[Pulse, str]:
    """Return what is to be done, and why in words."""
    state = signs.state
    if state in _ENDED:
        return Pulse.ALIVE, "it has ended"
    if (what := _fault(signs, patience)) is not None:
        return Pulse.HUNG, what
    if state in _STARTING and signs.futile_s > patience.start_s:
        return Pulse.LOST, f"no worker got to work for {patience.start_s:.0f} s"
    return Pulse.ALIVE, f"it is {state}, and that goes on"


def silence_limit_s(signs: Signs, patience: Patience) -> float:
    """Return how long the worker may say nothing at present, in seconds."""
    if signs.state is State.STARTING:
        return patience.start_s
    if signs.state is not State.STOPPING:
        return _stretched(patience.silence_s, signs, patience)
    # It need not come through a step that nobody knows the length of.
    return patience.stop_s if signs.step_s is None else _stretched(patience.stop_s, signs, patience)


def _stretched(limit_s: float, signs: Signs, patience: Patience) -> float:
    """Return `limit_s`, or what a step of the worker needs if that is more."""
    if signs.step_s is None:
        return max(limit_s, patience.start_s)
    return max(limit_s, min(_MARGIN * signs.step_s, patience.idle_s))


def _fault(signs: Signs, patience: Patience) -> str | None:
    """Return what is wrong with the worker that runs, or None."""
    if signs.state is State.RESTARTING:
        return None  # there is none
    waits = [("the worker said nothing", signs.silent_s, silence_limit_s(signs, patience))]
    if signs.state not in (State.STARTING, State.STOPPING):
        still_s = _stretched(patience.still_s, signs, patience)
        waits += [
            ("the worker's DHT gave no sign of life", signs.dht_silent_s or 0.0, patience.dht_s),
            ("the worker's training stood still", signs.still_s, still_s),
            ("the worker got nothing done", signs.idle_s, patience.idle_s),
        ]
    overdue = (f"{what} for {limit_s:.0f} s" for what, age_s, limit_s in waits if age_s > limit_s)
    return next(overdue, None)


class Vitals:
    """Notes when the worker last said what, and how long its steps take."""

    def __init__(self, now_s: float) -> None:
        self._heard_s = self._stirred_s = self._achieved_s = now_s
        self._began_s = self._first_began_s = now_s
        self._dht_s: float | None = None
        self._said: deque[tuple[Phase, str]] = deque(maxlen=_STATEMENTS_KEPT)
        self._moved_bytes = 0
        self._phase = Phase.IMPORTING
        self._longest_s: dict[Phase, float] = {}
        self._came_through: set[Phase] = set()

    def begin(self, now_s: float) -> None:
        """Note that a worker was started."""
        if self._achieved_s > self._began_s:
            self._first_began_s = now_s
        self._began_s = now_s
        self._heard_s = self._stirred_s = now_s
        self._dht_s = None
        self._phase = Phase.IMPORTING
        self._longest_s, self._came_through = {}, set()

    def sleep(self, seconds: float, now_s: float) -> None:
        """Note that nobody ran for so long until `now_s`, this process included.

        It counts for nobody. What the worker said just before may have been heard after it, and
        taken for the end of a step as long as that.
        """

        def later(at_s: float) -> float:
            return min(now_s, at_s + seconds)

        self._heard_s, self._stirred_s = later(self._heard_s), later(self._stirred_s)
        self._achieved_s = later(self._achieved_s)
        self._began_s, self._first_began_s = later(self._began_s), later(self._first_began_s)
        if self._dht_s is not None:
            self._dht_s = later(self._dht_s)
        self._longest_s = {
            phase: step_s - seconds if step_s >= seconds else step_s
            for phase, step_s in self._longest_s.items()
        }

    def hear(self, now_s: float) -> None:
        """Note a word that made no sense."""
        self._heard_s = now_s

    def take(self, message: Message, now_s: float) -> None:
        """Note a message."""
        self._heard_s = now_s
        if isinstance(message, PeersSeen):
            self._dht_s = now_s
        if not isinstance(message, _BESIDE_TRAINING):
            self._stir(message, now_s)
        if self._is_achievement(message):
            self._achieved_s = now_s
        if isinstance(message, PhaseChanged):
            self._phase = message.phase

    def signs(self, state: State, now_s: float) -> Signs:
        """Return how long ago everything was."""
        return Signs(
            state=state,
            silent_s=now_s - self._heard_s,
            still_s=now_s - self._stirred_s,
            idle_s=now_s - max(self._achieved_s, self._began_s),
            futile_s=now_s - max(self._achieved_s, self._first_began_s),
            dht_silent_s=None if self._dht_s is None else now_s - self._dht_s,
            step_s=self._step_s(),
        )

    def _stir(self, message: Message, now_s: float) -> None:
        """Note a word of the training thread: what it was silent for has come to its end."""
        phase, still_s = self._phase, now_s - self._stirred_s
        self._longest_s[phase] = max(self._longest_s.get(phase, 0.0), still_s)
        self._stirred_s = now_s
        if isinstance(message, _STEPS.get(phase, ())):
            self._came_through.add(phase)

    def _step_s(self) -> float | None:
        """Return the longest step of the present phase so far; 0.0 if its steps are all short."""
        if self._phase not in _STEPS:
            return 0.0
        return self._longest_s[self._phase] if self._phase in self._came_through else None

    def _is_achievement(self, message: Message) -> bool:
        match message:
            case PhaseChanged():
                return self._is_news(message)
            case Progress():
                return message.tokens > 0
            case Heartbeat():  # elsewhere it only says that a wait has an end
                return self._phase in _SCORING
            case PeersSeen():
                return self._moved(message.received_bytes + message.sent_bytes)
        return isinstance(message, _ACHIEVEMENTS)

    def _is_news(self, change: PhaseChanged) -> bool:
        """Return whether a phase is a rest, or was stated with words that are new.

        A worker that says the same few things by turns goes in a circle.
        """
        statement = (change.phase, change.reason)
        fresh = statement not in self._said
        if fresh:
            self._said.append(statement)
        loads = change.phase in (Phase.IMPORTING, Phase.LOADING)
        return change.phase in _RESTS or (fresh and not loads)

    def _moved(self, moved_bytes: int) -> bool:
        self._moved_bytes += moved_bytes
        enough = self._moved_bytes >= _MOVED_BYTES
        if enough:
            self._moved_bytes = 0
        return enough
