"""`ctpeer start` with a worker that does what FAULT says; see faulty_worker.py."""

import sys
from pathlib import Path

from peer.cli.main import main
from peer.daemon.supervisor import Supervisor

WORKER = (sys.executable, str(Path(__file__).with_name("faulty_worker.py")))

Supervisor.__init__.__kwdefaults__["command"] = WORKER
main()
