"""Fetching one checkpoint of a run by a person's word, from its peers into the run's folder."""

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from peer import __version__
from peer.checkpoint.fetch import Patience, fetched_snapshot
from peer.checkpoint.format import Checkpoint, is_fetched, name_of, write_files
from peer.checkpoint.initial import initial_root, initial_schema
from peer.checkpoint.lineage import NEWEST, Entry, stored
from peer.checkpoint.papers import Claim, Papers, fetch_papers
from peer.checkpoint.pick import GOOD, ROOT_CHARS, Offered, Pick, pick
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.staging import Wanted
from peer.checkpoint.verify import verify_checkpoint
from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.daemon.visit import Visit, visiting
from peer.errors import ConfigurationError, CtpeerError, MisbehavedError
from peer.run.directory import RunDirectory
from peer.swarm.download import FetchError, Refusal
from peer.training.outer import initial_slots
from peer.training.state import GlobalState
from peer.validation.archive import Archive
from peer.validation.choice import most_good
from peer.validation.rules import Rules

_LOOK_S = 10.0
"""So long peers are looked for that have it."""
_PAUSE_S = 1.0
_TRIED = 8
"""So many of the newest states at most, where nobody gives those before."""
_ROUNDS = 16
"""So often it is begun anew where something came, and not all."""
_SHORT = 12

_Result = TypeVar("_Result")


class Watcher(Protocol):
    """Whoever is told how an errand goes on."""

    def stage(self, words: str) -> None:
        """Take what is done now."""
        ...

    def picked(self, state_root: str) -> None:
        """Take which state is meant."""
        ...

    def progress(self, done: int, total: int) -> None:
        """Take the bytes of the state that are here, and those there will be."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Errand:
    """What is to be fetched, and from where.

    Attributes:
        home: Where known peers are kept.
        settings: How peers are met.
        run: The run.
        shelf: Its checkpoints here.
        wish: A state root, the beginning of one, or the word `newest` or `good`.
        addresses: Of peers to begin with.
        timeout_s: How long a peer may give nothing before it is left.
        watcher: Is told how it goes on.
    """

    home: Home
    settings: SwarmSettings
    run: RunDirectory
    shelf: Shelf
    wish: str
    addresses: tuple[str, ...]
    timeout_s: float
    watcher: Watcher


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetched:
    """What came of it.

    Attributes:
        entry: The state, which is here now.
        fresh: Whether it was not here before.
        donors: Who was asked for it.
        refusals: Peers that gave nothing, or something wrong.
        seconds: How long it took.
    """

    entry: Entry
    fresh: bool
    donors: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    seconds: float


async def fetch_checkpoint(errand: Errand) -> Fetched:
    """Do `errand`. What it has so far stays on the disk when it ends before, however it ends.

    Raises:
        UsageError: Several states are meant.
        ConfigurationError: The disk is full or fails, no peer is known, or another one is at work.
        CtpeerError: Nobody gave it.
    """
    with errand.shelf.fetching() as folder:
        fetching = _Fetching(errand, folder)
        if len(errand.wish) == ROOT_CHARS:
            wish = Pick(errand.wish, None, ())
            if (entry := await fetching.here(wish)) is not None:
                return fetching.outcome(entry, wish, fresh=False)
        errand.watcher.stage("starting a node")
        run_id = errand.run.run_id
        async with visiting(errand.home, errand.settings, run_id, errand.addresses) as visit:
            return await fetching.run(visit)


class _Fetching:
    """An errand under way; what it has so far lies in `folder`."""

    def __init__(self, errand: Errand, folder: Path) -> None:
        self._errand = errand
        self._folder = folder
        self._schema = initial_schema(errand.run)
        self._refusals: list[Refusal] = []
        self._began_s = time.monotonic()
        self._begun: str | None = None
        self._came_bytes = 0

    async def run(self, visit: Visit) -> Fetched:
        """Look for the state and fetch it, a few times as long as something came of it."""
        problem = ""
        for _ in range(_ROUNDS):
            picks, before = await self._find(visit), len(self._refusals)
            for each in picks[:_TRIED]:
                if {*each.donors} <= self._silent(before):
                    continue
                if (entry := await self.here(each)) is not None:
                    return self.outcome(entry, each, fresh=False)
                try:
                    return self.outcome(await self._take(visit, each), each, fresh=True)
                except MisbehavedError as error:
                    problem = str(error)
                    self._refusals += [Refusal.of(donor, error) for donor in each.donors]
                except FetchError as error:
                    problem = str(error)
                    if self._came_bytes:
                        break  # whoever has the rest may be there now
            else:
                break
        advice = "ask again later, or name more peers with --peers"
        if self._begun is not None:
            advice += (
                f"; what is here stays, and `ctpeer checkpoint fetch {self._begun}` goes on from "
                "there"
            )
        raise CtpeerError(f"{problem}; {advice}")

    async def here(self, picked: Pick) -> Entry | None:
        """Return the state if it lies here, all of it good.

        Raises:
            ConfigurationError: Training here wrote it, and it is damaged.
        """
        entry = self._entry(picked.state_root)
        if entry is None or entry.name is None or picked.epoch not in (None, entry.epoch):
            return None
        shelf, run = self._errand.shelf, self._errand.run
        self._errand.watcher.stage(f"verifying {entry.name}, which lies here")
        try:
            report = await asyncio.to_thread(verify_checkpoint, shelf, entry.name, run)
        except LookupError:
            return None
        if not report.good and not entry.fetched:
            raise ConfigurationError(
                f"the checkpoint {shelf.path(entry.name)} lies here and is damaged: "
                f"{report.problems[0]}; move it away, and fetch it anew"
            )
        if report.good:  # whatever a call that was interrupted while it wrote left of it
            shutil.rmtree(self._folder / picked.state_root, ignore_errors=True)
        return entry if report.good else None

    def outcome(self, entry: Entry, picked: Pick, *, fresh: bool) -> Fetched:
        """Return what came of it."""
        return Fetched(
            entry=entry,
            fresh=fresh,
            donors=picked.donors,
            refusals=tuple(dict.fromkeys(self._refusals)),
            seconds=time.monotonic() - self._began_s,
        )

    def _silent(self, since: int) -> set[str]:
        """Return who gave nothing, among those that refused from the refusal `since` on."""
        return {each.donor for each in self._refusals[since:] if each.kind == "unreachable"}

    async def _find(self, visit: Visit) -> list[Pick]:
        """Return the states that are meant, once peers offer one."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + min(_LOOK_S, self._errand.timeout_s)
        self._errand.watcher.stage("looking for peers of the run")
        while True:
            refusals: list[Refusal] = []
            offered = await visit.offered(refusals.append)
            wish = self._errand.wish
            if wish == GOOD:
                wish = await self._good(visit, offered) or ""
            picks = pick(wish, offered) if wish else []
            if picks:
                self._refusals += refusals
                return picks
            if loop.time() >= until_s:
                raise CtpeerError(self._absence(visit, offered, refusals))
            await asyncio.sleep(_PAUSE_S)

    async def _good(self, visit: Visit, offered: Offered) -> str | None:
        """Return the root of the state that most peers hold to be good, if most agree."""
        said, known = await visit.good(offered.keys()), self._electorate()
        # Keys are cheap: whoever knows who may judge asks nobody else.
        good = most_good({peer: said[peer] for peer in said if not known or peer in known})
        if good is None:
            return None
        if good.state_root == await asyncio.to_thread(initial_root, self._errand.run):
            raise CtpeerError(
                f"no verdict has accepted a state of {self._errand.run.run_id} yet; wait for the "
                f"first one, or fetch the {NEWEST} state, which nobody judged"
            )
        return good.state_root

    def _electorate(self) -> set[str]:
        """Return who may judge by the last verdict that is here; nobody where there is none.

        Raises:
            DamagedError: It cannot be read. Nobody is asked instead of those who may judge.
        """
        run = self._errand.run
        folder = self._errand.shelf.folder.parent
        archive = Archive(RunDirectory(folder, run.manifest).verdicts_path)
        newest = next(archive.newest_first(), None)
        if newest is None:
            return set()
        return newest.judgement.after.electorate(Rules.of(run.run_id, run.manifest.validation))

    def _absence(self, visit: Visit, offered: Offered, refusals: list[Refusal]) -> str:
        run_id, wish = self._errand.run.run_id, self._errand.wish
        if not offered:
            reasons = [visit.trouble, *(f"{each.donor}: {each.reason}" for each in refusals)]
            named = "; ".join(filter(None, reasons))
            return (
                f"no peer of {run_id} could be reached{f' ({named})' if named else ''}; check the "
                "network, or name another peer with --peers or --invite"
            )
        count = f"{len(offered)} peer{'' if len(offered) == 1 else 's'} of {run_id}"
        if wish == GOOD:
            return (
                f"{count} answered, and most of them do not agree on one good state; ask again "
                f"later, or fetch the {NEWEST} state"
            )
        if wish == NEWEST:
            return f"{count} answered, and none of them has a checkpoint yet; ask again later"
        return (
            f"{count} answered, and none offers a state {wish}; they name only their newest ones: "
            "give all 64 digits of an older one"
        )

    async def _take(self, visit: Visit, picked: Pick) -> Entry:
        errand = self._errand
        short = picked.state_root[:_SHORT]
        errand.watcher.picked(picked.state_root)
        errand.watcher.stage(f"asking {len(picked.donors)} peers for {short}")
        wanted = Wanted(
            root=picked.state_root,
            manifest_hash=errand.run.manifest_hash,
            schema=self._schema,
            slots=initial_slots(errand.run.manifest.optimizer, self._schema.elements),
            epoch=picked.epoch,
        )
        async with self._fetched(visit, wanted, picked) as state:
            errand.watcher.stage(f"asking for the papers of {short}")
            claim = Claim(
                run_id=errand.run.run_id,
                manifest_hash=errand.run.manifest_hash,
                epoch=state.epoch,
                state_root=picked.state_root,
                generation=None,
                elements=self._schema.elements,
            )
            papers = await fetch_papers(
                visit.transport, claim, picked.donors, self._refusals.append
            )
            errand.watcher.stage(f"writing {short}")
            checkpoint = _checkpoint(state, picked.state_root, papers)
            return await _to_the_end(asyncio.to_thread(self._write, checkpoint, papers))

    def _fetched(
        self, visit: Visit, wanted: Wanted, picked: Pick
    ) -> AbstractAsyncContextManager[GlobalState]:
        """Return the state to come; it may take as long as something comes."""
        timeout_s = self._errand.timeout_s
        usual = Patience()
        before: int | None = None
        self._came_bytes = 0

        def note(done: int, total: int) -> None:
            nonlocal before
            before = done if before is None else before
            self._begun = wanted.root
            self._came_bytes = done - before
            self._errand.watcher.progress(done, total)

        return fetched_snapshot(
            visit.transport,
            self._errand.run.run_id,
            wanted,
            picked.donors,
            self._folder,
            note,
            self._refusals.append,
            Patience(
                open_s=min(usual.open_s, timeout_s),
                header_s=timeout_s,
                frame_s=min(usual.frame_s, timeout_s),
            ),
        )

    def _entry(self, state_root: str) -> Entry | None:
        """Return what lies here under the name of a state."""
        entries = stored(self._errand.shelf, self._errand.run.manifest_hash)
        named = (each for each in entries if each.name == name_of(each.epoch, state_root))
        return next(named, None)

    def _write(self, checkpoint: Checkpoint, papers: Papers) -> Entry:
        shelf, manifest_hash = self._errand.shelf, self._errand.run.manifest_hash
        name = checkpoint.name

        def write(target: Path) -> None:
            write_files(checkpoint, manifest_hash, target, papers.annotation)

        try:
            # A damaged one may be there; what training wrote stays in any case.
            shelf.add(
                name,
                write,
                self._folder / name,
                lambda: is_fetched(shelf.path(name), manifest_hash),
            )
        except OSError as error:
            after = self._entry(checkpoint.state_root)
            if after is not None and after.head is not None and not after.fetched:
                return after  # the daemon came to the same state meanwhile
            raise ConfigurationError(
                f"the checkpoint cannot be written to {shelf.folder}: {error.strerror or error}; "
                f"make room there: `ctpeer checkpoint fetch {checkpoint.state_root}` goes on "
                "with what it has"
            ) from error
        entry = self._entry(checkpoint.state_root)
        if entry is None:
            raise CtpeerError(f"the checkpoint {name} was dropped as soon as it was here")
        return entry


async def _to_the_end(work: Awaitable[_Result]) -> _Result:
    """Await `work` in a thread, also when cancelled: nobody else may write there before it ends."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _checkpoint(state: GlobalState, state_root: str, papers: Papers) -> Checkpoint:
    annotation, certificate = papers.annotation, papers.certificate
    return Checkpoint(
        state=state,
        state_root=state_root,
        generation=papers.generation or 0,
        place=None,
        certificate=certificate.to_json() if certificate is not None else None,
        code_version=annotation.notes.code_version if annotation is not None else __version__,
    )
