"""Which states peers offer, and fetching the newest certified one to join with."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from peer.checkpoint.fetch import fetched_snapshot
from peer.checkpoint.snapshot import MAX_OFFERS, SNAPSHOTS
from peer.checkpoint.staging import Wanted
from peer.errors import MisbehavedError, PeerError
from peer.run.manifest import Hash
from peer.swarm.download import Refusal
from peer.swarm.wire import Transport, call, scoped
from peer.training.certificate import Count, parse_strictly
from peer.training.muster import Muster
from peer.training.state import GlobalState, Schema, Slot

log = logging.getLogger(__name__)

_OFFERED = TypeAdapter(Annotated[dict[Hash, Count], Field(max_length=MAX_OFFERS)])

OnProgress = Callable[[int, int], None]
"""Is told the bytes that are here and those there will be."""


async def offered_by(
    transport: Transport, run_id: str, peer: str, timeout_s: float
) -> dict[str, int]:
    """Return the roots of the states that `peer` says it gives, with the epochs that it says.

    Raises:
        PeerError: It does not answer, will not, or its answer makes no sense.
    """
    frame = await call(transport, peer, scoped(run_id, SNAPSHOTS), {}, timeout_s=timeout_s)
    return parse_strictly(_OFFERED, frame.header.get("roots"), "what it says that it offers")


class Offers:
    """The states that other peers offer to those who join.

    Args:
        muster: Our standing and the others.
        manifest_hash: The run's.
        schema: The model's tensors.
        slots: A fresh outer optimizer state.
        staging: Where a state lies while it comes in.
        on_progress: See `OnProgress`.
    """

    def __init__(
        self,
        muster: Muster,
        manifest_hash: str,
        schema: Schema,
        slots: Mapping[str, Slot],
        staging: Path,
        on_progress: OnProgress,
    ) -> None:
        self._muster = muster
        self._manifest_hash = manifest_hash
        self._schema = schema
        self._slots = slots
        self._staging = staging
        self._on_progress = on_progress
        self._one_at_a_time = asyncio.Lock()

    async def fetch(self, roots: Mapping[str, int], beyond: int) -> tuple[GlobalState, str] | None:
        """Return the newest state that live peers offer among certified `roots`, and its root.

        Args:
            roots: Epochs by state root.
            beyond: Only later epochs are of use.
        """
        peers = sorted(self._muster.live())
        answers = await asyncio.gather(*(self._ask(peer) for peer in peers))
        donors: dict[str, list[str]] = {}
        for peer, offered in zip(peers, answers, strict=True):
            for root in offered:
                if roots.get(root, -1) > beyond:
                    donors.setdefault(root, []).append(peer)
        # One donor may be slow, and a few epochs more are soon replayed.
        order = sorted(donors, key=lambda root: (len(donors[root]) > 1, roots[root]), reverse=True)
        for root in order:
            wanted = Wanted(root, self._manifest_hash, self._schema, self._slots)
            fetched = fetched_snapshot(
                self._muster.transport,
                self._muster.run_id,
                wanted,
                donors[root],
                self._staging,
                self._on_progress,
                self._note_refusal,
            )
            try:
                async with self._one_at_a_time, fetched as state:
                    return state, root
            except PeerError as error:
                log.warning("the state of epoch %d could not be fetched: %s", roots[root], error)
        return None

    async def _ask(self, peer: str) -> dict[str, int]:
        muster = self._muster
        timeout_s = muster.limits.call_timeout_s
        try:
            return await offered_by(muster.transport, muster.run_id, peer, timeout_s)
        except MisbehavedError as error:
            self._muster.misbehaved(peer, str(error))
        except PeerError as error:
            log.debug("no offers from %s: %s", peer, error)
        return {}

    def _note_refusal(self, refusal: Refusal) -> None:
        if refusal.kind == "misbehaved":
            self._muster.misbehaved(refusal.donor, refusal.reason)
