"""`ctpeer config`: what is in force on this machine, and where each value comes from."""

import json
from collections.abc import Iterator, Mapping

import click

from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home


@click.group(help="Show this peer's own settings.")
def config() -> None:
    """Hold the subcommands."""


@config.command(help="Print the settings in force, as peer.toml would spell them.")
@click.option("--origin", is_flag=True, help="Say beside each value where it comes from.")
@home_option
@json_option
def show(*, origin: bool, home: str | None, as_json: bool) -> None:
    """Print settings and origins."""
    from peer.config.layers import dotted, load_settings

    path = resolve_home(home).settings_path
    layered = load_settings(path, {})
    values, origins = dotted(layered.settings), layered.origins
    if as_json:
        body = {n: {"value": value, "origin": origins[n]} for n, value in values.items()}
        click.echo(json.dumps({"schema": 1, "path": str(path), "settings": body}, indent=2))
        return
    for line in _lines(values, origins if origin else {}):
        click.echo(line)


@config.command(help="Print the path of peer.toml, whether or not it is there yet.")
@home_option
def path(*, home: str | None) -> None:
    """Print the path."""
    click.echo(resolve_home(home).settings_path)


def _lines(values: Mapping[str, object], origins: Mapping[str, str]) -> Iterator[str]:
    """Yield TOML, with the origins as comments where there are any."""
    texts = {name: _assignment(name.partition(".")[2], value) for name, value in values.items()}
    width = max(map(len, texts.values()))
    last = ""
    for name, text in texts.items():
        section = name.partition(".")[0]
        if section != last:
            if last:
                yield ""
            yield f"[{section}]"
            last = section
        yield f"{text:<{width}}  # {origins[name]}" if origins else text


def _assignment(key: str, value: object) -> str:
    """Return `value` under `key` as TOML; one not set is a comment, for TOML has no null."""
    import tomli_w

    if value is None:
        return f"# {key} ="
    if isinstance(value, list):  # tomli_w would spread it over lines
        return f"{key} = [{', '.join(map(json.dumps, value))}]"
    return tomli_w.dumps({key: value}).strip()
