"""The common base of everything that is read from TOML, and its errors in words."""

import difflib
import typing

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """Frozen, and nothing unknown is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the complaint of `error` that helps most: a misspelt field, else the first one.

    Args:
        error: What validating a dict as `model` raised.
        model: The model.
    """
    complaints = error.errors(include_url=False)
    # A misspelt field is missing under its right name, too: the spelling is what to mend.
    unknown = (one for one in complaints if one["type"] == "extra_forbidden")
    first = next(unknown, complaints[0])
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return unknown_field(model, path)
    name = ".".join(_descend(model, path)[0])
    return f"{name or 'the file'}: {first['msg'].removeprefix('Value error, ').rstrip('.')}"


def unknown_field(model: type[BaseModel], path: list[str]) -> str:
    """Return the sentence about a field at `path` that `model` does not have."""
    shown, models = _descend(model, path[:-1])
    known = _names(models)
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or 'none'}"
    return f"the field {'.'.join([*shown, path[-1]])} is unknown; {hint}"


def field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the names that the section of `model` at `path` has, sorted."""
    return _names(_descend(model, path)[1])


def _names(models: list[type[BaseModel]]) -> list[str]:
    return sorted({name for model in models for name in model.model_fields})


def _descend(model: type[BaseModel], path: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """Return `path` as the file has it, and the models that can stand at its end.

    An error's path names, after a field that is one of several models, the tag of the one that was
    meant; the file does not.
    """
    models, shown = [model], []
    for part in path:
        if part.isdigit():  # a place in a list
            shown.append(part)
            continue
        tagged = [m for m in models if part in _tags(m)]
        if tagged:
            models = tagged
            continue
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [kind for field in fields for kind in _models_in(field.annotation)]
        shown.append(part)
    return shown, models


def _tags(model: type[BaseModel]) -> set[str]:
    """Return the constants by which a union tells `model` from the others."""
    return {
        str(constant)
        for field in model.model_fields.values()
        if typing.get_origin(field.annotation) is typing.Literal
        and len(typing.get_args(field.annotation)) == 1
        for constant in typing.get_args(field.annotation)
    }


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the models that a field of this annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
