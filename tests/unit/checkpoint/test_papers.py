"""What stands beside a state is fetched with it, and what is not good of it is refused."""

import asyncio
import dataclasses
import json

import pytest

from peer.checkpoint.annotation import Ancestor, Author
from peer.checkpoint.papers import (
    MAX_CERTIFICATE_BYTES,
    PAPERS,
    Claim,
    Papers,
    fetch_papers,
)
from peer.checkpoint.snapshot import SnapshotServer
from peer.checkpoint.store import CheckpointStore
from peer.errors import DeclinedError
from peer.identity import Identity
from peer.run.directory import RunDirectory
from peer.swarm.throttle import Throttle
from peer.swarm.wire import call, scoped


class Case:
    """The newest checkpoint of a real run, and peers in memory that give its papers."""

    def __init__(self, home, sim):
        (run_id,) = home.run_ids()
        self.run = RunDirectory.open(home.run_path(run_id))
        self.store = CheckpointStore(self.run.checkpoints_path, self.run.manifest_hash, keep=9)
        self.newest = self.store.roots()[0]
        self.papers = self.store.papers(self.newest.state_root)
        self.author = Author(Identity.load_or_create(home.identity_path), lambda: 0.0)
        self.claim = Claim(
            run_id=run_id,
            manifest_hash=self.run.manifest_hash,
            epoch=self.newest.epoch,
            state_root=self.newest.state_root,
            generation=None,
            elements=sum(part.elements for part in self.papers.certificate.vote.parts),
        )
        self.swarm = sim.MemorySwarm()
        self.joiner = self.swarm.transport("joiner")
        self.refusals = []

    async def donor(self, name):
        server = SnapshotServer(
            self.swarm.transport(name), self.run.run_id, self.store, Throttle(None)
        )
        await server.start()
        return server

    async def stranger(self, name, *frames):
        """Start a donor that gives `frames` of papers."""

        async def give(channel):
            await channel.receive()
            for frame in frames:
                await channel.send({}, frame)

        await self.swarm.transport(name).serve(scoped(self.run.run_id, PAPERS), give)

    async def fetch(self, *donors, **claim):
        claim = dataclasses.replace(self.claim, **claim)
        return await fetch_papers(self.joiner, claim, donors, self.refusals.append)

    def annotated(self, **changes):
        notes = dataclasses.replace(self.papers.annotation.notes, **changes)
        return self.author.sign(notes).to_bytes()

    def certified(self, **base):
        body = json.loads(self.papers.certificate.to_json())
        body["vote"]["base"] |= base
        return json.dumps(body, sort_keys=True).encode()

    @property
    def refused(self):
        return {refusal.donor: (refusal.kind, refusal.reason) for refusal in self.refusals}


@pytest.fixture
def case(home, sim):
    return Case(home, sim)


def test_certificate_and_annotation_come_as_they_lie_there(case, sim):
    async def scenario():
        await case.donor("a")
        assert await case.fetch("a") == case.papers
        assert case.refusals == []
        assert case.papers.count == 2

    sim.run(scenario())


FORGED = {
    "junk": lambda case: (b"{", b""),
    "no text": lambda case: (b"\xff", b""),
    "an annotation that is none": lambda case: (b"", b"{}"),
    "another run": lambda case: (case.certified(run_id="other-" + "0" * 32), b""),
    "another epoch": lambda case: (case.certified(epoch=1), b""),
    "a later generation": lambda case: (
        case.certified(generation=5),
        case.papers.annotation.to_bytes(),
    ),
    "nobody's signature": lambda case: (
        dataclasses.replace(case.papers.certificate, signatures=()).to_json().encode(),
        b"",
    ),
    "another's notes": lambda case: (
        b"",
        dataclasses.replace(
            case.papers.annotation,
            notes=dataclasses.replace(case.papers.annotation.notes, loss_terms=10**9),
        ).to_bytes(),
    ),
    "notes of another state": lambda case: (b"", case.annotated(state_root="0" * 64)),
    "notes of another epoch": lambda case: (b"", case.annotated(epoch=3)),
    "notes of another manifest": lambda case: (b"", case.annotated(manifest="0" * 64)),
    "a parent that is no earlier one": lambda case: (
        b"",
        case.annotated(parent=Ancestor(7, "0" * 64)),
    ),
    "a parent that the certificate does not extend": lambda case: (
        case.papers.certificate.to_json().encode(),
        case.annotated(parent=Ancestor(6, "0" * 64)),
    ),
    "more than is allowed": lambda case: (bytes(MAX_CERTIFICATE_BYTES + 1), b""),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_bad_papers_are_refused_and_others_give_good_ones(case, sim, forgery):
    async def scenario():
        await case.stranger("liar", *FORGED[forgery](case))
        await case.donor("honest")
        assert await case.fetch("liar") == Papers()
        assert await case.fetch("liar", "honest") == case.papers
        assert {donor: kind for donor, (kind, _) in case.refused.items()} == {"liar": "misbehaved"}

    sim.run(scenario())


def test_who_gives_nothing_or_is_silent_is_named_and_nobody_waits_for_ever(case, sim):
    async def scenario():
        await case.stranger("halves", b"")
        await case.stranger("empty", b"", b"")
        case.swarm.transport("old")
        began_s = asyncio.get_running_loop().time()
        assert await case.fetch("halves", "empty", "old", "gone") == Papers()
        assert asyncio.get_running_loop().time() - began_s < 60
        assert {donor: kind for donor, (kind, _) in case.refused.items()} == {
            "halves": "unreachable",
            "old": "unreachable",
            "gone": "unreachable",
        }

    sim.run(scenario())


def test_half_of_the_papers_is_better_than_nothing_and_all_is_better(case, sim):
    certificate, annotation = case.papers.to_frames()

    async def scenario():
        await case.stranger("half", b"", annotation)
        await case.stranger("other", certificate, b"")
        assert (await case.fetch("half")).count == 1
        assert (await case.fetch("other")).generation == case.newest.generation
        await case.donor("whole")
        assert await case.fetch("half", "other", "whole") == case.papers
        assert case.refusals == []

    sim.run(scenario())


def test_others_are_asked_where_the_first_ones_have_nothing(case, sim):
    async def scenario():
        strangers = [f"stranger{number}" for number in range(20)]
        for name in strangers:
            await case.stranger(name, b"", b"")
        await case.donor("whole")
        assert await case.fetch(*strangers, "whole") == case.papers

    sim.run(scenario())


def test_a_donor_declines_what_it_has_not_and_what_is_damaged_there(case, sim):
    async def ask(root):
        await call(
            case.joiner, "a", scoped(case.run.run_id, PAPERS), {"root": root}, timeout_s=10.0
        )

    async def scenario():
        server = await case.donor("a")
        with pytest.raises(DeclinedError, match="that state is not here"):
            await ask("00" * 32)
        path = case.run.checkpoints_path / case.store.names()[0] / "annotation.json"
        path.write_text("{")
        with pytest.raises(DeclinedError, match="cannot be read here"):
            await ask(case.newest.state_root)
        for junk in (None, 5, "../../etc/passwd"):
            with pytest.raises(DeclinedError, match="a request names a root"):
                await ask(junk)
        assert server.refused == {"unknown": 1, "damaged": 1, "malformed": 3}

    sim.run(scenario())


def test_the_frames_of_papers_read_back(case):
    for papers in (
        Papers(),
        case.papers,
        Papers(certificate=case.papers.certificate),
        Papers(annotation=case.papers.annotation),
    ):
        assert Papers.from_frames(*papers.to_frames()) == papers
