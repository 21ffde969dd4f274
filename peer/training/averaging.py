"""Rounds with other peers: matchmaking, transfer, votes; or the average that others certified.

One call of `Averager.run` is one attempt. What goes wrong in it is a `Failed` value; the caller
keeps the contribution and tries again with who is left, down to a group of one.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from peer.errors import MisbehavedError, PeerError
from peer.events import Message, PartRefused, RoundFailure
from peer.swarm.throttle import Throttle
from peer.swarm.wire import Body
from peer.training.attendance import LOOK_S
from peer.training.averages import AverageLog
from peer.training.ballot import Ballot, NoQuorumError
from peer.training.certificate import Base, Certificate, Vote
from peer.training.contribution import Contribution
from peer.training.exchange import Exchange
from peer.training.follow import Follow, Found
from peer.training.group import Group, sign_ready
from peer.training.leads import Leads
from peer.training.line_watch import LineWatch
from peer.training.matchmaking import Matchmaking
from peer.training.muster import Muster
from peer.training.reducer import check
from peer.training.round import Committed, Failed, average_alone, refusal
from peer.training.transfer import Part, joined, offload

log = logging.getLogger(__name__)

Hook = Callable[[str], None]
"""Called when a round enters a phase; tests inject faults there."""


class Averager:
    """Averages contributions with the other peers of a run.

    Args:
        muster: Our standing and the others.
        averages: Where certified averages are kept for others.
        elements: Numbers in a contribution.
        codec_name: How contributions and averages travel.
        emit: Takes events.
        hook: Told of each phase.
        upload: Bounds the bytes per second of what others fetch after a round; None does not.
    """

    def __init__(
        self,
        muster: Muster,
        averages: AverageLog,
        elements: int,
        codec_name: str,
        emit: Callable[[Message], None],
        hook: Hook | None = None,
        upload: Throttle | None = None,
    ) -> None:
        self._muster = muster
        self._averages = averages
        self._elements = elements
        self._codec = codec_name
        self._emit = emit
        self._hook = hook or (lambda _phase: None)
        self._matchmaking = Matchmaking(muster)
        self._exchange = Exchange(
            muster, elements, codec_name, self._note_refused, self._note_denied
        )
        self._ballot = Ballot(muster)
        upload = upload or Throttle(None)
        self._follow = Follow(muster, averages, elements, codec_name, self._open_round, upload)
        self.refused = self._follow.refused
        """Requests for averages that were not answered, by reason."""
        self._running: tuple[str, asyncio.Future[None]] | None = None
        self._stage = RoundFailure.NO_GROUP
        self._tried: Base | None = None
        self._generation: int | None = None
        self._spilling: asyncio.Future[None] | None = None
        self._leads = Leads()
        self._line = LineWatch(muster, elements, codec_name, upload, emit)
        # A round that was abandoned may still be ending when the next one begins.
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Take part in the others' rounds."""
        self._line.begin()
        for part in (self._matchmaking, self._exchange, self._ballot, self._follow):
            await part.start()

    async def run(self, base: Base, contribution: Contribution) -> Committed | Failed:
        """Try once to average `contribution` on top of `base` with all who are there."""
        async with self._one_at_a_time:
            return await self._run(base, contribution)

    async def _run(self, base: Base, contribution: Contribution) -> Committed | Failed:
        problem = await offload(
            self._elements, check, contribution.values, contribution.weight, self._elements
        )
        if problem is not None:
            return refusal(problem)
        self._muster.is_ready()
        # A certificate may be there already: always before a second vote, and where others are
        # ahead.
        whom = self._muster.live() if self._tried == base else self.ahead()
        found = self._follow.own(base) or await self._search(base, whom)
        if found is not None:
            return self._committed(found.certificate, found.parts, {})
        self._tried = base
        try:
            return await self._attempt(base, contribution)
        except PeerError as error:
            self._matchmaking.failed_under(self._matchmaking.leader)
            stage = self._stage
            if isinstance(error, MisbehavedError) and stage is RoundFailure.TRANSFER:
                stage = RoundFailure.BAD_PART
            return Failed(stage, str(error), keep=True)
        finally:
            self._close()

    def ahead(self) -> set[str]:
        """Return who claims to be ahead of us, but for those who just could not prove it."""
        claiming = self._muster.heeded(self._muster.ahead())
        return self._leads.open(claiming, self._muster.now_s)

    @property
    def in_round(self) -> bool:
        """Whether a round is under way, which finds out for itself what others have."""
        return self._one_at_a_time.locked()

    async def can_follow(self, base: Base) -> bool:
        """Return whether one of those ahead has a certificate that takes us on from `base`."""
        ahead = self.ahead()
        if ahead and await self._follow.offers(base, sorted(ahead), enough=1):
            return True
        self._note_vain(ahead)
        return False

    def forgive(self) -> None:
        """Believe everybody again: we stand elsewhere now."""
        self._leads.forgive()

    def _note_vain(self, peers: set[str]) -> None:
        # They are on another branch, or lie: `peer.training.repair` finds out, not each round.
        muster = self._muster
        for peer in peers & muster.ahead():
            self._leads.vain(peer, muster.now_s, tenured=peer in muster.tenured)
        self._leads.forget({member.peer_id for member in muster.roster.members()})

    async def follow(self, base: Base) -> Committed | None:
        """Return the next epoch that others certified on top of `base`, or None."""
        found = await self._search(base, self.ahead())
        return self._committed(found.certificate, found.parts, {}) if found else None

    async def take(self, certificate: Certificate, peer: str) -> Committed | None:
        """Return the next epoch by a certificate that counts for us, its average from `peer`."""
        try:
            parts = await self._follow.fetch(peer, certificate)
        except PeerError as error:
            log.info("no average from %s: %s", peer, error)
            return None
        return self._committed(certificate, parts, {})

    async def _search(self, base: Base, peers: set[str]) -> Found | None:
        """Return what one of `peers` certified on `base`.

        Also those are asked that we would not be in a group with: what they have, they have.
        """
        if not peers:
            return None
        found = await self._follow.ask(base, sorted(peers))
        if found is None:
            self._note_vain(peers)
        return found

    async def _attempt(self, base: Base, contribution: Contribution) -> Committed | Failed:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await self._gather_again(base.generation)
        # Tells everybody that we are ready, and us where everybody is by now. Who has been silent
        # for long is waited for if nobody else is there: we would part from them.
        await self._muster.poll(self._muster.not_down(), hurried=bool(self._muster.live()))
        fellows = self._muster.fellows(base)
        if not fellows:
            return await self._alone(base, contribution)
        self._enter(RoundFailure.NO_GROUP, "matchmaking")
        group = await self._find_group(base, contribution, fellows)
        if len(group.members) == 1:
            return await self._alone(base, contribution)
        # From here on a certificate may come about: whoever asks for one waits until we know.
        self._running = (base.state_root, loop.create_future())
        matched_s = loop.time()
        self._line.look(group)
        self._enter(RoundFailure.TRANSFER, "transfer")
        parts = await self._exchange.run(group, contribution.values)
        moved_s = loop.time()
        self._enter(RoundFailure.NO_QUORUM, "vote")
        vote = Vote(base, group.entries, tuple(part.digest for part in parts))
        try:
            certificate = await self._ballot.collect(group, vote)
        except NoQuorumError:
            # Two clients bring their votes to those whom both reach, not to each other.
            met = group.reducers if self._muster.client else ()
            offers = await self._follow.offers(base, met)
            same = next((offer for offer, _ in offers if offer.vote == vote), None)
            if same is None:
                raise
            certificate = same
        self._muster.praise(group.members)
        if self._matchmaking.leader is not None:
            self._muster.praise([self._matchmaking.leader], "leader")
        self._hook("certified")
        seconds = {
            "matchmaking": matched_s - started_s,
            "transfer": moved_s - matched_s,
            "certify": loop.time() - moved_s,
        }
        return self._committed(certificate, parts, seconds)

    async def _gather_again(self, generation: int) -> None:
        """Wait, once in a generation, for those who are just going back to where it begins.

        Whoever went on alone meanwhile would be ahead of them all. That one of them is paused costs
        a frame's time at each rollback.
        """
        before, self._generation = self._generation, generation
        if before in (None, generation):
            return
        muster = self._muster
        until_s = muster.now_s + muster.limits.frame_timeout_s
        await muster.poll(muster.live(), hurried=True)
        while muster.left_behind(generation) and muster.now_s < until_s:
            await muster.moved(LOOK_S)
            await muster.poll(muster.live(), hurried=True)

    def _enter(self, stage: RoundFailure, phase: str) -> None:
        self._stage = stage
        self._hook(phase)

    def _close(self) -> None:
        self._matchmaking.done()
        if self._running is not None:
            self._running[1].set_result(None)
            self._running = None

    async def _find_group(self, base: Base, contribution: Contribution, fellows: set[str]) -> Group:
        muster = self._muster
        ready = sign_ready(
            muster.identity,
            base,
            contribution.contribution_id,
            contribution.weight,
            # Never the same again, not even after a restart.
            attempt=int(1e3 * asyncio.get_running_loop().time()),
            reduces=not muster.client,
        )
        return await self._matchmaking.find(ready, fellows, muster.unreachable())

    async def _alone(self, base: Base, contribution: Contribution) -> Committed | Failed:
        # Whoever is elsewhere may have gone on from here without us, just now.
        found = await self._search(base, self._muster.live())
        if found is not None:
            return self._committed(found.certificate, found.parts, {})
        me = self._muster.identity
        result = await offload(self._elements, average_alone, me, self._codec, base, contribution)
        if isinstance(result, Committed):
            self._keep(result.certificate, result.parts)
        return result

    def _committed(
        self, certificate: Certificate, parts: Sequence[Part], seconds: dict[str, float]
    ) -> Committed:
        self._keep(certificate, [part.data for part in parts])
        return Committed(
            average=joined(parts, self._codec),
            certificate=certificate,
            parts=tuple(part.data for part in parts),
            seconds_by_phase=seconds,
        )

    def _keep(self, certificate: Certificate, parts: Sequence[Body]) -> None:
        base, group = certificate.vote.base, certificate.vote.group
        self._matchmaking.refusals.went_on(base, group)
        # Whoever only follows may still be on the way to where the others are.
        self._muster.abreast |= self._muster.identity.peer_id in group
        self._averages.add(base.state_root, base.epoch, certificate.to_json(), parts)
        if self._averages.too_much_in_memory and (self._spilling is None or self._spilling.done()):
            self._spilling = asyncio.ensure_future(asyncio.to_thread(self._averages.spill))

    def _open_round(self, base_root: str) -> "asyncio.Future[None] | None":
        if self._running is not None and self._running[0] == base_root:
            return asyncio.shield(self._running[1])
        return None

    def _note_denied(self, peer: str) -> None:
        # Where another one leads, we do not know whether it told that peer of the group.
        if self._matchmaking.leader in (peer, self._muster.identity.peer_id):
            self._muster.misbehaved(peer, "it denies that it is in the group")

    def _note_refused(self, peer: str, reason: str) -> None:
        self._muster.misbehaved(peer, reason)
        self._emit(PartRefused(peer_id=peer, reason=reason))
