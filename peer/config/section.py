"""The common base of everything that is read from TOML, and its errors in words."""

import difflib
import typing

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """Frozen, and nothing unknown is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first complaint of `error`, with a suggestion for a misspelt field.

    Args:
        error: What validating a dict as `model` raised.
        model: The model.
    """
    complaints = error.errors(include_url=False)
    # A misspelt field is also a missing one: the spelling is what helps.
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    # The tag of a discriminated union stands in the path, but not in the file.
    path = [str(part) for part in first["loc"] if part not in ("adamw", "sgd")]
    name = ".".join(path)
    if first["type"] != "extra_forbidden":
        return f"{name or 'the file'}: {first['msg'].removeprefix('Value error, ').rstrip('.')}"
    return unknown_field(model, path)


def unknown_field(model: type[BaseModel], path: list[str]) -> str:
    """Return the sentence about a field at `path` that `model` does not have."""
    known = field_names(model, path[:-1])
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return f"the field {'.'.join(path)} is unknown; {hint}"


def field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the names that the section of `model` at `path` has, sorted."""
    models = [model]
    for part in path:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [kind for field in fields for kind in _models_in(field.annotation)]
    return sorted({name for m in models for name in m.model_fields})


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the models that a field of this annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
