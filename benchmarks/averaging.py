"""What one averaging round costs: ours, hivemind's `DecentralizedAverager`, and gloo.

Every peer is a process of its own on loopback with one torch thread, and averages a vector of
random fp32 numbers with the others, again and again. Ours is the whole round: matchmaking, checks,
signed parts, votes and certificate. The stock averager is told its group's size, so that it does
not wait for more peers; a group that it fails to form within the time is tried again and its time
counts. Gloo has no matchmaking, no checks and no faults to bear: it is the floor.

    python -m benchmarks.averaging --json
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

from benchmarks.report import machine, spread

SYSTEMS = ("ours", "stock", "gloo")
_START_TIMEOUT_S = 120
_SIZES = {"1M": 1_000_000, "10M": 10_000_000, "100M": 100_000_000}


def main() -> None:
    """Measure every combination and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sizes", nargs="+", choices=_SIZES, default=list(_SIZES))
    parser.add_argument("--peers", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--runs", type=int, default=2, help="alternating runs (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds a run (default 3)")
    options = parser.parse_args()
    cases = []
    for size in options.sizes:
        for peers in options.peers:
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.systems}
            for run in range(options.runs):
                order = options.systems if run % 2 == 0 else options.systems[::-1]
                for system in order:
                    measured = measure(system, peers, _SIZES[size], options.rounds)
                    runs[system].extend(measured)
            case = {"elements": _SIZES[size], "peers": peers}
            case |= {system: _summary(rounds) for system, rounds in runs.items()}
            cases.append(case)
            print(_line(case), file=sys.stderr)
    result = {"name": "averaging", "cases": cases, "machine": machine()}
    if options.json:
        print(json.dumps(result, indent=1))


def measure(system: str, peers: int, elements: int, rounds: int) -> list[dict[str, float]]:
    """Return what each of `rounds` rounds took: seconds, CPU-seconds and bytes sent, all peers."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(_peer(system, index, peers, elements)) for index in range(peers)
        ]
        places = [_hear(process) for process in processes]
        for process in processes:
            _tell(process, {"places": places})
        for process in processes:  # they meet each other at once
            _hear(process)
        _step(processes)  # a round to warm up
        return [_step(processes) for _ in range(rounds)]


def _step(processes: list["subprocess.Popen[str]"]) -> dict[str, float]:
    for process in processes:
        _tell(process, {"go": True})
    answers = [_hear(process) for process in processes]
    return {
        "seconds": max(answer["seconds"] for answer in answers),
        "cpu_seconds": sum(answer["cpu_seconds"] for answer in answers),
        "bytes": sum(answer["bytes"] for answer in answers),
    }


@contextlib.contextmanager
def _peer(system: str, index: int, peers: int, elements: int) -> Iterator["subprocess.Popen[str]"]:
    arguments = [system, str(index), str(peers), str(elements)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.averaging_peer", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_START_TIMEOUT_S)


def _tell(process: "subprocess.Popen[str]", message: dict[str, Any]) -> None:
    pipe: IO[str] | None = process.stdin
    assert pipe is not None
    pipe.write(json.dumps(message) + "\n")
    pipe.flush()


def _hear(process: "subprocess.Popen[str]") -> Any:
    pipe: IO[str] | None = process.stdout
    assert pipe is not None
    line = pipe.readline()
    if not line:
        raise RuntimeError(f"a peer ended with {process.wait(_START_TIMEOUT_S)}")
    return json.loads(line)


def _summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    return {
        name: spread([one[name] for one in rounds]) for name in ("seconds", "cpu_seconds", "bytes")
    }


def _line(case: dict[str, Any]) -> str:
    parts = [f"{case['elements'] // 1_000_000}M x {case['peers']} peers:"]
    for system in SYSTEMS:
        if system in case:
            seconds, cpu = (case[system][name]["median"] for name in ("seconds", "cpu_seconds"))
            parts.append(f"{system} {seconds:.2f} s, {cpu:.2f} CPU-s")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
