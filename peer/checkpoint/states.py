"""The certified states of a run by their roots: from this disk, else from other peers."""

import asyncio
from collections.abc import Callable, Mapping

from peer.checkpoint.offers import Offers
from peer.checkpoint.store import CheckpointStore
from peer.training.state import GlobalState, Schema, Slot


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

    async def find(self, root: str, epoch: int) -> GlobalState | None:
        """Return the state of that root, every byte of it verified, or None if nobody gives it."""
        if epoch == 0:
            return await asyncio.to_thread(self._initial)
        checkpoint = await asyncio.to_thread(self._store.load, root, self._schema, self._slots)
        if checkpoint is not None:
            return checkpoint.state
        found = await self._offers.fetch({root: epoch}, -1)
        return found[0] if found is not None else None
