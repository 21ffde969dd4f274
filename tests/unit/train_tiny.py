"""Found a tiny run and train it on a home, with the code that `run init` and the worker run.

    python train_tiny.py HOME TEXTS EPOCHS[,EPOCHS...] [a flag of run init...]

Training starts anew for each number of epochs, and leaves a checkpoint there.
"""

import sys
from pathlib import Path

from peer.cli.main import main
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.assembly import assembled
from peer.daemon.orders import Orders
from peer.daemon.service import choose_run
from peer.events import Begin

home, texts, counts, *flags = sys.argv[1:]
founded = str(Path(home).parent / "poems")
init = ["run", "init", founded, "--home", home, "--data", texts]
main([*init, *flags], standalone_mode=False)
where = Home(Path(home))
chosen = choose_run(where, founded)
settings = Settings.model_validate(
    {"swarm": {"enabled": False}, "compute": {"threads": 1, "micro_batch": 4}}
)
for epochs in counts.split(","):
    begin = Begin(
        home=home,
        run_id=chosen.run_id,
        paused=None,
        max_epochs=int(epochs),
        hold=False,
        addresses=(),
        micro_batch_divisor=1,
        settings=settings.model_dump(mode="json"),
    )
    with assembled(begin, lambda _message: None) as loop:
        loop.run(Orders(), begin.max_epochs)
