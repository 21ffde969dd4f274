"""Stands in for `ctpeer start` in a sandbox's tests: a swarm that trains by the clock alone.

Beside the homes lies `began`, written at the first `resume`; an epoch takes EPOCH_S from then.
`INDEX.json` beside them says how a peer misbehaves: `first` is its epoch at the start, `dies_at`
the epoch at which it ends by itself, `root` its root, `absent` the epochs whose commits are
without it, `deaf` that it reaches nobody, `judged_s` how long after the last epoch it holds to a
verdict on it.
"""

import argparse
import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import time
from pathlib import Path

EPOCH_S = 0.15


class Peer:
    """What a peer is at any moment."""

    def __init__(self, home, max_epochs, paused):
        self.home, self.max_epochs, self.paused = home, max_epochs, paused
        self.index = int(home.name)
        self.began_path = home.parent / "began"
        self.faults = self.faults_of(self.index)

    def faults_of(self, index):
        path = self.home.parent / f"{index}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def epoch(self):
        first = self.faults.get("first", 0)
        if self.paused or not self.began_path.exists():
            return first
        return min(self.max_epochs, first + int(self.gone_s / EPOCH_S))

    @property
    def gone_s(self):
        return time.time() - float(self.began_path.read_text() or time.time())

    @property
    def validation(self):
        judged_s = self.faults.get("judged_s", float("inf")) + self.max_epochs * EPOCH_S
        if not self.began_path.exists() or self.gone_s < judged_s:
            return {"last_verdict": None}
        verdict = {"round": 1, "epoch": self.max_epochs, "generation": 0, "reason": "why not"}
        return {"last_verdict": verdict | {"decision": "accept"}}

    def status(self):
        epoch = self.epoch
        if epoch >= self.faults.get("dies_at", epoch + 1):
            os.write(2, b"ctpeer: the disk is full; free some space\n")
            os._exit(5)
        others = len(list(self.home.parent.glob("*/control.sock"))) - 1
        doing = "holding" if epoch == self.max_epochs else "training"
        return {
            "pid": os.getpid(),
            "state": "paused" if self.paused and doing != "holding" else doing,
            "peer_id": f"id{self.index}",
            "invite": f"invite of {self.index}",
            "peers": {"reachable": 0 if self.faults.get("deaf") else others},
            "epoch": epoch,
            "generation": 0,
            "validation": self.validation,
            "state_root": self.faults.get("root", f"root of {epoch}"),
            "state_root_epoch": epoch,
            "loss": 3.5,
            "heldout": {"value": 2.5},
            "rounds": {"group": others + 1, "failed_by_reason": {}},
            "restarts_by_reason": {},
            "epochs_lost_in_branches": 0,
        }

    def commits(self):
        indices = [int(path.parent.name) for path in self.home.parent.glob("*/lock")]
        return [
            {
                "epoch": epoch,
                "generation": 0,
                "loss_terms": {
                    f"id{i}": 1024
                    for i in indices
                    if epoch not in self.faults_of(i).get("absent", [])
                },
            }
            for epoch in range(1, self.epoch + 1)
        ]

    def resume(self):
        self.paused = False
        if not self.began_path.exists():
            self.began_path.write_text(str(time.time()))

    def leave(self):
        (self.home / "last_status.json").write_text(json.dumps(self.status() | {"left": True}))
        os._exit(0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the control socket does."""

    def address_string(self):
        return "unix"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        peer = self.server.peer
        self.answer(peer.status() if self.path == "/status" else {"commits": peer.commits()})

    def do_POST(self):
        peer = self.server.peer
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/resume":
            peer.resume()
        self.answer(peer.status())
        if self.path == "/finish":
            threading.Thread(target=peer.leave).start()

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("run")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--max-epochs", type=int)
    parser.add_argument("--paused", action="store_true")
    given, _ = parser.parse_known_args()
    (given.home / "run").write_text(given.run)
    (given.home / "lock").touch()
    peer = Peer(given.home, given.max_epochs, given.paused)
    signal.signal(signal.SIGTERM, lambda *_: peer.leave())
    with socketserver.ThreadingUnixStreamServer(
        str(given.home / "control.sock"), Handler
    ) as server:
        server.peer = peer
        server.serve_forever(0.02)


if __name__ == "__main__":
    sys.exit(main())
