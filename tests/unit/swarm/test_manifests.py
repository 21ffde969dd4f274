"""A run arrives whole from strangers, or not at all, and what is wrong is said in one sentence."""

import asyncio
import hashlib

import pytest

from peer.errors import ConfigurationError
from peer.run.directory import RunDirectory, add_blob
from peer.run.manifest import (
    AdamW,
    BatchSection,
    DataSection,
    Manifest,
    ModelSection,
    TaskSection,
    TokenizerSection,
    dump_manifest,
)
from peer.run.signature import sign_manifest, signers_of
from peer.swarm.blobs import FRAME_BYTES, BlobServer
from peer.swarm.download import FetchError
from peer.swarm.manifests import fetch_manifest, fetch_run
from peer.swarm.throttle import Throttle
from peer.swarm.wire import scoped

STATE = bytes(range(256)) * (2 * FRAME_BYTES // 256) + b"end"
FAST = 1 << 30


def write_run(path, founder, config=b'{"model_type": "gpt2"}'):
    path.mkdir()
    manifest = Manifest(
        name="tiny",
        founders=(founder.peer_id,),
        initial_state=add_blob(path, STATE),
        task=TaskSection(name="causal-lm", sequence_length=16),
        model=ModelSection(config=add_blob(path, config)),
        tokenizer=TokenizerSection(files={"tokenizer.json": add_blob(path, b"{}")}),
        data=DataSection(index=add_blob(path, b'{"shards": []}')),
        optimizer=AdamW(lr=1e-2),
        batch=BatchSection(target_loss_terms=128),
    )
    return RunDirectory.create(path, manifest)


@pytest.fixture
def run(tmp_path, identities):
    return write_run(tmp_path / "founded", identities[0])


class Scene:
    """A run, those who give it, and somebody who has nothing but its id."""

    def __init__(self, sim, run, founder, folder):
        self.swarm = sim.MemorySwarm()
        self.joiner = self.swarm.transport("joiner")
        self.run, self.runs_path = run, folder / "runs"
        self.signatures = sign_manifest(run.manifest, founder)
        self.refusals = []
        self.seen = []
        self.at_frame = {}

    @property
    def joined_path(self):
        return self.runs_path / self.run.run_id

    async def donor(self, name="d", text=None, signatures=None, find=None):
        transport = self.swarm.transport(name)
        manifest = (text or dump_manifest(self.run.manifest), signatures or self.signatures)
        find = find or self.run.find_blob
        await BlobServer(transport, self.run.run_id, find, manifest, Throttle(FAST)).start()
        return transport

    async def answering(self, name, header, body):
        async def handler(channel):
            await channel.receive()
            await channel.send(header, body)

        transport = self.swarm.transport(name)
        await transport.serve(scoped(self.run.run_id, "manifest"), handler)

    async def fetch(self, *donors):
        def on_progress(*what):
            self.seen.append(what)
            self.at_frame.get(len(self.seen), lambda: None)()

        return await fetch_run(
            self.joiner,
            self.run.run_id,
            donors or ("d",),
            self.runs_path,
            on_progress,
            self.refusals.append,
        )

    async def manifest(self, *donors):
        return await fetch_manifest(
            self.joiner, self.run.run_id, donors, on_refusal=self.refusals.append
        )


@pytest.fixture
def scene(sim, run, identities, tmp_path):
    return Scene(sim, run, identities[0], tmp_path)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_stranger_gets_all_that_the_manifest_names(sim, scene, identities):
    async def go():
        await scene.donor()
        return await scene.fetch()

    joined = sim.run(go())
    assert joined.path == scene.joined_path
    assert joined.run_id == scene.run.run_id
    assert signers_of(RunDirectory.open(joined.path)) == (identities[0].peer_id,)
    (scene.run.path / "run.sig").write_text(scene.signatures)
    assert contents(joined.path) == contents(scene.run.path)
    named = {what for what, _ in scene.run.blob_hashes()}
    assert {what for what, _, _ in scene.seen} == named
    assert ("the initial state", len(STATE), len(STATE)) in scene.seen


def test_an_unsigned_run_is_joined_too(sim, scene):
    async def go():
        await scene.answering("d", {"signatures": None}, dump_manifest(scene.run.manifest).encode())
        answer = await scene.manifest("d")
        assert answer.signatures is None
        assert answer.manifest == scene.run.manifest

    sim.run(go())


def test_a_fetch_cut_after_every_frame_is_no_run_until_its_last(sim, scene):
    frames = 3 + 3  # of the small files, and of the initial state

    async def go():
        await scene.donor()
        for frame in range(1, frames):
            scene.at_frame = {frame: lambda: scene.swarm.sever("joiner", "d")}
            with pytest.raises(FetchError, match=r"nobody gave the .* there is no way to d"):
                await scene.fetch()
            assert len(scene.seen) == frame
            with pytest.raises(ConfigurationError, match="there is no run"):
                RunDirectory.open(scene.joined_path)
            scene.swarm.mend("joiner", "d")
        await scene.fetch()
        assert len(scene.seen) == frames

    sim.run(go())
    assert RunDirectory.open(scene.joined_path).read_blob(scene.run.manifest.initial_state) == STATE
    assert not list(scene.joined_path.rglob("*.part"))


def test_a_run_that_is_here_needs_nobody(sim, scene):
    async def go():
        await scene.donor()
        await scene.fetch()
        before = contents(scene.joined_path)
        scene.swarm.kill("d")
        await scene.fetch()
        assert contents(scene.joined_path) == before

    sim.run(go())
    assert scene.refusals == []


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_a_run_that_is_here_in_part_is_mended(harm, sim, scene):
    async def go():
        await scene.donor()
        joined = await scene.fetch()
        path = joined.blob_path(joined.manifest.initial_state)
        path.write_bytes(b"damaged")
        if harm == "gone":
            path.unlink()
        assert (await scene.fetch()).read_blob(joined.manifest.initial_state) == STATE

    sim.run(go())


def test_a_manifest_of_another_run_is_refused_and_the_next_donor_asked(sim, scene):
    other = scene.run.manifest.model_copy(update={"batch": BatchSection(target_loss_terms=129)})

    async def go():
        await scene.donor("liar", dump_manifest(other))
        await scene.donor("honest")
        with pytest.raises(
            FetchError, match=r"liar sent the manifest of tiny-\w+, whose hash is n"
        ):
            await scene.manifest("liar")
        answer = await scene.manifest("liar", "honest")
        assert answer.manifest == scene.run.manifest

    sim.run(go())
    assert {(r.donor, r.kind) for r in scene.refusals} == {("liar", "misbehaved")}


@pytest.mark.parametrize("field", ["protocol", "schema_version"])
@pytest.mark.parametrize(("value", "advice"), [(2, "update ctpeer"), (0, "an older ctpeer")])
def test_a_manifest_of_another_version_says_what_to_do(field, value, advice, sim, scene):
    text = dump_manifest(scene.run.manifest).replace(f"{field} = 1", f"{field} = {value}")
    text += "\n[something_new]\nx = 1\n"
    word = field.replace("_", " ")
    message = rf"the run {scene.run.run_id} \w+ {word} {value}, this ctpeer 1: .*{advice}"

    async def go():
        await scene.donor("other", text)
        with pytest.raises(ConfigurationError, match=message):
            await scene.fetch("dead", "other")

    sim.run(go())
    assert not scene.joined_path.exists()


def test_a_lie_about_the_version_stops_nobody(sim, scene):
    async def go():
        await scene.answering("liar", {}, b"protocol = 2\n")
        await scene.donor("honest")
        assert (await scene.fetch("liar", "honest")).run_id == scene.run.run_id

    sim.run(go())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"protocol = ",
        b"protocol = '2'",
        b"protocol = nan",
        b"protocol = -1",
        b"protocol = 1",
        b"protocol = " + b"9" * 4000,
        b"a = " + b"[" * 50_000,
        b".".join([b"a"] * 60_000) + b" = 1",
        b"x = 1\n" * 2,
        b"#" * (1 << 20),
    ],
    ids=range(12),
)
def test_junk_in_place_of_a_manifest_is_refused_in_one_line(body, sim, scene):
    async def go():
        await scene.answering("junk", {"signatures": None}, body)
        await scene.donor("honest")
        with pytest.raises(FetchError) as caught:
            await scene.manifest("junk")
        assert str(caught.value).isprintable()
        assert (await scene.manifest("junk", "honest")).manifest == scene.run.manifest

    sim.run(go())
    assert {r.donor: r.kind for r in scene.refusals} == {"junk": "misbehaved"}


@pytest.mark.parametrize("signatures", [5, [], {}, "junk", "[{}]", "[" * 50_000, "forged"])
def test_signatures_that_are_not_good_are_refused(signatures, sim, scene, identities):
    if signatures == "forged":
        other = scene.run.manifest.model_copy(update={"name": "other"})
        signatures = sign_manifest(other, identities[0])

    async def go():
        text = dump_manifest(scene.run.manifest).encode()
        await scene.answering("liar", {"signatures": signatures}, text)
        await scene.donor("honest")
        answer = await scene.manifest("liar", "honest")
        assert answer.signatures == scene.signatures

    sim.run(go())
    assert [(r.donor, r.kind) for r in scene.refusals] == [("liar", "misbehaved")]


def test_a_silent_donor_costs_its_time_and_no_more(sim, scene):
    async def go():
        await scene.donor("frozen")
        scene.swarm.frozen.add("frozen")
        await scene.donor("honest")
        await scene.manifest("frozen", "honest")
        assert asyncio.get_running_loop().time() < 11

    sim.run(go())
    assert [r.kind for r in scene.refusals] == ["unreachable"]


def test_nobody_who_serves_the_run_is_said_with_each_reason(sim, scene):
    async def go():
        scene.swarm.transport("elsewhere")
        message = rf"nobody gave the manifest of {scene.run.run_id} \(dead: there is no way to dead"
        with pytest.raises(FetchError, match=message) as caught:
            await scene.fetch("dead", "elsewhere")
        assert "elsewhere does not serve" in str(caught.value)

    sim.run(go())
    assert not scene.runs_path.exists()


def test_a_file_that_nobody_gives_is_named(sim, scene):
    def find(sha256):
        return None if sha256 == scene.run.manifest.initial_state else scene.run.find_blob(sha256)

    async def go():
        await scene.donor(find=find)
        with pytest.raises(
            FetchError, match=rf"nobody gave the initial state of {scene.run.run_id}"
        ):
            await scene.fetch()

    sim.run(go())


def test_a_file_larger_than_it_may_be_is_refused(sim, tmp_path, identities):
    run = write_run(tmp_path / "huge", identities[0], config=b" " * ((1 << 20) + 1))
    scene = Scene(sim, run, identities[0], tmp_path)

    async def go():
        await scene.donor()
        with pytest.raises(FetchError, match=r"the model configuration .* 1048576 are the most"):
            await scene.fetch()

    sim.run(go())


def test_lies_about_a_file_are_mended_by_another_donor(sim, scene):
    def lie(sha256):
        data = scene.run.read_blob(sha256)
        return data[:-1] + b"!"

    async def go():
        await scene.donor("liar", find=lie)
        await scene.donor("honest")
        return await scene.fetch("liar", "honest")

    joined = sim.run(go())
    for _, hash_ in joined.blob_hashes():
        assert hashlib.sha256(joined.read_blob(hash_)).hexdigest() == hash_
    assert {(r.donor, r.kind) for r in scene.refusals} == {("liar", "misbehaved")}


def test_without_room_the_sentence_says_what_to_do(sim, scene, tmp_path):
    scene.runs_path.write_text("a file in the way")

    async def go():
        await scene.donor()
        with pytest.raises(ConfigurationError, match=r"cannot be written: .*--home"):
            await scene.fetch()

    sim.run(go())
