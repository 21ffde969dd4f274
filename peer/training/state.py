"""The global state: what every peer of a run holds, bit for bit, after every committed epoch.

Parameters and outer optimizer live in flat fp32 buffers on the CPU, whatever device trains. The
state root is their hash and names the state. Nothing here decides when an epoch ends.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from peer.errors import ConfigurationError
from peer.run.canonical import canonical

if TYPE_CHECKING:
    import torch

Flat = npt.NDArray[np.float32]
Slot = npt.NDArray[Any]

CHUNK_BYTES = 1 << 20
"""A chunk is what a transfer verifies at once; the root is made of chunk hashes."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One parameter tensor: its name in the model and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds; 1 for a scalar."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Schema:
    """The tensors of a model in the order in which the flat buffers hold them: by name."""

    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, model: "torch.nn.Module") -> Self:
        """Return the schema of `model`; a tied tensor counts once, under its first name.

        Raises:
            ConfigurationError: Part of the model's state is not trained: it would be in no root.
        """
        names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        if untrained := sorted({*frozen, *(set(model.state_dict()) - names)}):
            raise ConfigurationError(
                f"the model's {untrained[0]!r} is part of its state but is not trained; such "
                "models cannot be agreed on yet: take another"
            )
        specs = (TensorSpec(name, tuple(p.shape)) for name, p in model.named_parameters())
        return cls(tuple(sorted(specs, key=lambda spec: spec.name)))

    @property
    def elements(self) -> int:
        """The length of the flat buffers."""
        return sum(spec.elements for spec in self.tensors)

    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return name and shape of each tensor, as a state's header has them."""
        return tuple((spec.name, spec.shape) for spec in self.tensors)

    def slices(self) -> Iterator[tuple[TensorSpec, slice]]:
        """Yield each tensor with its place in a flat buffer."""
        start = 0
        for spec in self.tensors:
            yield spec, slice(start, start + spec.elements)
            start += spec.elements

    def named(self, flat: Flat) -> dict[str, Flat]:
        """Return views of `flat` [elements] by tensor name, each in its own shape."""
        return {spec.name: flat[place].reshape(spec.shape) for spec, place in self.slices()}

    def flatten(self, tensors: Mapping[str, Flat], origin: str) -> Flat:
        """Return one new buffer [elements] that holds `tensors` in this schema's order.

        Args:
            tensors: fp32 arrays by name.
            origin: Where they come from, for the error.

        Raises:
            ConfigurationError: A tensor is missing, left over, of another shape or dtype, or
                holds a number that is not finite.
        """
        unknown = sorted(set(tensors) - {spec.name for spec in self.tensors})
        if unknown:
            raise ConfigurationError(
                f"{origin} holds {unknown[0]!r}, which the model does not have"
            )
        flat = np.empty(self.elements, np.float32)
        for spec, place in self.slices():
            tensor = tensors.get(spec.name)
            if tensor is None:
                raise ConfigurationError(f"{origin} lacks the parameter {spec.name!r} of the model")
            if tensor.shape != spec.shape or tensor.dtype != np.float32:
                raise ConfigurationError(
                    f"{origin} holds {spec.name!r} as {tensor.dtype} {list(tensor.shape)}, "
                    f"the model needs float32 {list(spec.shape)}"
                )
            flat[place] = tensor.reshape(-1)
        if not np.isfinite(flat).all():
            raise ConfigurationError(f"{origin} holds numbers that are not finite")
        return flat


@dataclasses.dataclass(frozen=True)
class StateHeader:
    """What a state root is the hash of; it proves each chunk of the state by itself.

    Attributes:
        manifest: The run's hash.
        epoch: The state's.
        tensors: Name and shape of each tensor.
        chunk_bytes: How many bytes a chunk has; a buffer's last may have fewer.
        buffers: Name, numpy's word for the dtype, and the chunks' hashes of each buffer.
    """

    manifest: str
    epoch: int
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    chunk_bytes: int
    buffers: tuple[tuple[str, str, tuple[str, ...]], ...]

    @property
    def elements(self) -> int:
        """How many parameters the state has."""
        return sum(math.prod(shape) for _, shape in self.tensors)

    def chunk_hash(self, buffer: int, index: int) -> str:
        """Return the hash of a chunk of the `buffer`-th buffer."""
        _, _, hashes = self.buffers[buffer]
        return hashes[index]

    def to_bytes(self) -> bytes:
        """Return the canonical form, which is hashed."""
        return canonical(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> "StateHeader":
        """Return the header whose canonical form is `data`.

        Raises:
            ValueError: `data` is no header, or another spelling of one.
        """
        header = _HEADER_ADAPTER.validate_json(data, strict=True)
        if header.to_bytes() != data:
            raise ValueError("it is not in canonical form")
        return header


_HEADER_ADAPTER = TypeAdapter(StateHeader)


def root_of(header: StateHeader) -> str:
    """Return the state root: SHA-256 over the canonical form of `header`."""
    return hashlib.sha256(b"ctpeer state root\n" + header.to_bytes()).hexdigest()


@dataclasses.dataclass
class GlobalState:
    """The state that a run agrees on.

    Attributes:
        epoch: How many averaged contributions it has taken in.
        schema: The tensors behind `parameters`.
        parameters: fp32 [schema.elements].
        optimizer: The outer optimizer's buffers by name, fp32 [schema.elements] or fp64 [k].
    """

    epoch: int
    schema: Schema
    parameters: Flat
    optimizer: dict[str, Slot]

    def buffers(self) -> Iterator[tuple[str, Slot]]:
        """Yield every buffer by the name under which it enters the root, in its order there."""
        yield "parameters", self.parameters
        for name in sorted(self.optimizer):
            yield f"optimizer.{name}", self.optimizer[name]

    def root(self, manifest_hash: str) -> str:
        """Return the state root: it names this state, and nothing but this state.

        Manifest hash, epoch, tensor schema and the hashes of all chunks are in it, neither
        generation nor lineage. Reads every byte once.
        """
        return root_of(self.header(manifest_hash))

    def header(self, manifest_hash: str) -> StateHeader:
        """Return what the root is made of. Reads every byte once."""
        return StateHeader(
            manifest=manifest_hash,
            epoch=self.epoch,
            tensors=self.schema.shapes(),
            chunk_bytes=CHUNK_BYTES,
            buffers=tuple(
                (name, buffer.dtype.str, tuple(chunk_hashes(buffer)))
                for name, buffer in self.buffers()
            ),
        )


def chunk_hashes(buffer: Slot) -> Iterator[str]:
    """Yield the SHA-256 of each chunk of a contiguous `buffer`, in little-endian byte order."""
    data = buffer.astype(buffer.dtype.newbyteorder("<"), copy=False).data.cast("B")
    for start in range(0, len(data), CHUNK_BYTES):
        yield hashlib.sha256(data[start : start + CHUNK_BYTES]).hexdigest()


def load_parameters(model: "torch.nn.Module", schema: Schema, parameters: Flat) -> None:
    """Write `parameters`, fp32 [schema.elements], into `model`, on whatever device it is."""
    import torch

    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, values in schema.named(parameters).items():
            own[name].copy_(torch.from_numpy(values))


def initial_state_bytes(model: "torch.nn.Module") -> bytes:
    """Return the safetensors file that a manifest names as the initial state of `model`."""
    import safetensors.numpy

    tensors = {
        name: parameter.detach().to("cpu").float().contiguous().numpy()
        for name, parameter in sorted(model.named_parameters())
    }
    return safetensors.numpy.save(tensors)


def read_initial_state(data: bytes, schema: Schema) -> Flat:
    """Return the parameters fp32 [schema.elements] of an initial state.

    Raises:
        ConfigurationError: `data` is not a safetensors file or does not fit `schema`.
    """
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ConfigurationError(f"the initial state is not a safetensors file: {error}") from error
    return schema.flatten(tensors, "the initial state")


def check_initial_state(data: bytes, model: "torch.nn.Module") -> None:
    """Raise ConfigurationError unless `data` is an initial state of `model`."""
    read_initial_state(data, Schema.of(model))
