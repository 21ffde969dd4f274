"""The run and the checkpoints that a command of `ctpeer checkpoint` is about."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from peer.checkpoint.card import facts_of
from peer.checkpoint.lineage import Entry, ancestry, find, known, stored
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.verify import Report, verify_checkpoint
from peer.cli.lineage import certificate_of
from peer.cli.run import open_run
from peer.config.home import resolve_home
from peer.errors import ConfigurationError
from peer.run.directory import RunDirectory

run_option = click.option(
    "--run", "run_name", metavar="RUN", help="A run's directory, or the id of one in the home."
)


class Chosen:
    """A run with its checkpoints.

    Args:
        run_name: What --run gives; None for the run that ran last.
        home: What --home gives.

    Raises:
        ConfigurationError: There is no such run.
    """

    def __init__(self, run_name: str | None, home: str | None) -> None:
        self.run = choose_run(run_name, home)
        self.shelf = Shelf(_checkpoints(self.run, home))
        self.stored = stored(self.shelf, self.run.manifest_hash)

    def find(self, root: str) -> Entry:
        """Return the checkpoint here whose root begins so."""
        if not self.stored:
            raise ConfigurationError(
                f"there is no checkpoint of {self.run.run_id} here; `ctpeer start` writes one "
                "every checkpoint.interval_s seconds, and --run chooses another run"
            )
        return find(root, self.stored)

    def lineage(self, root: str) -> list[Entry]:
        """Return the checkpoint here whose root begins so, and its ancestors."""
        entry = self.find(root)
        return list(ancestry(entry, known(self.stored, self.shelf, self.run.manifest_hash)))

    def verify(self, entry: Entry) -> Report | None:
        """Return what verifying finds; None if the checkpoint was dropped meanwhile."""
        assert entry.name is not None
        try:
            return verify_checkpoint(self.shelf, entry.name, self.run)
        except LookupError:
            return None

    def is_whole(self, entry: Entry) -> bool:
        """Return whether a checkpoint is good."""
        report = self.verify(entry)
        return report is not None and report.good

    def facts(self, entry: Entry) -> dict[str, Any]:
        """Return what is known of a state, as JSON has it."""
        return facts_of(entry) | {
            "here": entry.name is not None,
            "name": entry.name,
            "bytes": entry.size_bytes,
            "fetched": entry.fetched,
            "problem": entry.problem,
        }

    def certificate_facts(self, entry: Entry) -> dict[str, Any]:
        """Return whom the certificate that led to a state names, as JSON has it."""
        certificate = certificate_of(entry)
        if certificate is None:
            return {"certificate": None}
        vote = certificate.vote
        return {
            "certificate": {
                "base": {"epoch": vote.base.epoch, "state_root": vote.base.state_root},
                "group": list(vote.group),
                "signers": sorted(certificate.signers),
                "loss_terms": vote.weight,
            }
        }

    def print(self, body: Mapping[str, Any], text: str, *, as_json: bool) -> None:
        """Print `body` as JSON, or `text`."""
        print_about(self.run, body, text, as_json=as_json)


def print_about(run: RunDirectory, body: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print what is said of `run`: `body` as JSON, or `text`."""
    if as_json:
        whole = {"schema": 1, "run_id": run.run_id, **body}
        click.echo(json.dumps(whole, indent=2, allow_nan=False))
    elif text:
        click.echo(text)


def choose_run(name: str | None, home: str | None) -> RunDirectory:
    """Return the run that --run names in the home that --home gives, or the one that ran last.

    Raises:
        ConfigurationError: There is no such run.
    """
    if name is None:
        return open_run(None, home)
    where = resolve_home(home)
    if name in where.run_ids():
        return RunDirectory.open(where.run_path(name))
    return RunDirectory.open(Path(name))


def _checkpoints(run: RunDirectory, home: str | None) -> Path:
    """Return where the run's checkpoints are: in its own directory, a backup's say, or the home."""
    if run.checkpoints_path.is_dir():
        return run.checkpoints_path
    return RunDirectory(resolve_home(home).run_path(run.run_id), run.manifest).checkpoints_path
