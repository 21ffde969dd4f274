"""Standing back behind other programs: how the worker asks the kernel to be treated."""

import contextlib
import os
from typing import Any


def stand_back(limits: dict[str, Any]) -> None:
    """Lower this thread's priority as the section `limits` of the settings asks for.

    Threads and processes that it starts later inherit it. It is never raised, so that whoever
    started us more politely is obeyed (setpriority(2), sched(7)).

    Args:
        limits: `LimitSettings` as JSON has them: `nice` and `batch` count here.
    """
    with contextlib.suppress(OSError):
        nice = max(os.getpriority(os.PRIO_PROCESS, 0), limits["nice"])
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    with contextlib.suppress(OSError):
        if limits["batch"] and os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
