"""One spelling for one meaning: what changes a manifest's hash, and what does not."""

import json
import math

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from peer.run.canonical import canonical, from_base64, manifest_hash, run_id, to_base64
from peer.run.manifest import Manifest, parse_manifest

HEAD = {
    "name": "tiny",
    "founders": ["Qm" + "1" * 44],
    "initial_state": "0" * 64,
    "task": {
        "name": "masked-lm",
        "sequence_length": 16,
        "options": {"flag": True, "count": 3, "probability": 0.15, "kind": "span"},
    },
    "model": {"config": "1" * 64},
    "tokenizer": {"files": {"tokenizer.json": "2" * 64}},
    "data": {"index": "3" * 64},
    "batch": {"target_loss_terms": 4096},
    "evaluation": {"baselines": {"unigram": 3.5}},
}
ADAMW = Manifest.model_validate(
    HEAD
    | {"optimizer": {"name": "adamw", "lr": 0.1, "max_grad_norm": 1.0}}
    | {"schedule": {"decay": "linear", "total_epochs": 100, "warmup_epochs": 10}}
)
SGD = Manifest.model_validate(HEAD | {"optimizer": {"name": "sgd", "lr": 0.1}})

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def leaves(tree, path=()):
    """Yield (path, value) of everything in the dump of a manifest that holds no further parts."""
    if not isinstance(tree, dict | list):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(value, (*path, key))


def other(value):
    """Return another value, as near as one can be."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return math.nextafter(value, math.inf)
        case str():
            return value + "x"
    return 1


def with_leaf(part, path, value):
    """Return `part` with another value at `path`, which may be one that no validation allows."""
    if not path:
        return value
    if isinstance(part, dict):
        return part | {path[0]: with_leaf(part[path[0]], path[1:], value)}
    if isinstance(part, tuple):
        items = list(part)
        items[path[0]] = with_leaf(part[path[0]], path[1:], value)
        return tuple(items)
    return part.model_copy(update={path[0]: with_leaf(getattr(part, path[0]), path[1:], value)})


CASES = [
    pytest.param(manifest, path, value, id=".".join(map(str, (manifest.optimizer.name, *path))))
    for manifest in (ADAMW, SGD)
    for path, value in leaves(manifest.model_dump(mode="json"))
]


@st.composite
def spellings(draw, body):
    """Draw a TOML text that means `body`: any order, white space, comments and number spelling."""
    lines = []

    def gap():
        lines.extend(draw(st.lists(st.sampled_from(["", "  ", "# a comment = 1"]), max_size=2)))

    def table(tree, path):
        names = draw(st.permutations(list(tree)))
        for name in [name for name in names if not isinstance(tree[name], dict)]:
            gap()
            equals = draw(st.sampled_from(["=", " = ", "\t=  "]))
            end = draw(st.sampled_from(["", "  # why"]))
            value = draw(numbers(tree[name], free=path == ("task", "options")))
            lines.append(json.dumps(name) + equals + value + end)
        for name in [name for name in names if isinstance(tree[name], dict)]:
            gap()
            lines.append(f"[{'.'.join(json.dumps(part) for part in (*path, name))}]")
            table(tree[name], (*path, name))

    table(body, ())
    return "\n".join(lines)


def numbers(value, *, free):
    """Return a strategy of spellings of `value`; `free` is where both int and float may stand."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        plain = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
        return st.just(plain)
    sign = "" if math.copysign(1, value) < 0 else "+"
    found = [str(value), f"{sign}{value}"]
    if isinstance(value, float):
        found += [f"{value:.17e}", f"{value:.17E}"]
        if "e" not in found[0]:
            found.append(f"{value}0")
        if value.is_integer() and (abs(value) < 2**53 or not free):
            found.append(str(int(value)))
    elif value >= 0:
        found.append(hex(value))
    if isinstance(value, int) and free and abs(value) < 2**53:
        found += [f"{value}.0", f"{value}e0", f"{value}.00E+0"]
    return st.sampled_from(found)


def test_canonical_bytes_are_sorted_compact_utf8_with_short_numbers():
    value = {"b": [1.0, -0.0, 0.10, 1e-8, 2.0**53, 10**20], "a": {"é": None, "": True}}
    text = '{"a":{"":true,"é":null},"b":[1,0,0.1,1e-08,9007199254740992.0,100000000000000000000]}'
    assert canonical(value) == text.encode()


@given(values)
def test_canonical_bytes_keep_the_whole_meaning(value):
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(st.text(), values, min_size=2), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert canonical({key: value[key] for key in keys}) == canonical(value)


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_float_is_spelled_as_its_integer(number):
    assert canonical(float(number)) == canonical(number)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, {1: 2}, {"a": {None: 1}}, b"bytes", {1, 2}, [object()]],
)
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises(ValueError, match=r"no canonical form|are strings"):
        canonical({"value": value})


@given(st.data())
def test_order_white_space_comments_and_number_spelling_do_not_change_the_hash(manifests, data):
    manifest = data.draw(manifests)
    text = data.draw(spellings(manifest.model_dump(mode="json", exclude_none=True)))
    assert manifest_hash(parse_manifest(text, "run.toml")) == manifest_hash(manifest)


@pytest.mark.parametrize(
    ("field", "spelling", "number"),
    [
        (field, spelling, number)
        for field in ("lr", "options")
        for spelling, number in [
            ("1", 1),
            ("1.0", 1),
            ("1e0", 1),
            ("10e-1", 1),
            ("0.1", 0.1),
            ("0.10", 0.1),
            ("1e-1", 0.1),
            ("1_000.0", 1000),
        ]
    ],
)
def test_a_number_is_one_value_however_it_is_spelled(field, spelling, number):
    body = ADAMW.model_dump(mode="json")
    place = body["optimizer"] if field == "lr" else body["task"]["options"]
    place[field] = number
    expected = manifest_hash(Manifest.model_validate(body))
    place[field] = 123456789.5
    text = tomli_w.dumps(body).replace("123456789.5", spelling)
    assert manifest_hash(parse_manifest(text, "run.toml")) == expected


def test_defaults_written_out_do_not_change_the_hash():
    spelled = ADAMW.model_dump(mode="json")
    assert manifest_hash(Manifest.model_validate(spelled)) == manifest_hash(ADAMW)
    assert manifest_hash(SGD) == manifest_hash(
        Manifest.model_validate(HEAD | {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}})
    )


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize(("manifest", "path", "value"), CASES)
def test_a_change_of_any_field_changes_the_hash(manifest, path, value):
    assert manifest_hash(with_leaf(manifest, path, value)) == manifest_hash(manifest)
    assert manifest_hash(with_leaf(manifest, path, other(value))) != manifest_hash(manifest)


def test_the_walk_reaches_every_field_of_the_schema():
    walked = {path[:2] for path, _ in leaves(ADAMW.model_dump(mode="json"))}
    fields = set()
    for name in Manifest.model_fields:
        section = getattr(ADAMW, name)
        inner = getattr(type(section), "model_fields", {})
        fields |= {(name, field) for field in inner} or {(name,)}
    assert {path if path in fields else path[:1] for path in walked} == fields


@pytest.mark.parametrize("path", [("task", "options"), ("evaluation", "baselines")])
def test_an_entry_more_or_less_changes_the_hash(path):
    section = getattr(ADAMW, path[0])
    entries = getattr(section, path[1])
    more = with_leaf(ADAMW, path, entries | {"another": 1})
    less = with_leaf(ADAMW, path, {})
    assert len({manifest_hash(manifest) for manifest in (ADAMW, more, less)}) == 3


def test_the_order_of_founders_is_part_of_the_meaning():
    first, second = "Qm" + "1" * 44, "Qm" + "2" * 44
    one = ADAMW.model_copy(update={"founders": (first, second)})
    two = ADAMW.model_copy(update={"founders": (second, first)})
    assert manifest_hash(one) != manifest_hash(two)


def test_true_and_one_are_two_values():
    one = with_leaf(ADAMW, ("task", "options", "flag"), 1)
    assert manifest_hash(one) != manifest_hash(ADAMW)


def test_a_run_id_is_the_name_and_half_the_hash():
    assert run_id(ADAMW) == f"tiny-{manifest_hash(ADAMW)[:32]}"
    assert len(manifest_hash(ADAMW)) == 64


def test_base64_has_one_spelling():
    assert from_base64(to_base64(b"abcd")) == b"abcd"
    assert from_base64("YWJjZB==") == b""
    assert from_base64("YWJj\n") == b""
