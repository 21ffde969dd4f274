"""`ctpeer version`: what runs here."""

import importlib.metadata
import json
import platform

import click

from peer import __version__
from peer.cli.options import json_option

_PARTS = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@click.command()
@json_option
def version(*, as_json: bool) -> None:
    """Print the versions of ctpeer, of Python and of the parts that decide numbers."""
    versions = {"ctpeer": __version__, "python": platform.python_version()}
    for name in _PARTS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    if as_json:
        click.echo(json.dumps({"schema": 1, **versions}, indent=2))
        return
    for name, text in versions.items():
        click.echo(f"{name:<14}{text}")
