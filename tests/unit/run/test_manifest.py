"""Reading and writing run.toml, and what is refused in one."""

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import ConfigurationError
from peer.run.manifest import dump_manifest, parse_manifest

TEXT = f"""
name = "tiny"
founders = ["Qm{"1" * 44}"]
initial_state = "{"0" * 64}"

[task]
name = "causal-lm"
sequence_length = 16

[model]
config = "{"1" * 64}"

[tokenizer.files]
"tokenizer.json" = "{"2" * 64}"

[data]
index = "{"3" * 64}"

[optimizer]
name = "adamw"
lr = 0.1

[batch]
target_loss_terms = 4096
"""


def with_line(old, new):
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


@given(st.data())
def test_a_dumped_manifest_is_parsed_back_unchanged(manifests, data):
    manifest = data.draw(manifests)
    assert parse_manifest(dump_manifest(manifest), "run.toml") == manifest


def test_a_dumped_manifest_spells_out_every_default():
    text = dump_manifest(parse_manifest(TEXT, "run.toml"))
    for line in ("schema_version = 1", "protocol = 1", "beta2 = 0.95", 'decay = "constant"'):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "tiny"', 'name = "tiny"\nfounder = "me"', "founder is unknown; did you mean fou"),
        ("[batch]", "[batches]\n[batch]", "batches is unknown; did you mean batch?"),
        ("lr = 0.1", "lr = 0.1\nbeta_1 = 0.5", "optimizer.beta_1 is unknown; did you mean beta1?"),
        ("lr = 0.1", "lrr = 0.1", "optimizer.lrr is unknown; did you mean lr?"),
        ("lr = 0.1", "lr = 0.1\nxyzzy = 0.5", "optimizer.xyzzy is unknown; known here: beta1, be"),
        (
            'name = "adamw"\nlr = 0.1',
            'name = "sgd"\nlr = 0.1\nmomentun = 0.5',
            "optimizer.momentun is unknown; did you mean momentum?",
        ),
        (
            "sequence_length = 16",
            "sequence_length = 16\n[task.option]\na = 1",
            "task.option is unknown; did you mean options?",
        ),
        (
            "[tokenizer.files]",
            '[tokenizer]\nfile = "x"\n[tokenizer.files]',
            "tokenizer.file is unknown; did you mean files?",
        ),
        (
            "[batch]",
            "[schedule]\nwarmup = 5\n[batch]",
            "schedule.warmup is unknown; did you mean warmup_epochs?",
        ),
    ],
)
def test_an_unknown_field_is_named_with_a_suggestion(old, new, message):
    with pytest.raises(ConfigurationError) as caught:
        parse_manifest(with_line(old, new), "the run.toml")
    assert str(caught.value).startswith(f"the run.toml: the field {message}")


@pytest.mark.parametrize("number", ["nan", "+inf", "-inf", '"0.5"', "true", "[]", "{}"])
@pytest.mark.parametrize(
    ("old", "line", "field"),
    [
        ("lr = 0.1", "lr = {}", "optimizer.lr"),
        ("lr = 0.1", "lr = 0.1\nmax_grad_norm = {}", "optimizer.max_grad_norm"),
        ("sequence_length = 16", "sequence_length = {}", "task.sequence_length"),
        ("target_loss_terms = 4096", "target_loss_terms = {}", "batch.target_loss_terms"),
        ("[batch]", "[schedule]\nfloor = {}\n[batch]", "schedule.floor"),
        ("[batch]", "[evaluation.baselines]\na = {}\n[batch]", "evaluation.baselines.a"),
        ("[batch]", "[validation]\nmargin = {}\n[batch]", "validation.margin"),
        ("[batch]", "[validation]\ntolerance = {}\n[batch]", "validation.tolerance"),
    ],
)
def test_what_is_no_finite_number_is_refused(old, line, field, number):
    with pytest.raises(ConfigurationError, match=rf"^run\.toml: {field}: "):
        parse_manifest(with_line(old, line.format(number)), "run.toml")


@pytest.mark.parametrize("value", ["nan", "inf", "[1]", "{a = 1}", f'"{"x" * 201}"'])
def test_an_option_that_is_no_plain_value_is_refused(value):
    text = with_line("[model]", f"[task.options]\na = {value}\n[model]")
    with pytest.raises(ConfigurationError, match=r"^run\.toml: task\.options\.a"):
        parse_manifest(text, "run.toml")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("sequence_length = 16", "sequence_length = 16.5", "task.sequence_length"),
        ("sequence_length = 16", "sequence_length = 7", "task.sequence_length"),
        ("lr = 0.1", "lr = 0.0", "optimizer.lr"),
        ("lr = 0.1", "lr = 0.1\nbeta1 = 1.0", "optimizer.beta1"),
        ("lr = 0.1", "", "optimizer.lr"),
        ('name = "adamw"', 'name = "adam"', "optimizer"),
        ('name = "adamw"', "", "optimizer"),
        ('name = "tiny"', 'name = "../tiny"', "name"),
        ('name = "tiny"', 'name = "tiny\\n"', "name"),
        ('name = "tiny"', 'name = "tiny"\nschema_version = 2', "schema_version"),
        ('name = "tiny"', 'name = "tiny"\nprotocol = 2', "protocol"),
        (f'"{"1" * 64}"', f'"{"A" * 64}"', "model.config"),
        (f'"{"1" * 64}"', '"../../etc/passwd"', "model.config"),
        ('"tokenizer.json"', '"../tokenizer.json"', "tokenizer.files"),
        ('"tokenizer.json"', '".hidden"', "tokenizer.files"),
        (f'["Qm{"1" * 44}"]', "[]", "founders"),
        (f'["Qm{"1" * 44}"]', '["not a peer"]', "founders.0"),
        ("[batch]", "[validation]\nevery_epochs = -1\n[batch]", "validation.every_epochs"),
        ("[batch]", "[validation]\ntolerance = 0.0\n[batch]", "validation.tolerance"),
        ("[batch]", "[validation]\nrows = 31\n[batch]", "validation.rows"),
        ("[batch]", '[schedule]\ndecay = "linear"\n[batch]', "schedule"),
        ("[batch]", "[schedule]\ntotal_epochs = 5\n[batch]", "schedule"),
        (
            "[batch]",
            '[schedule]\ndecay = "linear"\ntotal_epochs = 5\nwarmup_epochs = 5\n[batch]',
            "schedule",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(old, new, field):
    with pytest.raises(ConfigurationError, match=rf"^run\.toml: {field}\b"):
        parse_manifest(with_line(old, new), "run.toml")


@pytest.mark.parametrize(
    "text",
    ["name =", 'a = "\x00"', "a = 1\na = 2", "a = " + "[" * 20_000, "a = 0x" + "f" * 5000],
    ids=["no value", "control character", "twice", "deep", "huge number"],
)
def test_what_is_no_toml_is_refused_by_origin(text):
    with pytest.raises(ConfigurationError, match=r"^run\.toml is not valid TOML: "):
        parse_manifest(text, "run.toml")


def test_a_run_may_judge_no_checkpoints():
    text = with_line("[batch]", "[validation]\nevery_epochs = 0\n[batch]")
    assert parse_manifest(text, "run.toml").validation.every_epochs == 0


@given(st.text(max_size=200))
def test_an_option_text_survives_its_way_through_toml(text):
    body = tomli_w.dumps({"a": text})
    spelled = with_line("[model]", f"[task.options]\n{body}[model]")
    manifest = parse_manifest(spelled, "run.toml")
    assert parse_manifest(dump_manifest(manifest), "run.toml").task.options == {"a": text}
