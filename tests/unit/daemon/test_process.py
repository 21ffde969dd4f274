import asyncio
import os
import signal
import sys

import pytest

from peer.daemon.process import WorkerProcess

HANG = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR1, all_threads=True)
def where_it_hangs():
    print("hangs", flush=True)
    while True:
        signal.pause()
where_it_hangs()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_hung_worker_prints_where_it_hangs_before_it_is_killed(stopped):
    async def scenario():
        worker = await WorkerProcess.start((sys.executable, "-c", HANG))
        lines = worker.output()
        try:
            assert await anext(lines) == "hangs"
            if stopped:
                os.kill(worker.pid, signal.SIGSTOP)
            await worker.dump_and_kill()
            said = [line async for line in lines]
            return said, await worker.ended()
        finally:
            worker.kill()

    said, code = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert code == -signal.SIGKILL
    assert any("in where_it_hangs" in line for line in said), said
