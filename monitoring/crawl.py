"""One look at the swarm after the other: records first, then what proves where the run is.

Each step may fail by itself and is counted; what is known from before stays. Every wait has a
deadline, and nothing is asked of more peers than its bound says.
"""

import asyncio
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monitoring.findings import Findings, kept, members_of
from monitoring.names import RECORD_KINDS, Stage
from monitoring.row import CertifiedRow
from monitoring.verdicts import VerdictChain
from peer.clock import Clock
from peer.config.address import parse_address
from peer.config.endpoint import parse_endpoint
from peer.data.index import DataIndex, parse_index
from peer.errors import ConfigurationError, PeerError, StalledError
from peer.run.manifest import Manifest
from peer.swarm.download import fetch_blob
from peer.swarm.manifests import fetch_manifest
from peer.swarm.node import Node
from peer.swarm.records import Envelope
from peer.validation.rules import Rules

log = logging.getLogger(__name__)

_STEP_S = {
    Stage.RECORDS: 40.0,
    Stage.MANIFEST: 60.0,
    Stage.CERTIFICATES: 60.0,
    Stage.VERDICTS: 60.0,
}
_DIAL_S = 4.0
_DIALLED = 16
"""So many peers are dialled in one crawl, and so many of those that announce a /metrics."""
_ENOUGH = 4
"""With so many contributors connected, nobody is dialled for certificates."""
_MAX_INDEX_BYTES = 64 << 20


class Crawler:
    """Crawls one run, and keeps what it learned.

    Args:
        run_id: The run.
        named: Peers that the person who started this named: asked first.
        clock: The time.

    Attributes:
        manifest: The run's; fetched if it is not given.
        failures: Steps that failed, by stage.
        dropped: Good records that were not kept, by kind.
    """

    def __init__(self, run_id: str, named: Iterable[str], clock: Clock) -> None:
        self.run_id = run_id
        self.manifest: Manifest | None = None
        self.index: DataIndex | None = None
        self.failures = Counter(dict.fromkeys(Stage, 0))
        self.dropped = Counter(dict.fromkeys(RECORD_KINDS, 0))
        self._named = frozenset(named)
        self._clock = clock
        self._row = CertifiedRow()
        self._chain: VerdictChain | None = None
        self._members: frozenset[str] = frozenset()

    async def crawl(self, node: Node) -> tuple[Findings | None, bool]:
        """Return what is found, or None if the DHT could not be read, and whether it is all.

        Raises:
            UnreachableError: p2pd does not answer any more.
        """
        before = self.failures.total()
        records: dict[str, Mapping[str, Envelope]] = {}
        if not await self._step(Stage.RECORDS, self._read(node, records)):
            return None, False
        near = await self._connect(node, records["peer"])
        if self.manifest is None or self.index is None:
            await self._step(Stage.MANIFEST, self._learn_run(node, near))
        await self._step(Stage.CERTIFICATES, self._follow(node, near, records["peer"]))
        chain, row = self._chain, self._row
        if chain is not None:
            # Keys are cheap: whoever worked is asked which verdict they hold to.
            known = row.veterans | members_of(row.certificates, chain.ledger)
            good = {peer: each.body for peer, each in records["good"].items()}
            await self._step(Stage.VERDICTS, chain.update(node.transport, good, known, near))
        ledger = chain.ledger if chain is not None else None
        self._members = row.veterans | members_of(row.certificates, ledger)
        remotes = await self._prove(node, records)
        self._bound(records)
        found = Findings(
            now_s=self._clock.now_s(),
            peers=_bodies(records["peer"]),
            statuses=_bodies(records["status"]),
            claims={peer: body.shards for peer, body in _bodies(records["claim"]).items()},
            good=_bodies(records["good"]),
            row=tuple(row.certificates),
            veterans=row.veterans,
            chain=tuple(chain.verdicts) if chain is not None else (),
            ledger=ledger,
            index=self.index,
            baselines=self.manifest.evaluation.baselines if self.manifest is not None else {},
            remotes=remotes,
        )
        return found, self.failures.total() == before

    async def _step(self, stage: Stage, work: Awaitable[None]) -> bool:
        """Do `work` within its deadline; return whether it succeeded, else count it."""
        try:
            async with asyncio.timeout(_STEP_S[stage]):
                await work
        except (PeerError, ConfigurationError, OSError) as error:  # a deadline, a full disk
            self.failures[stage] += 1
            log.info("the crawl's step %s failed: %s", stage, error or "it took too long")
            return False
        return True

    async def _read(self, node: Node, records: dict[str, Mapping[str, Envelope]]) -> None:
        """Fill `records` with those of every kind."""
        for kind in RECORD_KINDS:
            records[kind] = await node.dht.get(self.run_id, kind)
        if not node.dht.nodes:
            await node.rejoin()
            raise StalledError("no node of the DHT is known")

    def _bound(self, records: dict[str, Mapping[str, Envelope]]) -> None:
        """Leave a bounded number in `records`, those of contributors first."""
        for kind, found in records.items():
            whose = kept(found, self._members | self._named)
            self.dropped[kind] += len(found) - len(whose)
            records[kind] = {peer: found[peer] for peer in whose}

    async def _connect(self, node: Node, peers: Mapping[str, Envelope]) -> list[str]:
        """Return connected peers to ask for certificates, the most trusted first."""
        connected = await node.connected()
        trusted = self._members | self._named
        if len(connected & trusted) < _ENOUGH:
            away = [peer for peer in peers if peer not in connected]
            random.shuffle(away)
            away.sort(key=lambda peer: peer not in trusted)
            dials = (self._dial(node, peers[peer].body.addresses) for peer in away[:_DIALLED])
            await asyncio.gather(*dials)
            connected = await node.connected()
        order = [peer for peer in connected if peer in peers]
        random.shuffle(order)
        founders = self._row.founders

        def rank(peer: str) -> int:
            ranks = (peer in self._members, peer in self._named, peer in founders)
            return ranks.index(True) if any(ranks) else len(ranks)

        return sorted(order, key=rank)

    async def _dial(self, node: Node, addresses: Sequence[str]) -> None:
        """Try the addresses of a peer, all at once, for a while; most lead nowhere."""
        dials = [asyncio.create_task(node.connect(address)) for address in addresses]
        if not dials:
            return
        try:
            async with asyncio.timeout(_DIAL_S):
                for dial in asyncio.as_completed(dials):
                    try:
                        await dial
                    except PeerError:
                        continue
                    return
        except TimeoutError:
            return
        finally:
            for each in dials:
                each.cancel()
            await asyncio.gather(*dials, return_exceptions=True)

    async def _learn_run(self, node: Node, donors: Sequence[str]) -> None:
        if self.manifest is None:
            answer = await fetch_manifest(node.transport, self.run_id, donors)
            self.take_manifest(answer.manifest)
        assert self.manifest is not None
        hash_ = self.manifest.data.index
        with tempfile.TemporaryDirectory(prefix="ctpeer-monitor-") as folder:
            target = Path(folder) / hash_
            await fetch_blob(
                node.transport, self.run_id, hash_, _MAX_INDEX_BYTES, target, donors[:_DIALLED]
            )
            data = target.read_bytes()
        self.index = await asyncio.to_thread(parse_index, data, "the run's data index")

    def take_manifest(self, manifest: Manifest) -> None:
        """Go by the run's manifest from now on."""
        self.manifest = manifest
        self._row.founders = frozenset(manifest.founders)
        if manifest.validation.every_epochs:
            self._chain = VerdictChain(Rules.of(self.run_id, manifest.validation))

    async def _follow(
        self, node: Node, donors: Sequence[str], peers: Mapping[str, Envelope]
    ) -> None:
        judged = self.manifest is None or self.manifest.validation.every_epochs > 0
        ledger = self._chain.ledger if self._chain is not None else None
        generation = ledger.generation if ledger is not None else None if judged else 0
        epochs = {peer: peers[peer].body.epoch for peer in donors}
        await self._row.update(node.transport, self.run_id, donors, epochs, generation)

    async def _prove(
        self, node: Node, records: Mapping[str, Mapping[str, Envelope]]
    ) -> Mapping[str, frozenset[str]]:
        """Return the IP addresses at which peers answer, those that announce a /metrics included.

        Such a peer is dialled where it announced, if it says that it listens there.
        """
        remotes = await node.remotes()
        wanted = {p: e.body.metrics for p, e in records["status"].items() if e.body.metrics}
        away = [peer for peer in wanted if peer not in remotes and peer in records["peer"]]
        away.sort(key=lambda peer: (peer not in self._members, peer))
        dials = []
        for peer in away[:_DIALLED]:
            endpoint = parse_endpoint(wanted[peer])
            addresses = records["peer"][peer].body.addresses
            there = [a for a in addresses if endpoint and _ip_of(a) == str(endpoint.ip)]
            dials.append(self._dial(node, there))
        if not any(dials):
            return remotes
        await asyncio.gather(*dials)
        return await node.remotes()


def _bodies(records: Mapping[str, Envelope]) -> dict[str, Any]:
    return {peer: envelope.body for peer, envelope in records.items()}


def _ip_of(address: str) -> str:
    parsed = parse_address(address)
    return parsed.ip if parsed is not None and not parsed.relayed else ""
