"""`ctpeer run`: found a run, look at one, verify one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home
from peer.errors import ConfigurationError, UsageError
from peer.run.directory import RunDirectory
from peer.run.signature import signers_of

if TYPE_CHECKING:
    from peer.config.section import Section
    from peer.founding.architecture import ModelChoice

_SectionT = TypeVar("_SectionT", bound="Section")

TASKS = ("causal-lm", "masked-lm")
"""The names in the tasks' registry, which cannot be asked without loading torch."""

_ARCHITECTURE_FLAGS = {
    "model": "--model",
    "model_config": "--model-config",
    "model_from": "--model-from",
    "pretrained": "--pretrained",
}


@click.group()
def run() -> None:
    """Found a run, look at one, verify one."""


@run.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", help="The run's name; the directory's if not given.")
@click.option("--task", type=click.Choice(TASKS), default="causal-lm", show_default=True)
@click.option("--data", required=True, help="A folder with an index.json, or demo:NAME.")
@click.option("--tokenizer", help="A tokenizer.json, a pretrained directory or a hub name.")
@click.option(
    "--vocab-size",
    type=click.IntRange(300, 1_000_000),
    default=1024,
    show_default=True,
    help="Tokens of the tokenizer that is trained if none is given.",
)
@click.option("--model", help="gpt2, llama or bert: a small one, sized by the next three.")
@click.option("--layers", type=click.IntRange(1, 1000), help="[default: 2]")
@click.option("--hidden", type=click.IntRange(8, 65536), help="[default: 128]")
@click.option("--heads", type=click.IntRange(1, 1024), help="[default: 4]")
@click.option("--model-config", type=click.Path(path_type=Path), help="A transformers config.json.")
@click.option("--model-from", help="The architecture of a pretrained directory or hub name.")
@click.option("--pretrained", help="The architecture and weights of a directory or hub name.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    help="For weights that start from scratch.",
)
@click.option("--sequence-length", type=int, default=128, show_default=True, help="Tokens a row.")
@click.option(
    "--mask-probability",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    help="For masked-lm. [default: 0.15]",
)
@click.option(
    "--target-loss-terms",
    type=int,
    default=4096,
    show_default=True,
    help="Labels that the swarm gathers for an epoch.",
)
@click.option(
    "--codec",
    type=click.Choice(["none", "fp16", "int8"]),
    default="none",
    show_default=True,
    help="How averages travel: exactly, or in a half or a quarter of the bytes.",
)
@click.option(
    "--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True
)
@click.option("--lr", type=float, help="Learning rate. [default: adamw 1e-3, sgd 0.1]")
@click.option("--weight-decay", type=float, help="[default: adamw 0.1, sgd 0]")
@click.option(
    "--max-grad-norm", type=float, default=1.0, show_default=True, help="0 clips nothing."
)
@click.option("--warmup-epochs", type=int, default=20, show_default=True)
@click.option(
    "--decay",
    type=click.Choice(["constant", "linear", "inverse-sqrt"]),
    default="constant",
    show_default=True,
)
@click.option("--total-epochs", type=int, help="Where a linear decay ends.")
@click.option("--floor", type=float, help="The factor that a decay does not go below.")
@click.option(
    "--evaluation-rows",
    type=click.IntRange(1, 10**6),
    default=256,
    show_default=True,
    help="Held-out rows scored.",
)
@click.option(
    "--validate-every",
    type=int,
    default=100,
    show_default=True,
    help="The checkpoint of each so many epochs is judged; 0 judges none.",
)
@click.option(
    "--margin",
    type=float,
    default=0.05,
    show_default=True,
    help="By how many nats a checkpoint may be worse and not be rejected.",
)
@home_option
@json_option
def init(*, directory: Path, home: str | None, as_json: bool, **flags: Any) -> None:
    """Found a run: write its manifest and all that it names to the new DIRECTORY.

    Signed with this home's identity. Start it with `ctpeer start DIRECTORY`.
    """
    wishes_body = _body(directory, flags)
    where = resolve_home(home)
    where.prepare()
    # torch and transformers load here, after everything that can be refused without them.
    from peer.founding.found import Wishes, found
    from peer.identity import Identity

    def say(step: str) -> None:
        click.echo(f"{step} ...", err=True)

    founder = Identity.load_or_create(where.identity_path)
    founded = found(directory, Wishes(**wishes_body), founder, say)
    if as_json:
        click.echo(json.dumps({"schema": 1, **_facts(founded)}, indent=2))
        return
    click.echo(f"founded {founded.run_id}\nstart it with: ctpeer start {directory}")


@run.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@home_option
@json_option
def show(*, directory: Path | None, home: str | None, as_json: bool) -> None:
    """Explain the run in DIRECTORY, or the one that ran last."""
    opened = open_run(directory, home)
    if as_json:
        click.echo(json.dumps({"schema": 1, **_facts(opened)}, indent=2))
        return
    manifest = opened.manifest
    click.echo(f"run         {opened.run_id}")
    click.echo(f"founders    {', '.join(manifest.founders)}")
    click.echo(f"signed      {', '.join(signers_of(opened)) or 'by nobody'}")
    for section, body in manifest.model_dump(mode="json", exclude_none=True).items():
        if isinstance(body, dict):
            text = ", ".join(f"{key} {_short(value)}" for key, value in body.items())
            click.echo(f"{section:<12}{text}")


@run.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@home_option
@json_option
def verify(*, directory: Path | None, home: str | None, as_json: bool) -> None:
    """Check all of the run in DIRECTORY, or of the one that ran last, and say what is wrong.

    The signatures, every file against its hash, and that model, tokenizer, data and initial state
    fit each other. Exit code 78 if anything is wrong.
    """
    opened = open_run(directory, home)
    # torch loads with it.
    from peer.founding.verify import problems_of

    problems = list(problems_of(opened))
    if as_json:
        body = {"schema": 1, "run_id": opened.run_id, "good": not problems, "problems": problems}
        click.echo(json.dumps(body, indent=2))
    for problem in problems:
        click.echo(f"ctpeer: {problem}", err=True)
    if problems:
        click.get_current_context().exit(ConfigurationError.exit_code)
    if not as_json:
        click.echo(f"{opened.run_id} is good")


def open_run(directory: Path | None, home: str | None) -> RunDirectory:
    """Return the run in `directory`, else the one that ran last on `home`, else the demo."""
    from peer.daemon.service import last_or_demo_run

    return RunDirectory.open(directory) if directory else last_or_demo_run(resolve_home(home))


def _body(directory: Path, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `Wishes` that the flags of `run init` ask for.

    Raises:
        UsageError: They contradict each other, or a value makes no sense.
    """
    from peer.run.manifest import (
        SGD,
        AdamW,
        AveragingSection,
        BatchSection,
        ScheduleSection,
        TaskSection,
        ValidationSection,
    )

    if flags["mask_probability"] is not None and flags["task"] != "masked-lm":
        raise UsageError(f"--mask-probability is for masked-lm, not for {flags['task']}")
    if flags["floor"] is not None and flags["decay"] == "constant":
        raise UsageError("--floor has a meaning only with a --decay")
    task = {"name": flags["task"], "sequence_length": flags["sequence_length"]}
    task["options"] = _given(flags, "mask_probability")
    adamw = flags["optimizer"] == "adamw"
    rate = 1e-3 if adamw else 0.1
    optimizer = {"name": flags["optimizer"], "lr": rate, "max_grad_norm": None}
    optimizer |= _given(flags, "lr", "weight_decay")
    if flags["max_grad_norm"] != 0.0:
        optimizer |= _given(flags, "max_grad_norm")
    schedule = _given(flags, "warmup_epochs", "decay", "total_epochs", "floor")
    return {
        "name": _name(flags["name"] or directory.resolve().name.lower().replace("_", "-")),
        "task": _section(TaskSection, task),
        "data": flags["data"],
        "tokenizer": flags["tokenizer"],
        "vocabulary": flags["vocab_size"],
        "model": _model(flags),
        "seed": flags["seed"],
        "optimizer": _section(AdamW, optimizer) if adamw else _section(SGD, optimizer),
        "schedule": _section(ScheduleSection, schedule),
        "batch": _section(BatchSection, _given(flags, "target_loss_terms")),
        "averaging": _section(AveragingSection, _given(flags, "codec")),
        "max_rows": flags["evaluation_rows"],
        "validation": _section(
            ValidationSection,
            {"every_epochs": flags["validate_every"], "margin": flags["margin"]},
        ),
    }


def _given(flags: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: flags[name] for name in names if flags[name] is not None}


def _section(kind: type[_SectionT], fields: dict[str, Any]) -> _SectionT:
    from pydantic import ValidationError

    from peer.config.section import explain

    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise UsageError(explain(error, kind).removeprefix("the file: ")) from error


def _name(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from peer.run.manifest import RunName

    try:
        return str(TypeAdapter(RunName).validate_python(text))
    except ValidationError as error:
        raise UsageError(
            f"{text!r} cannot be a run's name, which has up to 40 letters a-z, digits and hyphens; "
            "give another with --name"
        ) from error


def _model(flags: dict[str, Any]) -> "ModelChoice":
    from peer.founding.architecture import PRESETS, ModelChoice, Size

    given = [flag for field, flag in _ARCHITECTURE_FLAGS.items() if flags[field] is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other; give one of them")
    sizes = _given(flags, "layers", "hidden", "heads")
    if sizes and given not in ([], ["--model"]):
        raise UsageError(f"--{next(iter(sizes))} sizes a --model, not what {given[0]} gives")
    preset = flags["model"]
    if preset is not None and PRESETS.get(preset) != flags["task"]:
        fitting = [name for name, task in PRESETS.items() if task == flags["task"]]
        raise UsageError(
            f"--model {preset} is no small model for {flags['task']}; there are "
            f"{', '.join(fitting) or 'none'}, or give one with --model-config"
        )
    size = Size(**sizes)
    if size.hidden % size.heads:
        raise UsageError(f"--hidden {size.hidden} is not a multiple of --heads {size.heads}")
    return ModelChoice(
        preset=preset,
        size=size,
        config_file=flags["model_config"],
        architecture_of=flags["model_from"],
        weights_of=flags["pretrained"],
    )


def _facts(opened: RunDirectory) -> dict[str, Any]:
    return {
        "run_id": opened.run_id,
        "manifest_hash": opened.manifest_hash,
        "path": str(opened.path),
        "signed_by": list(signers_of(opened)),
        "manifest": opened.manifest.model_dump(mode="json"),
    }


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and len(value) == 64:  # noqa: PLR2004 the digits of a SHA-256
        return value[:12]
    return str(value)
