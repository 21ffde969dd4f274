"""Fitting a micro-batch into the device's memory, and giving the memory back."""

import torch

_SIGNS = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

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


def release(device: torch.device) -> None:
    """Hand cached memory of `device` back, so that others can use it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
