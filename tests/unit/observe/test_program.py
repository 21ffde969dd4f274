"""Programs that a signal ends, before and after they have something to end."""

import signal
import subprocess
import sys

import pytest

BEGINNING = """
import logging, time
from peer.observe.program import set_up
set_up("info")
logging.debug("a detail")
logging.info("it begins")
print("ready", flush=True)
time.sleep(60)
"""
SERVING = """
import asyncio
from peer.observe.program import set_up, stopped_by_signal
set_up("info")
async def serve():
    stop = stopped_by_signal()
    print("ready", flush=True)
    await stop.wait()
    print("all is put away", flush=True)
asyncio.run(serve())
"""


def told(program, number):
    """Return what `program` printed, and logged, and its exit code after a signal."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    return out, err, process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_that_has_nothing_to_end_yet(number):
    out, err, code = told(BEGINNING, number)
    assert (out, code) == ("", 0)
    assert err.endswith(" INFO it begins\n")
    assert "a detail" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_program_that_serves_put_all_away(number):
    assert told(SERVING, number) == ("all is put away\n", "", 0)


def test_an_abort_says_where_the_program_stood():
    _, err, code = told(BEGINNING, signal.SIGABRT)
    assert code == -signal.SIGABRT
    assert "Current thread" in err
