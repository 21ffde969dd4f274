"""What a process has for itself is counted, and the files that it maps are not."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from peer.daemon.memory_watch import MemoryWatch
from peer.training import footprint
from peer.training.allowance import Allowance
from peer.training.footprint import own_bytes, tree_bytes

SIZE = 96_000_000
CHILD = f"""
import mmap, sys
held = []
for line in sys.stdin:
    kind = line.split()[0]
    if kind == "map":
        with open(line.split()[1], "rb") as file:
            held.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    elif kind == "share":
        held.append(mmap.mmap(-1, {SIZE}))
    else:
        held.append(bytearray({SIZE}))
    for at in range(0, len(held[-1]), 4096):
        if kind == "map":
            held[-1][at]
        else:
            held[-1][at] = 1
    print("done", flush=True)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell them apart")


def is_in_memory(path):
    """Return whether `path` lies in a file system whose pages are shared memory."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(where), kind) for where, kind in mounts if path.is_relative_to(where)]
    return max(above)[1] in ("tmpfs", "ramfs")


@pytest.fixture
def shard(tmp_path):
    if is_in_memory(tmp_path):
        pytest.skip("temporary files lie in memory here: a file on a disk was not mapped")
    file = tmp_path / "shard.tokens"
    file.write_bytes(os.urandom(1000) * (SIZE // 1000))
    return file


@pytest.fixture
def child():
    """Start a process that takes memory when told to; return how to tell it, and it."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def tell(words):
        process.stdin.write(f"{words}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        return psutil.Process(process.pid)

    yield tell
    process.kill()
    process.communicate(timeout=10)


@linux
def test_a_mapped_file_is_resident_but_does_not_count(child, shard):
    one = child(f"map {shard}")
    assert one.memory_info().rss > SIZE
    assert own_bytes(one) < SIZE / 3
    exact = sum(part.anonymous for part in one.memory_maps())
    assert own_bytes(one) == pytest.approx(exact, rel=0.2)


@linux
@pytest.mark.parametrize("kind", ["take", "share"])
def test_its_own_memory_and_what_it_shares_count(child, shard, kind):
    before = own_bytes(child(f"map {shard}"))
    assert own_bytes(child(kind)) > before + 0.95 * SIZE


@linux
def test_a_worker_is_ended_for_its_own_memory_and_not_for_what_it_maps(child, shard):
    watch, limit_bytes = MemoryWatch(SIZE / 2), SIZE / 2

    async def look(pid):
        return [await watch.look(pid) for _ in range(2)][1]

    one = child(f"map {shard}")
    assert one.memory_info().rss > 1.5 * limit_bytes
    assert asyncio.run(look(one.pid)) is None
    child("take")
    assert "limits.memory_mb allows 48" in asyncio.run(look(one.pid))


@linux
def test_what_a_process_started_counts_with_it(child):
    before = tree_bytes(os.getpid())
    child("take")
    assert tree_bytes(os.getpid()) > before + 0.9 * SIZE


@linux
def test_what_another_thread_maps_during_a_micro_batch_does_not_count(shard):
    import mmap

    allowance = Allowance(1.0)
    allowance.begin()
    with shard.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = taken_bytes(allowance)
        assert sum(mapped[at] for at in range(0, SIZE, 4096)) > 0
        assert taken_bytes(allowance) < before + 0.1 * SIZE
        taken = bytearray(SIZE)
        taken[::4096] = b"x" * len(taken[::4096])
        assert taken_bytes(allowance) > before + 0.9 * SIZE


def taken_bytes(allowance):
    return int(allowance.excess().split()[2].replace(",", "")) * 1e6


def test_where_the_kernel_does_not_tell_them_apart_everything_resident_counts(monkeypatch):
    monkeypatch.setattr(footprint, "resident", lambda _pid: {})
    process = psutil.Process()
    assert own_bytes(process) == pytest.approx(process.memory_info().rss, rel=0.2)


def test_a_process_that_is_gone_takes_nothing(child):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert tree_bytes(gone.pid) == 0
