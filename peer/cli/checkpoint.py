"""`ctpeer checkpoint`: the states that training here wrote, and where they come from.

All of it reads the disk only: it works while a daemon trains on the home and while none does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from peer.checkpoint.card import facts_of
from peer.checkpoint.collect import collect
from peer.checkpoint.export import require_vacant
from peer.checkpoint.keep import Keep
from peer.checkpoint.lineage import Entry, ancestry, find, known, stored
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.verify import Report, verify_checkpoint
from peer.cli.export import run_export
from peer.cli.lineage import certificate_of, collected, described, listed, logged, verified
from peer.cli.options import home_option, json_option
from peer.cli.run import open_run
from peer.config.home import resolve_home
from peer.config.layers import load_settings
from peer.errors import ConfigurationError, UsageError
from peer.run.directory import RunDirectory

run_option = click.option(
    "--run", "run_name", metavar="RUN", help="A run's directory, or the id of one in the home."
)


@click.group()
def checkpoint() -> None:
    """List, verify, drop and export the checkpoints of a run; see where each comes from.

    The run is the one that ran last if --run does not name another. ROOT is the beginning of a
    state root, as long as it is unique, or the word `newest`.
    """


@checkpoint.command("list")
@run_option
@home_option
@json_option
def list_(*, run_name: str | None, home: str | None, as_json: bool) -> None:
    """List the checkpoints that lie here, newest first."""
    here = _Checkpoints(run_name, home)
    set_aside = here.shelf.damaged()
    body = {"checkpoints": [here.facts(e) for e in here.stored], "set_aside": set_aside}
    here.print(body, listed(here.stored, set_aside, here.run.run_id), as_json=as_json)


@checkpoint.command()
@click.argument("root", required=False, default="newest")
@run_option
@home_option
@json_option
def show(*, root: str, run_name: str | None, home: str | None, as_json: bool) -> None:
    """Explain the checkpoint ROOT, or the newest one."""
    here = _Checkpoints(run_name, home)
    entry = here.find(root)
    here.print(here.facts(entry) | here.certificate_facts(entry), described(entry), as_json=as_json)


@checkpoint.command()
@click.argument("root", required=False, default="newest")
@click.option("-n", "--max-count", type=click.IntRange(min=1), help="No more than so many.")
@run_option
@home_option
@json_option
def log(
    *, root: str, max_count: int | None, run_name: str | None, home: str | None, as_json: bool
) -> None:
    """Print the lineage from ROOT, or the newest checkpoint, back to where it begins.

    Of checkpoints that were dropped, what was said beside them is still known.
    """
    here = _Checkpoints(run_name, home)
    lineage = here.lineage(root)
    shown = lineage[:max_count]
    body = {"lineage": [here.facts(entry) for entry in shown], "more": len(lineage) - len(shown)}
    here.print(body, logged(shown, more=len(lineage) - len(shown)), as_json=as_json)


@checkpoint.command()
@click.argument("root", required=False)
@run_option
@home_option
@json_option
def verify(*, root: str | None, run_name: str | None, home: str | None, as_json: bool) -> None:
    """Recompute all that the checkpoint ROOT claims, or each one here.

    The state root from every chunk, the digest of the other files, the signatures of annotation and
    certificate, and that the certificate leads here. Exit code 78 if anything is wrong.
    """
    here = _Checkpoints(run_name, home)
    entries = here.stored if root is None else [here.find(root)]
    reports = [report for entry in entries if (report := here.verify(entry)) is not None]
    if root is not None and not reports:
        raise UsageError(f"the checkpoint {root} was dropped just now, by the daemon's policy")
    good = all(report.good for report in reports)
    body = {
        "good": good,
        "checkpoints": [
            {
                "state_root": report.state_root,
                "name": report.name,
                "good": report.good,
                "problems": list(report.problems),
                "notes": list(report.notes),
                "chunks": report.chunks,
                "signers": list(report.signers),
            }
            for report in reports
        ],
    }
    here.print(body, verified(reports), as_json=as_json)
    for report in reports:
        for problem in report.problems:
            click.echo(f"ctpeer: {report.name}: {problem}", err=True)
    if not good:
        click.get_current_context().exit(ConfigurationError.exit_code)


@checkpoint.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped.")
@click.option("--damaged", is_flag=True, help="Drop what is damaged or was set aside, too.")
@run_option
@home_option
@json_option
def gc(
    *, dry_run: bool, damaged: bool, run_name: str | None, home: str | None, as_json: bool
) -> None:
    """Drop the checkpoints that the settings do not keep.

    The settings are checkpoint.keep, keep_accepted and keep_every_epochs. The newest checkpoint
    that loads stays always, and so does what somebody reads or fetches at the moment.
    """
    settings = load_settings(resolve_home(home).settings_path, {}).settings
    here = _Checkpoints(run_name, home)
    outcomes = collect(
        here.shelf,
        here.stored,
        Keep.of(settings.checkpoint),
        here.is_whole,
        drop_damaged=damaged,
        dry_run=dry_run,
    )
    body = {
        "dry_run": dry_run,
        "freed_bytes": sum(o.size_bytes for o in outcomes if o.dropped),
        "checkpoints": [
            {
                "name": outcome.name,
                "bytes": outcome.size_bytes,
                "dropped": outcome.dropped,
                "reason": outcome.reason,
            }
            for outcome in outcomes
        ],
    }
    here.print(body, collected(outcomes, dry_run=dry_run), as_json=as_json)


@checkpoint.command()
@click.argument("root")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--git", "repository", type=click.Path(path_type=Path), metavar="DIR",
              help="Commit it into the git repository DIR, made if it is not there.")  # fmt: skip
@click.option("--licence", metavar="ID", help="The model's licence for its card: apache-2.0, ...")
@run_option
@home_option
@json_option
def export(
    *,
    root: str,
    directory: Path | None,
    repository: Path | None,
    licence: str | None,
    run_name: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Write the checkpoint ROOT to the new DIRECTORY, as transformers opens it.

    With a model card, the tokenizer, and the proofs in ctpeer.json.
    """
    if directory is None and repository is None:
        raise UsageError("give a DIRECTORY to export to, or --git DIR, or both")
    here = _Checkpoints(run_name, home)
    lineage = tuple(here.lineage(root))
    # Refused before torch loads, which takes seconds.
    if directory is not None:
        require_vacant(directory)
    body, text = run_export(here.run, here.shelf, lineage, licence, directory, repository)
    here.print(body, text, as_json=as_json)


class _Checkpoints:
    """The chosen run with its checkpoints here."""

    def __init__(self, run_name: str | None, home: str | None) -> None:

        self.run = _choose(run_name, home)
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
            "problem": entry.problem,
        }

    def certificate_facts(self, entry: Entry) -> dict[str, Any]:
        """Return whom the certificate names and what the parts of the checkpoint weigh."""
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
        if as_json:
            whole = {"schema": 1, "run_id": self.run.run_id, **body}
            click.echo(json.dumps(whole, indent=2, allow_nan=False))
        elif text:
            click.echo(text)


def _choose(name: str | None, home: str | None) -> RunDirectory:

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
