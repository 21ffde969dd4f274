"""The certified states of a run by their roots: from this disk, else from other peers."""

import asyncio
from collections.abc import Callable, Mapping

from peer.checkpoint.offers import Offers
from peer.checkpoint.store import CheckpointStore
from peer.training.state import Flat, GlobalState, Schema, Slot


class States:
    """Finds states.

    Args:
        store: Our checkpoints.
        offers: What other peers have.
        initial: Reads the run's initial state.
        schema: The model's tensors.
        slots: A fresh outer optimizer state.
    """

    def __init__(
        self,
        store: CheckpointStore,
        offers: Offers,
        initial: Callable[[], GlobalState],
        schema: Schema,
        slots: Mapping[str, Slot],
    ) -> None:
        self._store = store
        self._offers = offers
        self._initial = initial
        self._schema = schema
        self._slots = dict(slots)
        self._kept: tuple[str, Flat] | None = None

    async def find(self, root: str, epoch: int) -> GlobalState | None:
        """Return the state of that root, every byte of it verified, or None if nobody gives it."""
        state = await self._at_hand(root, epoch)
        return state if state is not None else await self._fetch(root, epoch)

    async def parameters(self, root: str, epoch: int) -> Flat | None:
        """Return the parameters fp32 [schema.elements] of that state, to be read only, or None.

        Those that came from others last are kept: one candidate after another is judged by the same
        state.
        """
        if self._kept is not None and self._kept[0] == root:
            return self._kept[1]
        state = await self._at_hand(root, epoch)
        if state is None:
            state = await self._fetch(root, epoch)
            self._kept = (root, state.parameters) if state is not None else self._kept
        return state.parameters if state is not None else None

    async def _at_hand(self, root: str, epoch: int) -> GlobalState | None:
        if epoch == 0:
            return await asyncio.to_thread(self._initial)
        checkpoint = await asyncio.to_thread(self._store.load, root, self._schema, self._slots)
        return checkpoint.state if checkpoint is not None else None

    async def _fetch(self, root: str, epoch: int) -> GlobalState | None:
        found = await self._offers.fetch({root: epoch}, -1)
        return found[0] if found is not None else None
