"""One checkpoint is fetched by a person's word: whole, with its papers, or not at all."""

import asyncio
import contextlib
import errno
import os
import shutil
import threading
import time

import pytest

from peer.checkpoint import shelf as shelf_module
from peer.checkpoint.lineage import stored
from peer.checkpoint.offers import offered_by
from peer.checkpoint.papers import PAPERS
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.snapshot import CHUNK, HEADER, SNAPSHOTS, SnapshotServer
from peer.checkpoint.staging import Staging
from peer.checkpoint.store import CheckpointStore
from peer.checkpoint.verify import verify_checkpoint
from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.daemon import fetching
from peer.daemon.fetching import Errand, fetch_checkpoint
from peer.errors import ConfigurationError, CtpeerError, PeerError, UsageError
from peer.run.directory import RunDirectory
from peer.swarm.download import Refusal
from peer.swarm.testimony import Good
from peer.swarm.throttle import Throttle
from peer.swarm.wire import scoped


class Watcher:
    def __init__(self):
        self.stages = []
        self.roots = []
        self.bytes = []

    def stage(self, words):
        self.stages.append(words)

    def picked(self, state_root):
        self.roots.append(state_root)

    def progress(self, done, total):
        self.bytes.append((done, total))


class MemoryVisit:
    """A visit to peers in memory; `said` is what they hold to be good."""

    trouble = ""

    def __init__(self, town):
        self._town = town
        self.transport = town.swarm.transport("visitor")
        self.said = {}

    async def offered(self, on_refusal):
        found = {}
        for peer in sorted(self._town.swarm.alive - {"visitor"}):
            try:
                found[peer] = await offered_by(self.transport, self._town.run_id, peer, 4.0)
            except PeerError as error:
                on_refusal(Refusal.of(peer, error))
        return found

    async def good(self, peers):
        return {peer: good for peer, good in self.said.items() if peer in peers}


class Town:
    """Peers in memory that have a real run's checkpoints, and a home that has the run only."""

    def __init__(self, swarm, donors_home, folder, monkeypatch):
        (self.run_id,) = donors_home.run_ids()
        theirs = RunDirectory.open(donors_home.run_path(self.run_id))
        self.theirs = Shelf(theirs.checkpoints_path)
        self.store = CheckpointStore(theirs.checkpoints_path, theirs.manifest_hash, keep=9)
        self.home = Home(folder / "guest")
        self.home.prepare()
        self.run = theirs.import_into(self.home.runs_path)
        self.shelf = Shelf(self.run.checkpoints_path)
        self.swarm = swarm
        self.visit = MemoryVisit(self)
        self.watcher = Watcher()
        self.asked = []

        @contextlib.asynccontextmanager
        async def visiting(*_arguments):
            yield self.visit

        monkeypatch.setattr(fetching, "visiting", visiting)

    async def donor(self, name, limiter=None, store=None):
        transport = self.swarm.transport(name)
        server = SnapshotServer(
            transport, self.run_id, store or self.store, limiter or Throttle(None)
        )
        await server.start()
        return transport

    def fetch(self, wish="newest", **given):
        fields = {
            "home": self.home,
            "settings": SwarmSettings(),
            "run": self.run,
            "shelf": self.shelf,
            "wish": wish,
            "addresses": (),
            "timeout_s": 60.0,
            "watcher": self.watcher,
        }
        return fetch_checkpoint(Errand(**(fields | given)))

    def root(self, epoch):
        return next(s.state_root for s in self.store.roots() if s.epoch == epoch)

    def good(self, state_root, verdict="a"):
        return Good(round=1, verdict=verdict * 64, state_root=state_root, generation=0)

    def here(self):
        return stored(self.shelf, self.run.manifest_hash)

    def only(self):
        (entry,) = self.here()
        return entry

    def staged(self):
        return sorted(path.name for path in (self.shelf.folder / ".fetching").iterdir())


@pytest.fixture
def town(sim, home, trained_home, tmp_path, monkeypatch):
    donors = Home(shutil.copytree(trained_home, tmp_path / "donors"))
    return Town(sim.MemorySwarm(), donors, tmp_path, monkeypatch)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_newest_comes_whole_with_its_papers_and_verifies(town):
    async def scenario():
        await town.donor("a")
        await town.donor("b")
        return await town.fetch()

    fetched = asyncio.run(scenario())
    assert (fetched.fresh, fetched.donors, fetched.refusals) == (True, ("a", "b"), ())
    entry = town.only()
    assert entry.state_root == fetched.entry.state_root == town.root(7)
    assert entry.fetched
    theirs = stored(town.theirs, town.run.manifest_hash)[0]
    assert entry.annotation == theirs.annotation
    assert entry.head.certificate == theirs.head.certificate
    assert (entry.generation, entry.parent) == (theirs.generation, theirs.parent)
    report = verify_checkpoint(town.shelf, entry.name, town.run)
    assert report.good
    assert "it was fetched by hand: training does not go on from it" in report.notes
    assert town.watcher.bytes[-1][0] == town.watcher.bytes[-1][1] > 0
    assert town.watcher.roots == [entry.state_root]
    assert town.staged() == []


def test_a_beginning_of_a_root_is_enough_and_what_is_here_is_not_fetched_again(town):
    async def scenario():
        await town.donor("a")
        first = await town.fetch(town.root(4)[:9])
        again = [await town.fetch(wish) for wish in (town.root(4)[:9], town.root(4))]
        return first, again

    first, again = asyncio.run(scenario())
    assert (first.fresh, first.entry.state_root) == (True, town.root(4))
    assert [(one.fresh, one.entry.state_root) for one in again] == [(False, town.root(4))] * 2
    assert town.only().epoch == 4


def test_what_was_fetched_is_given_to_others(town, sim):
    async def scenario():
        await town.donor("a")
        await town.fetch()
        town.swarm.kill("a")
        ours = CheckpointStore(town.shelf.folder, town.run.manifest_hash, keep=1)
        transport = town.swarm.transport("guest")
        await SnapshotServer(transport, town.run_id, ours, Throttle(None)).start()
        other = town.home.path.parent / "third"
        return await town.fetch(shelf=Shelf(other / "checkpoints"))

    assert asyncio.run(scenario()).donors == ("guest",)


def test_bad_papers_are_refused_and_the_state_is_here_without_any(town):
    async def scenario():
        liar = await town.donor("liar")

        async def give(channel):
            await channel.receive()
            await channel.send({}, b"{}")
            await channel.send({}, b"")

        await liar.serve(scoped(town.run_id, PAPERS), give)
        return await town.fetch()

    fetched = asyncio.run(scenario())
    assert [(one.donor, one.kind) for one in fetched.refusals] == [("liar", "misbehaved")]
    entry = town.only()
    assert (entry.annotation, entry.head.certificate, entry.problem) == (None, None, None)
    report = verify_checkpoint(town.shelf, entry.name, town.run)
    assert report.good
    assert "it has no annotation: it was fetched without one" in report.notes
    assert "no certificate lies beside it: it was fetched without one" in report.notes


def test_whoever_claims_a_later_epoch_for_a_state_is_refused_and_the_next_one_fetched(town):
    async def scenario():
        liar = await town.donor("liar")
        await town.donor("honest", store=without_five)

        async def give(channel):
            await channel.receive()
            await channel.send({"roots": {town.root(5): 10**9, "ab" * 32: 10**9 + 1}})

        await liar.serve(scoped(town.run_id, SNAPSHOTS), give)
        return await town.fetch()

    folder = shutil.copytree(town.theirs.folder, town.home.path / "without-five")
    shutil.rmtree(folder / town.theirs.names()[1])
    without_five = CheckpointStore(folder, town.run.manifest_hash, keep=9)
    fetched = asyncio.run(scenario())
    assert fetched.entry.state_root == town.root(7)
    assert [(one.donor, one.kind) for one in fetched.refusals] == [
        ("liar", "declined"),
        ("liar", "misbehaved"),
    ]
    assert "is of epoch 5, not of 1000000000" in fetched.refusals[1].reason


def test_a_root_that_a_person_names_is_fetched_whatever_epoch_is_claimed(town):
    async def scenario():
        liar = await town.donor("liar")

        async def give(channel):
            await channel.receive()
            await channel.send({"roots": {town.root(5): 10**9}})

        await liar.serve(scoped(town.run_id, SNAPSHOTS), give)
        return await town.fetch(town.root(5))

    assert asyncio.run(scenario()).fresh
    assert town.only().epoch == 5


def test_good_is_what_most_of_the_peers_say(town):
    async def scenario():
        for name in "abc":
            await town.donor(name)
        good, other = town.good(town.root(4)), town.good(town.root(7), verdict="b")
        town.visit.said = {"a": good, "b": good, "c": other}
        town.visit.said |= {f"key{number}": other for number in range(50)}  # nobody there
        return await town.fetch("good")

    assert asyncio.run(scenario()).entry.state_root == town.root(4)


def test_who_may_judge_by_what_is_here_is_asked_and_nobody_else(town, monkeypatch):
    monkeypatch.setattr(fetching, "_LOOK_S", 0.0)
    monkeypatch.setattr(fetching._Fetching, "_electorate", lambda _self: {"a", "away"})

    async def scenario(said):
        for name in "abc":
            await town.donor(name)
        town.visit.said = said
        return await town.fetch("good")

    good, other = town.good(town.root(4)), town.good(town.root(7), verdict="b")
    said = {"a": good, "b": other, "c": other}
    assert asyncio.run(scenario(said)).entry.state_root == town.root(4)
    with pytest.raises(CtpeerError, match="do not agree on one good state"):
        asyncio.run(scenario({"b": other, "c": other}))


def test_where_most_do_not_agree_on_a_good_state_there_is_none(town, monkeypatch):
    monkeypatch.setattr(fetching, "_LOOK_S", 0.0)

    async def scenario():
        for name in "ab":
            await town.donor(name)
        town.visit.said = {
            "a": town.good(town.root(4)),
            "b": town.good(town.root(5), verdict="b"),
        }
        await town.fetch("good")

    with pytest.raises(CtpeerError, match=r"2 peers of .* do not agree on one good state"):
        asyncio.run(scenario())


def test_before_a_verdict_accepted_one_no_state_is_good(town):
    async def scenario():
        await town.donor("a")
        town.visit.said = {"a": town.good(fetching.initial_root(town.run))}
        await town.fetch("good")

    with pytest.raises(CtpeerError, match=r"no verdict has accepted a state .* newest state"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("newest", "no peer of .* could be reached"),
        ("ab", "no peer of .* could be reached"),
        ("ab" * 32, "no peer of .* could be reached"),
    ],
)
def test_where_nobody_is_there_that_is_said(town, monkeypatch, wish, words):
    monkeypatch.setattr(fetching, "_LOOK_S", 0.0)
    with pytest.raises(CtpeerError, match=words):
        asyncio.run(town.fetch(wish))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("fffff", "1 peer of .* answered, and none offers a state fffff"),
        ("ff" * 32, "nobody gave the snapshot ffffffffffff .*that state is not here"),
    ],
)
def test_what_nobody_has_is_named(town, monkeypatch, wish, words):
    monkeypatch.setattr(fetching, "_LOOK_S", 0.0)

    async def scenario():
        await town.donor("a")
        await town.fetch(wish)

    with pytest.raises(CtpeerError, match=words) as caught:
        asyncio.run(scenario())
    assert caught.value.exit_code == 1
    assert town.here() == []


def test_peers_that_come_a_little_later_are_found(town, monkeypatch):
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.01)

    async def scenario():
        fetch = asyncio.create_task(town.fetch())
        await asyncio.sleep(0.1)
        await town.donor("late")
        return await fetch

    assert asyncio.run(scenario()).donors == ("late",)


def test_a_full_disk_loses_nothing_and_the_next_call_needs_no_donor(town, monkeypatch):
    real = fetching.write_files

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario():
        donor = await town.donor("a")
        monkeypatch.setattr(fetching, "write_files", full)
        with pytest.raises(ConfigurationError, match=r"No space left.*goes on with what it has"):
            await town.fetch()
        assert town.here() == []
        assert town.staged() == [town.root(7)]
        monkeypatch.setattr(fetching, "write_files", real)
        for name in (HEADER, CHUNK):
            del donor.handlers[scoped(town.run_id, name)]
        return await town.fetch()

    assert asyncio.run(scenario()).fresh
    assert verify_checkpoint(town.shelf, town.only().name, town.run).good
    assert town.staged() == []


@pytest.mark.parametrize("call", ["os.mkdir", "os.rename", "os.fsync"])
def test_a_disk_that_fails_at_any_call_leaves_nothing_half(town, monkeypatch, call):
    async def scenario():
        await town.donor("a")
        (town.shelf.folder / ".fetching" / town.root(7)).mkdir(parents=True)
        name = call.removeprefix("os.")

        def fail(*_arguments, **_keywords):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        real = town.shelf.add

        def add(*arguments, **keywords):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(shelf_module.os, name, fail)
                return real(*arguments, **keywords)

        monkeypatch.setattr(town.shelf, "add", add)
        with pytest.raises(ConfigurationError, match="cannot be written"):
            await town.fetch()
        assert town.here() == []
        assert town.staged() == [town.root(7)]
        monkeypatch.setattr(town.shelf, "add", real)
        return await town.fetch()

    assert asyncio.run(scenario()).fresh


def test_a_donor_that_gives_nothing_is_given_up_and_what_came_stays(town):
    async def scenario():
        donor = await town.donor("a")

        async def give(channel):
            await asyncio.sleep(100)

        await donor.serve(scoped(town.run_id, CHUNK), give)
        await town.fetch(timeout_s=0.5)

    root = town.root(7)  # the others of that donor are not tried
    with pytest.raises(CtpeerError, match=f"nothing moved for .* fetch {root}` goes on from there"):
        asyncio.run(scenario())
    assert town.staged() == [root]


def test_what_is_done_here_may_take_longer_than_a_peer_may(town, monkeypatch):
    def slowly(method):
        def call(*arguments):
            time.sleep(1.0)
            return method(*arguments)

        return call

    for name in ("begin", "missing", "load"):
        monkeypatch.setattr(Staging, name, slowly(getattr(Staging, name)))

    async def scenario():
        await town.donor("a")
        return await town.fetch(timeout_s=0.8)

    assert asyncio.run(scenario()).fresh


def test_a_liar_that_names_a_later_state_and_gives_nothing_is_left_for_the_next_one(town):
    async def scenario():
        liar = await town.donor("liar")
        await town.donor("honest")

        async def offer(channel):
            await channel.receive()
            await channel.send({"roots": {f"{n:064x}": 10**9 + n for n in range(60)}})

        async def give(channel):
            await asyncio.sleep(100)

        await liar.serve(scoped(town.run_id, SNAPSHOTS), offer)
        await liar.serve(scoped(town.run_id, HEADER), give)
        return await town.fetch(timeout_s=0.5)

    half = town.shelf.folder / ".fetching" / town.root(5) / "0"
    half.parent.mkdir(parents=True)
    half.touch()
    fetched = asyncio.run(scenario())
    assert fetched.entry.state_root == town.root(7)
    assert {(one.donor, one.kind) for one in fetched.refusals} == {("liar", "unreachable")}


def test_a_later_state_that_nobody_gives_takes_nothing_away_that_came_before(town):
    async def scenario():
        liar = await town.donor("liar")

        async def offer(channel):
            await channel.receive()
            await channel.send({"roots": {"ab" * 32: 10**9, town.root(5): 10**9}})

        await liar.serve(scoped(town.run_id, SNAPSHOTS), offer)
        with pytest.raises(CtpeerError, match="ask again later"):
            await town.fetch()

    half = town.shelf.folder / ".fetching" / town.root(4) / "0"
    half.parent.mkdir(parents=True)
    half.touch()
    asyncio.run(scenario())
    assert half.exists()


def test_a_state_that_lies_here_is_not_taken_for_the_newest_by_a_liars_word(town):
    async def scenario():
        liar = await town.donor("liar")
        await town.donor("honest")
        await town.fetch(town.root(5))

        async def offer(channel):
            await channel.receive()
            await channel.send({"roots": {town.root(5): 10**9}})

        await liar.serve(scoped(town.run_id, SNAPSHOTS), offer)
        return await town.fetch()

    assert asyncio.run(scenario()).entry.epoch == 7


def test_a_root_that_one_peer_names_is_asked_of_all_the_others_too(town):
    async def scenario():
        liar = await town.donor("liar")
        honest = await town.donor("honest")

        async def offer(channel):
            await channel.receive()
            await channel.send({"roots": {town.root(4): 4}})

        async def offer_nothing(channel):
            await channel.receive()
            await channel.send({"roots": {}})

        await liar.serve(scoped(town.run_id, SNAPSHOTS), offer)
        del liar.handlers[scoped(town.run_id, CHUNK)]
        await honest.serve(scoped(town.run_id, SNAPSHOTS), offer_nothing)
        return await town.fetch(town.root(4))

    fetched = asyncio.run(scenario())
    assert (fetched.fresh, fetched.donors) == (True, ("liar", "honest"))


def test_an_interruption_while_it_is_written_waits_until_that_is_done(town, monkeypatch):
    real, begun, go_on = fetching.write_files, threading.Event(), threading.Event()

    def write_files(*arguments):
        begun.set()
        assert go_on.wait(60)
        real(*arguments)

    async def scenario():
        await town.donor("a")
        fetch = asyncio.create_task(town.fetch())
        await asyncio.to_thread(begun.wait, 60)
        fetch.cancel()
        await asyncio.wait([fetch], timeout=0.2)
        with pytest.raises(ConfigurationError, match="another `ctpeer checkpoint fetch`"):
            await town.fetch()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await fetch

    monkeypatch.setattr(fetching, "write_files", write_files)
    asyncio.run(scenario())
    assert town.only().state_root == town.root(7)


def test_what_is_interrupted_goes_on_from_there(town):
    async def scenario():
        await town.donor("a")

        def stop(done, total):
            town.watcher.bytes.append((done, total))
            if 0 < done < total:
                raise KeyboardInterrupt

        town.watcher.progress = stop
        await town.fetch(town.root(7))

    async def again():
        town.watcher = Watcher()
        await town.donor("a")
        return await town.fetch(town.root(7))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(scenario())
    assert town.staged() == [town.root(7)]
    assert asyncio.run(again()).fresh
    assert town.watcher.bytes[0][0] > 0


def test_what_an_interrupted_call_left_of_a_state_that_is_here_goes(town):
    async def scenario():
        await town.donor("a")
        await town.fetch()
        (town.shelf.folder / ".fetching" / town.root(7)).mkdir()
        return await town.fetch()

    assert not asyncio.run(scenario()).fresh
    assert town.staged() == []


def test_two_at_once_do_not_collide(town):
    async def scenario():
        await town.donor("a", Throttle(1 << 16))
        first = asyncio.create_task(town.fetch())
        while not town.watcher.bytes:  # noqa: ASYNC110 nothing tells us
            await asyncio.sleep(0.01)
        with pytest.raises(ConfigurationError, match="another `ctpeer checkpoint fetch`"):
            await town.fetch(town.root(4))
        return await first

    assert asyncio.run(scenario()).entry.state_root == town.root(7)


@pytest.mark.parametrize("file", ["state.safetensors", "checkpoint.json"])
def test_our_own_damaged_checkpoint_is_left_for_the_person(town, file):
    name = town.theirs.names()[0]
    shutil.copytree(town.theirs.path(name), town.shelf.path(name))
    flip(town.shelf.path(name) / file)

    async def scenario():
        await town.donor("a")
        await town.fetch()

    with pytest.raises(ConfigurationError, match=f"{name} lies here and is damaged"):
        asyncio.run(scenario())
    assert town.only().name == name


@pytest.mark.parametrize("file", ["state.safetensors", "annotation.json", "checkpoint.json"])
def test_a_fetched_one_that_was_damaged_is_fetched_anew(town, file):
    async def scenario():
        await town.donor("a")
        await town.fetch()
        flip(town.shelf.path(town.only().name) / file)
        return await town.fetch()

    assert asyncio.run(scenario()).fresh
    entry = town.only()
    assert entry.problem is None
    assert verify_checkpoint(town.shelf, entry.name, town.run).good
    assert town.shelf.damaged() == []


def test_what_the_daemon_puts_in_the_place_of_a_damaged_one_meanwhile_stays(town, monkeypatch):
    name = town.theirs.names()[0]
    real = fetching.write_files

    def write_files(*arguments):
        real(*arguments)
        shutil.rmtree(town.shelf.path(name))
        shutil.copytree(town.theirs.path(name), town.shelf.path(name))

    async def scenario():
        await town.donor("a")
        await town.fetch()
        flip(town.shelf.path(name) / "state.safetensors")
        monkeypatch.setattr(fetching, "write_files", write_files)
        return await town.fetch()

    asyncio.run(scenario())
    assert not town.only().fetched
    assert town.staged() == []


def test_a_daemon_that_comes_to_the_same_state_meanwhile_keeps_its_own(town, monkeypatch):
    name = town.theirs.names()[0]
    real = fetching.write_files

    def write_files(*arguments):
        real(*arguments)
        shutil.copytree(town.theirs.path(name), town.shelf.path(name))

    monkeypatch.setattr(fetching, "write_files", write_files)

    async def scenario():
        await town.donor("a")
        return await town.fetch()

    assert asyncio.run(scenario()).entry.state_root == town.root(7)
    assert not town.only().fetched
    assert town.staged() == []


def test_several_states_that_begin_so_are_named(town):
    async def scenario():
        donor = await town.donor("a")

        async def give(channel):
            await channel.receive()
            await channel.send({"roots": {"ab" + "0" * 62: 1, "ab" + "1" * 62: 2}})

        await donor.serve(scoped(town.run_id, SNAPSHOTS), give)
        await town.fetch("ab")

    with pytest.raises(UsageError, match="ab is the beginning of 2 roots"):
        asyncio.run(scenario())
