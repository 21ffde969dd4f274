"""`ctpeer data`: index one's own text, look at an index, see what would be chosen."""

import json
from pathlib import Path

import click

from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home
from peer.data.choose import Preferences, choose
from peer.data.demo import data_folder
from peer.data.folder import INDEX_NAME, IndexOptions, index_folder, read_index
from peer.data.index import DataIndex, parse_index
from peer.run.directory import write_atomically


@click.group()
def data() -> None:
    """Index one's own text; see which shards would be chosen."""


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", default="", help="The data set's name; the folder's if not given.")
@click.option("--licence", default="", help="The text's licence, in words.")
@click.option("--attribution", default="", help="Whom to name.")
@click.option(
    "--heldout",
    multiple=True,
    metavar="PATTERN",
    help="Files kept for scoring, such as '*-test.txt'; about one in twenty if not given.",
)
@click.option(
    "--column", default="text", show_default=True, help="Where jsonl, csv, parquet have it."
)
@json_option
def index(*, folder: Path, as_json: bool, **options: str) -> None:
    """Write an index.json for the text in FOLDER and below.

    Read are .txt, .md, .jsonl, .csv and .parquet; each file becomes a shard.
    """
    made = index_folder(folder, IndexOptions(**options))
    write_atomically(folder / INDEX_NAME, made.to_bytes() + b"\n")
    _print(made, as_json=as_json)


@data.command()
@click.argument("spec", metavar="FOLDER|demo:NAME")
@json_option
def show(*, spec: str, as_json: bool) -> None:
    """List the shards of a data set."""
    _print(read_index(data_folder(spec)), as_json=as_json)


@data.command("choose")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--include", multiple=True, metavar="PATTERN", help="Names wanted, such as 'king*'.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Names not wanted.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="The most they may weigh together.")
@home_option
@json_option
def choose_shards(
    *,
    directory: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_bytes: int | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Show which shards of the run in DIRECTORY this peer would train on, and why.

    Without DIRECTORY: of the run that ran last. Options not given come from peer.toml.
    """
    from peer.cli.run import open_run
    from peer.config.layers import load_settings
    from peer.identity import Identity

    where = resolve_home(home)
    where.prepare()
    run = open_run(directory, home)
    wanted = load_settings(where.settings_path, {}).settings.data
    made = parse_index(run.read_blob(run.manifest.data.index), "the data index")
    peer_id = Identity.load_or_create(where.identity_path).peer_id
    preferences = Preferences(
        include=include or wanted.include,
        exclude=exclude or wanted.exclude,
        max_bytes=max_bytes or wanted.max_bytes,
    )
    choices = choose(peer_id, made, {}, preferences)
    rows = [{"name": c.shard.name, "bytes": c.shard.bytes, "reason": c.reason} for c in choices]
    if as_json:
        click.echo(json.dumps({"schema": 1, "run_id": run.run_id, "shards": rows}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['bytes']:>12,}  {row['name']}  ({row['reason']})")
    total = sum(choice.shard.bytes for choice in choices)
    click.echo(f"{total:>12,}  bytes in {len(rows)} shards")


def _print(made: DataIndex, *, as_json: bool) -> None:
    if as_json:
        body = {"schema": 1, "index_hash": made.index_hash, **made.model_dump(mode="json")}
        click.echo(json.dumps(body, indent=2))
        return
    for shard in made.shards:
        held = "  held out" if shard.split == "heldout" else ""
        click.echo(f"{shard.bytes:>12,}  {shard.examples:>8,} examples  {shard.name}{held}")
    held_out = len(made.split("heldout"))
    total = sum(shard.bytes for shard in made.shards)
    click.echo(f"{total:>12,}  bytes in {len(made.shards)} shards, {held_out} held out")
    click.echo(f"index {made.index_hash}")
