"""A real worker that kills its whole peer at one moment: FAULT=phase:epoch, such as transfer:5.

Phases are those that a round goes through: matchmaking, transfer, vote, certified.
"""

import logging
import os
import signal
import sys

from peer.daemon import worker
from peer.training.averaging import Averager

phase, _, epoch = os.environ["FAULT"].partition(":")
plain_init = Averager.__init__


def faulty_init(self, *arguments, **named):
    def hook(entered):
        if (entered, self._muster.standing.epoch) == (phase, int(epoch)):
            os.kill(os.getppid(), signal.SIGKILL)
            os.killpg(0, signal.SIGKILL)

    plain_init(self, *arguments, **named, hook=hook)


Averager.__init__ = faulty_init
code = worker.main()
logging.shutdown()
sys.stdout.flush()
os._exit(code)
