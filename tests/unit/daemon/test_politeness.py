"""The worker stands back behind other programs, and never more forward than it was started."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, subprocess, sys, threading
from peer.daemon.politeness import stand_back
os.setpriority(os.PRIO_PROCESS, 0, int(sys.argv[1]))
if sys.argv[3] == "idle":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
stand_back(json.loads(sys.argv[2]))
seen = []
def look():
    seen.append((os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)))
thread = threading.Thread(target=look)
thread.start(); thread.join()
print(json.dumps(seen[0]))
"""
OTHER, BATCH, IDLE = 0, 3, 5


@pytest.mark.parametrize(
    ("before", "limits", "policy", "expected"),
    [
        (0, {"nice": 10, "batch": True}, "", [10, BATCH]),
        (0, {"nice": 0, "batch": False}, "", [0, OTHER]),
        (15, {"nice": 10, "batch": True}, "", [15, BATCH]),
        (0, {"nice": 10, "batch": True}, "idle", [10, IDLE]),
    ],
)
def test_threads_that_start_later_have_the_priority(before, limits, policy, expected):
    command = ["chrt", "-o", "0", sys.executable, "-c", SCRIPT]
    command += [str(before), json.dumps(limits), policy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if before == 0 and done.returncode and "PermissionError" in done.stderr:
        pytest.skip("this process was niced and may not undo that")
    assert json.loads(done.stdout) == expected
