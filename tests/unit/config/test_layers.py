"""Which layer a setting comes from, and what is refused."""

import itertools
import re

import pytest

from peer.config.layers import dotted, load_settings
from peer.config.settings import Settings
from peer.errors import ConfigurationError

LAYERS = ("file", "environment", "flag")
THREADS = {"default": None, "file": 2, "environment": 3, "flag": 4}


@pytest.fixture
def load(tmp_path):
    """Load settings from the text of a peer.toml, an environment and flags."""
    path = tmp_path / "peer.toml"

    def load(text=None, environment=None, flags=None):
        if text is not None:
            path.write_text(text)
        return load_settings(path, flags or {}, environment or {})

    return load


def subsets(names):
    return [c for size in range(len(names) + 1) for c in itertools.combinations(names, size)]


@pytest.mark.parametrize("layers", subsets(LAYERS), ids="+".join)
def test_a_value_in_several_layers_comes_from_the_strongest(layers, load, tmp_path):
    layered = load(
        f"[compute]\nthreads = {THREADS['file']}" if "file" in layers else None,
        {"CTPEER_COMPUTE__THREADS": str(THREADS["environment"])} if "environment" in layers else {},
        {"compute.threads": THREADS["flag"] if "flag" in layers else None},
    )
    strongest = layers[-1] if layers else "default"
    assert layered.settings.compute.threads == THREADS[strongest]
    origins = {
        "default": "default",
        "file": f"file {tmp_path / 'peer.toml'}",
        "environment": "environment CTPEER_COMPUTE__THREADS",
        "flag": "flag --threads",
    }
    assert layered.origins["compute.threads"] == origins[strongest]


def test_layers_that_name_different_settings_are_merged(load):
    layered = load(
        "[compute]\ndevice = 'cpu'\n[log]\nlevel = 'debug'",
        {"CTPEER_COMPUTE__PRECISION": "bf16"},
        {"compute.threads": 1},
    )
    compute = layered.settings.compute
    assert (compute.device, compute.precision, compute.threads) == ("cpu", "bf16", 1)
    assert layered.settings.log.level == "debug"


def test_every_setting_has_a_default_and_an_origin(load):
    layered = load()
    assert layered.settings == Settings()
    assert set(layered.origins) == set(dotted(Settings()))
    assert set(layered.origins.values()) == {"default"}


@pytest.mark.parametrize("name", [n for n, value in dotted(Settings()).items() if value])
def test_every_setting_can_be_set_by_the_environment(name, load):
    variable = "CTPEER_" + name.upper().replace(".", "__")
    value = dotted(Settings())[name]
    text = ",".join(value) if isinstance(value, list) else str(value)
    layered = load(environment={variable: text})
    assert layered.settings == Settings()
    assert layered.origins[name] == f"environment {variable}"


def test_the_home_and_other_programs_variables_are_no_settings(load):
    layered = load(
        environment={
            "CTPEER_HOME": "/x",
            "CTPEER_RUN": "ctpeer1x",
            "PATH": "/bin",
            "COMPUTE__THREADS": "2",
        }
    )
    assert layered.settings == Settings()


@pytest.mark.parametrize(
    ("text", "patterns"),
    [("a*", ("a*",)), ("a*,b/*", ("a*", "b/*")), ("a*, b/*", ("a*", "b/*")), ("", ())],
)
def test_a_list_in_the_environment_is_written_with_commas(text, patterns, load):
    assert load(environment={"CTPEER_DATA__INCLUDE": text}).settings.data.include == patterns


@pytest.mark.parametrize(
    ("layer", "origin"),
    [
        ({"text": "[compute]\nthread = 2"}, r"file .*peer\.toml"),
        ({"environment": {"CTPEER_COMPUTE__THREAD": "2"}}, "environment CTPEER_COMPUTE__THREAD"),
        ({"flags": {"compute.thread": 2}}, "flag --thread"),
    ],
    ids=LAYERS,
)
def test_an_unknown_key_is_named_with_its_layer_and_a_suggestion(layer, origin, load):
    message = rf"compute\.thread is unknown; did you mean threads\? \(from {origin}\)$"
    with pytest.raises(ConfigurationError, match=message):
        load(**layer)


@pytest.mark.parametrize(
    ("layer", "origin"),
    [
        ({"text": "[compote]\nthreads = 2"}, r"file .*peer\.toml"),
        ({"text": "[compote]"}, r"file .*peer\.toml"),
        ({"text": "compote = 2"}, r"file .*peer\.toml"),
        ({"environment": {"CTPEER_COMPOTE__THREADS": "2"}}, "environment CTPEER_COMPOTE__THREADS"),
        ({"flags": {"compote.threads": 2}}, "flag --threads"),
    ],
    ids=["file", "empty in file", "value in file", "environment", "flag"],
)
def test_an_unknown_section_is_named_with_its_layer_and_a_suggestion(layer, origin, load):
    message = rf"compote is unknown; did you mean compute\? \(from {origin}\)$"
    with pytest.raises(ConfigurationError, match=message):
        load(**layer)


def test_a_key_like_none_is_told_the_known_ones(load):
    with pytest.raises(ConfigurationError, match=r"xyzzy is unknown; known here: interval_s, keep"):
        load("[checkpoint]\nxyzzy = 1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compute.threads", "0"),
        ("compute.threads", "many"),
        ("compute.precision", "fp8"),
        ("checkpoint.interval_s", "nan"),
        ("checkpoint.interval_s", "inf"),
        ("checkpoint.interval_s", "-1"),
        ("checkpoint.keep", "0"),
        ("data.max_bytes", "0"),
        ("metrics.port", "65536"),
        ("log.level", "loud"),
        ("swarm.client", "maybe"),
        ("swarm.upload_bytes_per_s", "1000"),
        ("swarm.part_timeout_s", "inf"),
        ("swarm.matchmaking_timeout_s", "0"),
        ("swarm.call_timeout_s", "1e9"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_origin_in_each_layer(name, value, load, tmp_path):
    section, key = name.split(".")
    toml = f"'{value}'" if value in {"many", "fp8", "loud", "maybe"} else value
    variable = f"CTPEER_{section}__{key}".upper()
    with pytest.raises(ConfigurationError, match=rf"^{name}: .*\(from environment {variable}\)$"):
        load(environment={variable: value})
    flag = f"--{key.replace('_', '-')}"
    with pytest.raises(ConfigurationError, match=rf"^{name}: .*\(from flag {flag}\)$"):
        load(flags={name: value})
    file = re.escape(str(tmp_path / "peer.toml"))
    with pytest.raises(ConfigurationError, match=rf"^{name}: .*\(from file {file}\)$"):
        load(f"[{section}]\n{key} = {toml}")


@pytest.mark.parametrize(
    "line", ["threads = true", "threads = 2.5", "threads = '2'", "device = 5", "precision = true"]
)
def test_a_value_of_another_type_in_the_file_is_refused(line, load):
    with pytest.raises(ConfigurationError, match=rf"^compute\.{line.split()[0]}: .*peer\.toml\)$"):
        load(f"[compute]\n{line}")


def test_a_weak_layers_nonsense_is_forgiven_where_a_stronger_one_decides(load):
    layered = load("[compute]\nthreads = 'many'", flags={"compute.threads": 2})
    assert layered.settings.compute.threads == 2


@pytest.mark.parametrize("value", ["2", "[]", "[{}]"])
def test_a_section_given_as_a_value_is_refused(value, load):
    with pytest.raises(ConfigurationError, match=r"compute .* is a section, not a value"):
        load(f"compute = {value}")


@pytest.mark.parametrize("data", [b"[compute", b"\xff\xfe", b"a = " + b"[" * 20_000])
def test_a_file_that_is_no_toml_is_refused_by_path(data, load, tmp_path):
    (tmp_path / "peer.toml").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"peer\.toml cannot be used"):
        load()


def test_a_file_that_cannot_be_read_is_refused_by_path(load, tmp_path):
    (tmp_path / "peer.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"peer\.toml cannot be used"):
        load()


ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "/ip4/0.0.0.0/tcp/0,/ip6/::/tcp/31337"),
        ("announce", "/dns4/example.org/tcp/31337,/ip4/203.0.113.7/udp/4001/quic-v1"),
        ("announce", ""),
        ("peers", f"/ip4/203.0.113.7/tcp/31337/p2p/{ID}, /dns/a.example/tcp/1/p2p/{ID}"),
    ],
)
def test_addresses_are_the_same_in_the_file_and_the_environment(name, value, load):
    texts = [text.strip() for text in value.split(",") if text.strip()]
    in_file = load(f"[swarm]\n{name} = {texts}").settings.swarm
    in_environment = load("", {f"CTPEER_SWARM__{name.upper()}": value}).settings.swarm
    assert getattr(in_file, name) == getattr(in_environment, name) == tuple(texts)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("listen", "0.0.0.0:31337", "write /ip4/0.0.0.0/tcp/31337"),
        ("listen", "/ip4/0.0.0.0/tcp/70000", "write /ip4/0.0.0.0/tcp/31337"),
        ("listen", "/dns4/example.org/tcp/31337", "write /ip4/0.0.0.0/tcp/31337"),
        ("listen", f"/ip4/0.0.0.0/tcp/31337/p2p/{ID}", "write /ip4/0.0.0.0/tcp/31337"),
        ("listen", "", "at least 1 item"),
        ("announce", "/ip4/0.0.0.0/tcp/31337", "no address that others could dial"),
        ("announce", "/ip4/203.0.113.7/tcp/0", "no address that others could dial"),
        ("announce", f"/ip4/203.0.113.7/tcp/1/p2p/{ID}", "no address that others could dial"),
        ("peers", "/ip4/203.0.113.7/tcp/31337", "write it like .*/p2p/ID"),
        ("peers", f"/ip4/203.0.113.7/tcp/31337/p2p/{ID[:9]}", "write it like .*/p2p/ID"),
        ("peers", "ctpeer1abc", "write it like .*/p2p/ID"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_an_example(name, value, advice, load):
    variable = f"CTPEER_SWARM__{name.upper()}"
    with pytest.raises(ConfigurationError, match=rf"^swarm\.{name}.*{advice}.*{variable}\)$"):
        load(environment={variable: value})


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (
            None,
            {"validation.role": "validator", "swarm.enabled": False},
            r"judges what others train; leave out --alone .* \(from flag --role\)$",
        ),
        (
            "[validation]\ntake_seats = false",
            {"validation.role": "validator"},
            r"validation\.role: a validator takes seats; leave out .* \(from flag --role\)$",
        ),
        (
            '[validation]\nrole = "validator"\n[swarm]\nenabled = false',
            {},
            r"judges what others train; .* \(from file .*peer\.toml\)$",
        ),
        (None, {"validation.role": "judge"}, r"validation\.role: .*'trainer' or 'validator'"),
    ],
    ids=["alone", "no seats", "file", "unknown"],
)
def test_a_role_that_does_not_go_with_other_settings_is_refused(text, flags, message, load):
    with pytest.raises(ConfigurationError, match=message):
        load(text, flags=flags)
