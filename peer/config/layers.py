"""Where a volunteer's choice comes from: flag over environment over peer.toml over default.

`CTPEER_COMPUTE__THREADS=2` in the environment is `threads = 2` under `[compute]` in the file. A
list is written with commas there, a schedule with semicolons.
"""

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peer.config.section import explain, field_names, unknown_field
from peer.config.settings import Settings
from peer.errors import ConfigurationError

PREFIX = "CTPEER_"
_NOT_SETTINGS = {"CTPEER_HOME", "CTPEER_RUN"}
_LISTS = {
    "data.include": ",",
    "data.exclude": ",",
    "swarm.listen": ",",
    "swarm.announce": ",",
    "swarm.peers": ",",
    "pause.schedule": ";",  # its entries have commas
}

Values = dict[str, object]
"""Settings by dotted name, such as `compute.threads`."""


@dataclasses.dataclass(frozen=True)
class Layered:
    """The settings in force, and for each dotted name where its value comes from."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    path: Path, flags: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> Layered:
    """Return the settings that peer.toml at `path`, the environment and the flags give.

    Args:
        path: peer.toml; it need not be there.
        flags: Values by dotted name; None is a flag that was not given.
        environment: The environment variables.

    Raises:
        ConfigurationError: A key is unknown, or a value makes no sense.
    """
    layers = [
        (f"file {path}", _file(path)),
        ("environment", _environment(environment)),
        ("flag", {name: value for name, value in flags.items() if value is not None}),
    ]
    merged: Values = {}
    origins = {name: "default" for name, _ in _leaves(Settings().model_dump())}
    for origin, values in layers:
        for name, value in values.items():
            _check_known(name, origin)
            merged[name] = value
            origins[name] = _spell(origin, name)
    typed = {name: merged[name] for name in layers[0][1] if origins[name] == layers[0][0]}
    try:
        # TOML has types, the environment has only text. By way of JSON, whose strict reading lets
        # a list be a tuple but no boolean be a number.
        Settings.model_validate_json(json.dumps(_nested(typed), default=str), strict=True)
        return Layered(Settings.model_validate(_nested(merged)), origins)
    except ValidationError as error:
        name = ".".join(str(part) for part in error.errors()[0]["loc"][:2])
        where = origins.get(name) or _origins_within(name, origins) or str(path)
        raise ConfigurationError(f"{explain(error, Settings)} (from {where})") from error


def _origins_within(section: str, origins: Mapping[str, str]) -> str:
    """Return where the values of a section come from that do not go together with others."""
    given = {o for n, o in origins.items() if n.startswith(f"{section}.") and o != "default"}
    return ", ".join(sorted(given))


def dotted(settings: Settings) -> dict[str, Any]:
    """Return the values of `settings` by dotted name, as JSON has them."""
    return dict(_leaves(settings.model_dump(mode="json")))


def _file(path: Path) -> Values:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error
    for section in tree:
        if section not in Settings.model_fields:  # also one that is empty
            raise ConfigurationError(f"{unknown_field(Settings, [section])} (from file {path})")
    return dict(_leaves(tree))


def _environment(environment: Mapping[str, str]) -> Values:
    values: Values = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        between = _LISTS.get(name)
        values[name] = text if between is None else _split(text, between)
    return values


def _split(text: str, between: str) -> list[str]:
    return [entry.strip() for entry in text.split(between) if entry.strip()]


def _check_known(name: str, origin: str) -> None:
    path = name.split(".")
    if len(path) == 2 and path[1] in field_names(Settings, path[:1]):  # noqa: PLR2004
        return
    if path[0] in Settings.model_fields and len(path) == 1:
        raise ConfigurationError(f"{name} (from {origin}) is a section, not a value")
    known = path if path[0] in Settings.model_fields else path[:1]
    raise ConfigurationError(f"{unknown_field(Settings, known)} (from {_spell(origin, name)})")


def _spell(origin: str, name: str) -> str:
    if origin == "environment":
        return f"environment {PREFIX}{name.upper().replace('.', '__')}"
    if origin == "flag":
        return f"flag --{name.rpartition('.')[2].replace('_', '-')}"
    return origin


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, values in tree.items():
        if not isinstance(values, Mapping):
            yield section, values
            continue
        for key, value in values.items():
            yield f"{section}.{key}", value


def _nested(values: Values) -> dict[str, dict[str, object]]:
    tree: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        tree.setdefault(section, {})[key] = value
    return tree
