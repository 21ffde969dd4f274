"""What a peer brings to a round, and how it gathers it from micro-batches."""

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from peer.training.state import Flat, Schema

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Contribution:
    """The mean gradient over the loss terms since the last epoch.

    Attributes:
        contribution_id: Names it in votes; a certificate consumes what it names.
        values: fp32 [schema.elements], the sum of the loss terms' gradients over `weight`.
        weight: Loss terms (label tokens) behind it.
        samples: Rows behind it.
        tokens: Tokens behind it.
        loss: Mean loss per loss term, in nats.
    """

    contribution_id: str
    values: Flat
    weight: int
    samples: int
    tokens: int
    loss: float


@dataclasses.dataclass
class Tally:
    """What has been gathered since the last epoch, beside the gradients themselves."""

    weight: int = 0
    samples: int = 0
    tokens: int = 0
    loss_sum: float = 0.0


def flat_gradient(model: "torch.nn.Module", schema: Schema) -> Flat:
    """Return the gradients of `model`, fp32 [schema.elements] on the CPU, zero where none is."""
    flat = np.empty(schema.elements, np.float32)
    parameters = dict(model.named_parameters())
    for spec, place in schema.slices():
        gradient = parameters[spec.name].grad
        if gradient is None:
            flat[place] = 0.0
        else:
            flat[place] = gradient.detach().to("cpu").float().reshape(-1).numpy()
    return flat


def contribution_id(peer_id: str, base_root: str, number: int) -> str:
    """Return the name of a peer's contribution `number` on top of the state `base_root`."""
    return hashlib.sha256(f"{peer_id}\n{base_root}\n{number}".encode()).hexdigest()
