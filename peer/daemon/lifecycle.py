"""What the daemon is doing: the states, and the one table of how they follow each other."""

from enum import StrEnum

from peer.events import Phase


class State(StrEnum):
    """What a person is told."""

    STARTING = "starting"
    JOINING = "joining"
    TRAINING = "training"
    AVERAGING = "averaging"
    EVALUATING = "evaluating"
    PAUSED = "paused"
    FOLLOWING = "following"
    HOLDING = "holding"
    FINISHING = "finishing"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class Trigger(StrEnum):
    """What moves the daemon from one state to another."""

    BEGIN = "a worker was started"
    LOAD = "the worker loads"
    JOIN = "the worker gets what others have"
    TRAIN = "the worker trains"
    AVERAGE = "the worker averages"
    EVALUATE = "the worker evaluates"
    PAUSE = "the worker paused"
    FOLLOW = "the worker takes in what others train, and judges it"
    HOLD = "the last epoch is complete, and the worker serves others"
    FINISH = "somebody asked to finish, or the last epoch is complete"
    STOP = "somebody asked to stop"
    DIE = "the worker died and is started again"
    GIVE_UP = "the worker cannot run as configured"
    END = "the worker ended as it should"
    BREAK = "the supervisor itself failed"


TRIGGER_OF_PHASE = {
    Phase.IMPORTING: Trigger.LOAD,
    Phase.LOADING: Trigger.LOAD,
    Phase.JOINING: Trigger.JOIN,
    Phase.TRAINING: Trigger.TRAIN,
    Phase.AVERAGING: Trigger.AVERAGE,
    Phase.EVALUATING: Trigger.EVALUATE,
    Phase.PAUSED: Trigger.PAUSE,
    Phase.FOLLOWING: Trigger.FOLLOW,
    Phase.HOLDING: Trigger.HOLD,
    Phase.FINISHING: Trigger.FINISH,
}

_WORK = {
    Trigger.LOAD: State.STARTING,
    Trigger.JOIN: State.JOINING,
    Trigger.TRAIN: State.TRAINING,
    Trigger.AVERAGE: State.AVERAGING,
    Trigger.EVALUATE: State.EVALUATING,
    Trigger.PAUSE: State.PAUSED,
    Trigger.FOLLOW: State.FOLLOWING,
    Trigger.HOLD: State.HOLDING,
}
_ENDS = {
    Trigger.FINISH: State.FINISHING,
    Trigger.STOP: State.STOPPING,
    Trigger.DIE: State.RESTARTING,
    Trigger.GIVE_UP: State.FAILED,
    Trigger.END: State.STOPPED,
    Trigger.BREAK: State.FAILED,
}
_LAST_WORK = dict.fromkeys(_WORK, State.FINISHING)
_IGNORED_WORK = dict.fromkeys(_WORK, State.STOPPING)

TRANSITIONS: dict[State, dict[Trigger, State]] = {
    State.STARTING: _WORK | _ENDS,
    State.JOINING: _WORK | _ENDS,
    State.TRAINING: _WORK | _ENDS,
    State.AVERAGING: _WORK | _ENDS,
    State.EVALUATING: _WORK | _ENDS,
    State.PAUSED: _WORK | _ENDS,
    State.FOLLOWING: _WORK | _ENDS,
    State.HOLDING: _WORK | _ENDS,
    State.FINISHING: _LAST_WORK | _ENDS,
    State.STOPPING: _IGNORED_WORK
    | {
        Trigger.FINISH: State.STOPPING,
        Trigger.STOP: State.STOPPING,
        Trigger.DIE: State.STOPPED,
        Trigger.GIVE_UP: State.FAILED,
        Trigger.END: State.STOPPED,
        Trigger.BREAK: State.FAILED,
    },
    State.RESTARTING: {
        Trigger.BEGIN: State.STARTING,
        Trigger.FINISH: State.RESTARTING,
        Trigger.STOP: State.STOPPED,
        Trigger.END: State.STOPPED,
        Trigger.BREAK: State.FAILED,
    },
    State.FAILED: dict.fromkeys((Trigger.STOP, Trigger.END, Trigger.BREAK), State.FAILED),
    State.STOPPED: {
        Trigger.BEGIN: State.STARTING,
        Trigger.END: State.STOPPED,
        Trigger.BREAK: State.FAILED,
    },
}
"""State -> what happens -> next state. What is not here does not happen."""


def follow(state: State, trigger: Trigger) -> State:
    """Return the state after `trigger`.

    Raises:
        ValueError: The table has no such transition.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise ValueError(f"{state} does not follow {trigger.value!r}") from None


class Course:
    """Where the daemon is, and why.

    Attributes:
        state: Its state.
        reason: What led there, in words.
    """

    def __init__(self) -> None:
        self.state = State.RESTARTING
        self.reason = "starting"

    def follow(self, trigger: Trigger, reason: str) -> None:
        """Go where `trigger` leads.

        Raises:
            ValueError: The table has no such transition.
        """
        self.state, self.reason = follow(self.state, trigger), reason
