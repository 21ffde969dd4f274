"""The verdicts that `ctpeer verdicts` and `ctpeer validators` are about, read from the disk.

It needs no daemon, and works beside one: verdicts are written whole, and never dropped.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import click

from peer.cli.chosen import choose_run, print_about
from peer.config.home import resolve_home
from peer.errors import DamagedError
from peer.run.directory import RunDirectory
from peer.validation.archive import Archive
from peer.validation.rules import Rules
from peer.validation.verdict import Judgement, Verdict


class Kept:
    """A run with the verdicts that are kept of it.

    Args:
        run_name: What --run gives; None for the run that ran last.
        home: What --home gives.
        limit: Read no more than so many of the newest.

    Raises:
        ConfigurationError: There is no such run.
    """

    def __init__(self, run_name: str | None, home: str | None, limit: int | None = None) -> None:
        self.run = choose_run(run_name, home)
        self.newest_first: list[Verdict] = []
        self.problem: str | None = None
        archive = _archive(self.run, home)
        try:
            for verdict in itertools.islice(archive.newest_first(), limit):
                self.newest_first.append(verdict)
        except DamagedError as error:
            self.problem = str(error)

    @property
    def rules(self) -> Rules | None:
        """What the run's peers hold to; None where it has no validation."""
        section = self.run.manifest.validation
        return Rules.of(self.run.run_id, section) if section.every_epochs else None

    @property
    def newest(self) -> Judgement | None:
        """The judgement of the newest verdict."""
        return self.newest_first[0].judgement if self.newest_first else None

    @property
    def emptiness(self) -> str:
        """Why there is nothing to show, for a person."""
        if self.rules is None:
            return f"validation is off in {self.run.run_id}: its manifest has no every_epochs"
        return (
            f"there is no verdict of {self.run.run_id} here yet; the first candidate is the "
            f"checkpoint of epoch {self.rules.every_epochs:,}"
        )

    def print(self, body: Mapping[str, Any], text: str, *, as_json: bool) -> None:
        """Print `body` as JSON, or `text`; what is wrong with the files goes to stderr."""
        print_about(self.run, body, text, as_json=as_json)
        if self.problem is not None:
            click.echo(f"ctpeer: {self.problem}", err=True)


def size_word(judgement: Judgement) -> str:
    """Return what marks a verdict of fewer than a full committee; nothing for a full one."""
    if len(judgement.roster) == 1:
        return "lone peer"
    return "small swarm" if judgement.committee.size.is_small else ""


def _archive(run: RunDirectory, home: str | None) -> Archive:
    """Return the verdicts in the run's own directory, a backup's say, or those in the home."""
    if not run.verdicts_path.is_dir():
        run = RunDirectory(resolve_home(home).run_path(run.run_id), run.manifest)
    return Archive(run.verdicts_path)
