"""Fitting a micro-batch into the device's memory, keeping memory at hand, and giving it back."""

import contextlib
import ctypes

import torch

_SIGNS = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30
_LARGEST_FROM_HEAP_BYTES = 32 << 20
"""As large as glibc allows."""

DEFAULT_SAMPLES = {"cpu": 16, "cuda": 32}


def first_micro_batch(device: torch.device, wanted: int | None, divisor: int) -> int:
    """Return how many samples to try at once.

    Args:
        device: Where the model trains.
        wanted: What the volunteer asks for, or None for automatic.
        divisor: Grows each time the kernel killed the worker for its memory.
    """
    samples = wanted if wanted is not None else DEFAULT_SAMPLES.get(device.type, 16)
    return max(1, samples // divisor)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the device or the machine is out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(sign in words for sign in _SIGNS)


def keep_freed_memory() -> None:
    """Have glibc keep what one micro-batch frees for the next one, until `release`.

    By default it goes back to the kernel, which clears every page anew (mallopt(3)): on a small
    model that takes a twentieth of the time. Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP_BYTES)


def release(device: torch.device) -> None:
    """Hand kept memory of `device` and of the machine back, so that others can use it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
