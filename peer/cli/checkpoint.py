"""`ctpeer checkpoint`: the states that training here wrote, and where they come from.

All of it works while a daemon trains on the home and while none does. Only `fetch` needs a network.
"""

import dataclasses
from pathlib import Path

import click

from peer.checkpoint.collect import collect
from peer.checkpoint.export import require_vacant
from peer.checkpoint.keep import Keep
from peer.cli.chosen import Chosen, run_option
from peer.cli.export import run_export
from peer.cli.fetch import Request, facts_of_fetch, fetch_text, run_fetch
from peer.cli.lineage import collected, described, listed, logged, verified
from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home
from peer.config.layers import load_settings
from peer.errors import ConfigurationError, UsageError


@click.group()
def checkpoint() -> None:
    """List, fetch, verify, drop and export the checkpoints of a run; see where each comes from.

    The run is the one that ran last if --run does not name another. ROOT is the beginning of a
    state root, as long as it is unique, or the word `newest`.
    """


@checkpoint.command("list")
@run_option
@home_option
@json_option
def list_(*, run_name: str | None, home: str | None, as_json: bool) -> None:
    """List the checkpoints that lie here, newest first."""
    here = Chosen(run_name, home)
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
    here = Chosen(run_name, home)
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
    here = Chosen(run_name, home)
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
    here = Chosen(run_name, home)
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
@click.argument("root", required=False)
@click.option(
    "--peers", multiple=True, metavar="ADDRESS", help="A peer to begin with, beside those known."
)
@click.option("--invite", metavar="INVITE", help="Begin with the peers of an invite to the run.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Leave a peer that gives nothing for so long.",
)
@run_option
@home_option
@json_option
def fetch(
    *,
    root: str | None,
    peers: tuple[str, ...],
    invite: str | None,
    timeout: float,
    run_name: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Fetch the checkpoint ROOT from the peers of the run, with its certificate and annotation.

    ROOT is a state root or the beginning of one that peers offer; `good`, which validators hold to
    be good and which is fetched if no ROOT is given; or `newest`, which is fetched where nobody
    validates. What was fetched half is gone on with. Training does not go on from it, and nothing
    but `gc --fetched` drops it.
    """
    where = resolve_home(home)
    known = load_settings(where.settings_path, {}).settings.swarm.peers
    flags = {"swarm.peers": [*peers, *known]}
    request = Request(
        root=root,
        invite=invite,
        settings=load_settings(where.settings_path, flags).settings.swarm,
        timeout_s=timeout,
        quiet=as_json,
    )
    here = Chosen(run_name, home)
    fetched = run_fetch(here, where, request)
    entry = fetched.entry
    body = here.facts(entry) | here.certificate_facts(entry) | facts_of_fetch(fetched)
    here.print(body, fetch_text(fetched), as_json=as_json)


@checkpoint.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped.")
@click.option("--damaged", is_flag=True, help="Drop what is damaged or was set aside, too.")
@click.option("--fetched", is_flag=True, help="Drop what was fetched by hand, too.")
@run_option
@home_option
@json_option
def gc(
    *,
    dry_run: bool,
    damaged: bool,
    fetched: bool,
    run_name: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Drop the checkpoints that the settings do not keep.

    The settings are checkpoint.keep, keep_accepted and keep_every_epochs. The newest checkpoint
    that training could go on from stays always, and so does what somebody reads or fetches at the
    moment, and without --fetched what you fetched.
    """
    settings = load_settings(resolve_home(home).settings_path, {}).settings
    here = Chosen(run_name, home)
    outcomes = collect(
        here.shelf,
        here.stored,
        dataclasses.replace(Keep.of(settings.checkpoint), fetched=not fetched),
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
@click.option(
    "--git",
    "repository",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Commit it into the git repository DIR, made if it is not there.",
)
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
    here = Chosen(run_name, home)
    lineage = tuple(here.lineage(root))
    # Refused before torch loads, which takes seconds.
    if directory is not None:
        require_vacant(directory)
    body, text = run_export(here.run, here.shelf, lineage, licence, directory, repository)
    here.print(body, text, as_json=as_json)
