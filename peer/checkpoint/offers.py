"""Which checkpoints peers offer to those who join, and fetching the newest certified one."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from peer.checkpoint.fetch import fetch_snapshot
from peer.checkpoint.staging import Wanted
from peer.checkpoint.store import CheckpointStore
from peer.errors import MisbehavedError, PeerError
from peer.swarm.download import Refusal
from peer.swarm.wire import Channel
from peer.training.muster import Muster
from peer.training.state import GlobalState, Schema, Slot

log = logging.getLogger(__name__)

_MAX_OFFERS = 64

OnProgress = Callable[[int, int], None]
"""Is told the bytes that are here and those there will be."""


class Offers:
    """The states that this peer can give, and those it can get.

    Args:
        muster: Our standing and the others.
        store: Our checkpoints.
        manifest_hash: The run's.
        schema: The model's tensors.
        slots: A fresh outer optimizer state.
        staging: Where a state lies while it comes in.
        on_progress: See `OnProgress`.
    """

    def __init__(
        self,
        muster: Muster,
        store: CheckpointStore,
        manifest_hash: str,
        schema: Schema,
        slots: Mapping[str, Slot],
        staging: Path,
        on_progress: OnProgress,
    ) -> None:
        self._muster = muster
        self._store = store
        self._manifest_hash = manifest_hash
        self._schema = schema
        self._slots = slots
        self._staging = staging
        self._on_progress = on_progress
        self._one_at_a_time = asyncio.Lock()
        self.asked = False
        """Whether somebody looked for a state since this was last set to False."""

    async def start(self) -> None:
        """Tell others what we have."""
        await self._muster.serve("snapshots", self._serve_snapshots)

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
            try:
                async with self._one_at_a_time:
                    state = await fetch_snapshot(
                        self._muster.transport,
                        self._muster.run_id,
                        wanted,
                        donors[root],
                        self._staging,
                        self._on_progress,
                        self._note_refusal,
                    )
            except PeerError as error:
                log.warning("the state of epoch %d could not be fetched: %s", roots[root], error)
                continue
            return state, root
        return None

    async def _ask(self, peer: str) -> list[str]:
        try:
            header = (await self._muster.call(peer, "snapshots", {})).header
            return _parse(header.get("roots"))
        except MisbehavedError as error:
            self._muster.misbehaved(peer, str(error))
        except PeerError as error:
            log.debug("no offers from %s: %s", peer, error)
        return []

    async def _serve_snapshots(self, channel: Channel) -> None:
        async with asyncio.timeout(self._muster.limits.call_timeout_s):
            await channel.receive()
            self.asked = True
            roots = [stored.state_root for stored in self._store.roots()]
            await channel.send({"roots": roots[:_MAX_OFFERS]})

    def _note_refusal(self, refusal: Refusal) -> None:
        if refusal.kind == "misbehaved":
            self._muster.misbehaved(refusal.donor, refusal.reason)


def _parse(body: object) -> list[str]:
    if not isinstance(body, list) or len(body) > _MAX_OFFERS:
        raise MisbehavedError("a list of states is expected")
    return [root for root in body if isinstance(root, str)]
