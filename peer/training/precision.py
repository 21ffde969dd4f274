"""Which numbers the forward and backward passes use; the global state is fp32 whatever they are."""

import contextlib
from typing import Literal

import torch

from peer.errors import ConfigurationError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

FIRST_SCALE = 256.0
_LARGEST_SCALE = 65536.0
_GROW_AFTER_EPOCHS = 200


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` ("auto", "cpu", "cuda", "cuda:1") asks for.

    Raises:
        ConfigurationError: There is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"the device {name!r} cannot be used here ({str(error).splitlines()[0]}); "
            "set compute.device to auto or cpu"
        ) from error
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision to train in: bf16 where the device has it in hardware, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp32"


class Autocast:
    """Mixed precision for one trainer, with a loss scale where fp16's range asks for one.

    The scale multiplies the summed loss and is divided out of the contribution. It halves when a
    contribution is not finite and doubles after a long run of good ones.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self._device = device
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scale = 1.0
        self._good = 0

    def resume(self, scale: float) -> None:
        """Go on with the loss `scale` of an earlier start; 1 where the precision needs none."""
        self.scale = scale if self._dtype is torch.float16 else 1.0

    def __call__(self) -> contextlib.AbstractContextManager[object]:
        """Return the context for a forward pass."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def update(self, *, finite: bool) -> None:
        """Adapt the scale to whether the last contribution was finite."""
        if self._dtype is not torch.float16:
            return
        self._good = self._good + 1 if finite else 0
        if not finite:
            self.scale = max(1.0, self.scale / 2.0)
        elif self._good == _GROW_AFTER_EPOCHS:
            self.scale, self._good = min(_LARGEST_SCALE, self.scale * 2.0), 0
