"""What processes take of the machine's memory for themselves.

Pages of mapped files, the tokens of a shard and the libraries, are left out where the kernel tells
them apart (Linux): processes share them, and it takes them back whenever it needs the room.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil

_OWN = ("RssAnon", "RssShmem")
_KIB = 1024


def own_bytes(process: psutil.Process) -> int:
    """Return the resident memory of a process without mapped files; with them where unknown.

    Raises:
        psutil.Error: It has ended, or is somebody else's.
    """
    sizes = resident(process.pid)
    if all(name in sizes for name in _OWN):
        return sum(sizes[name] for name in _OWN)
    return int(process.memory_info().rss)


def tree_bytes(pid: int) -> int:
    """Return what a process and all that it started take for themselves, in bytes."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return _total([process, *process.children(recursive=True)])
    return 0


def started_bytes() -> int:
    """Return what all that this process started takes for itself, in bytes."""
    return _total(psutil.Process().children(recursive=True))


def resident(pid: int) -> Mapping[str, int]:
    """Return the sizes of /proc/PID/status in bytes (proc_pid_status(5)); none elsewhere.

    Reading them costs microseconds; what is exact, smaps_rollup, milliseconds a gigabyte.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(size.split()[0]) * _KIB for name, _, size in fields}


def _total(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += own_bytes(process)
    return total
