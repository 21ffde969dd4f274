"""A process in the worker's place that loads no torch: it plays the script in argv[1].

A script is a list of steps: an event as JSON to send, "junk", "wait" for a command, "sleep" for
ever, "crash", or {"exit": code}. What it is told goes to stdout.
"""

import json
import os
import signal
import socket
import sys


def main():
    steps, descriptor = json.loads(sys.argv[1]), int(sys.argv[3])
    pipe = socket.socket(fileno=descriptor)
    lines = pipe.makefile("r")
    print("told", lines.readline().strip(), flush=True)
    for step in steps:
        if step == "junk":
            pipe.sendall(b"\xff not a message\n")
        elif step == "wait":
            print("told", lines.readline().strip(), flush=True)
        elif step == "sleep":
            signal.pause()
        elif step == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif "exit" in step:
            sys.exit(step["exit"])
        else:
            pipe.sendall(json.dumps(step).encode() + b"\n")


main()
