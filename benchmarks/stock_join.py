"""The rival of `join`: hivemind's own averager, giving its state or taking another's."""

import json
import sys
import time

import hivemind
import psutil
import torch
from hivemind.averaging import DecentralizedAverager

_PREFIX = "benchmark"
_TIMEOUT_S = 120.0


def main() -> None:
    """Give a state of `argv[2]` numbers until standard input ends, or take one from `argv[3]`."""
    role, elements = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    tensors = [torch.randn(elements // 3) for _ in range(3)]
    dht = hivemind.DHT(initial_peers=sys.argv[3:], host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    averager = DecentralizedAverager(
        tensors, dht, prefix=_PREFIX, start=True, declare_state_period=1.0
    )
    try:
        if role == "give":
            give(dht)
        else:
            take(dht, averager)
    finally:
        averager.shutdown()
        dht.shutdown()


def give(dht: hivemind.DHT) -> None:
    """Say where we are as soon as our state is declared, and stay."""
    _wait_for_state(dht)
    print(json.dumps({"address": str(dht.get_visible_maddrs()[0])}), flush=True)
    sys.stdin.read()


def take(dht: hivemind.DHT, averager: DecentralizedAverager) -> None:
    """Print how long it takes to load the state, once it is known who gives one.

    hivemind asks for that once only: a DHT that has just started may not find it yet.
    """
    _wait_for_state(dht)
    begun_s, cpu_s = time.perf_counter(), _cpu_s()
    loaded = averager.load_state_from_peers(timeout=_TIMEOUT_S)
    seconds, cpu_seconds = time.perf_counter() - begun_s, _cpu_s() - cpu_s
    if loaded is None:
        raise TimeoutError("no state came")
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}))


def _wait_for_state(dht: hivemind.DHT) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while dht.get(f"{_PREFIX}.all_averagers", latest=True) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError("no state was declared")
        time.sleep(0.1)


def _cpu_s() -> float:
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    main()
