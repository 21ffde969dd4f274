"""What goes over the pipe comes back as it was, and junk is refused."""

import math
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.events import Message, Phase, PhaseChanged, Progress

FLOATS = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
BY_ANNOTATION = {
    float: FLOATS,
    float | None: st.none() | FLOATS,
    dict[str, float]: st.dictionaries(st.text(), FLOATS, max_size=3),
    dict[str, Any]: OBJECTS,
    tuple[dict[str, Any], ...]: st.lists(OBJECTS, max_size=3).map(tuple),
}
KINDS = sorted(Message.kinds.values(), key=lambda kind: kind.__name__)


def messages(kind):
    hints = get_type_hints(kind).items()
    given_fields = {name: BY_ANNOTATION[hint] for name, hint in hints if hint in BY_ANNOTATION}
    return st.builds(kind, **given_fields)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_an_encoded_message_decodes_to_itself(kind, data):
    message = data.draw(messages(kind))
    line = message.encode()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    decoded = Message.decode(line)
    assert type(decoded) is kind
    assert decoded == message


def test_a_loss_that_is_not_a_number_stays_one():
    sent = Progress(
        samples=1,
        tokens=8,
        loss=math.nan,
        contribution_samples=1,
        contribution_weight=8,
        tokens_total=8,
        seconds=math.inf,
    )
    got = Message.decode(sent.encode())
    assert math.isnan(got.loss)
    assert got.seconds == math.inf


def test_a_phase_comes_back_as_its_enum_member():
    got = Message.decode(PhaseChanged(phase=Phase.TRAINING, reason="").encode())
    assert got.phase is Phase.TRAINING


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"\xff\xfe",
        b"{",
        b"{}",
        b"null",
        b"[]",
        b'"Finish"',
        b"1",
        b'{"kind":"Message"}',
        b'{"kind":"NoSuchKind"}',
        b'{"kind":null}',
        b'{"kind":[]}',
        b'{"kind":{}}',
        b'{"kind":"Pause"}',
        b'{"kind":"Pause","reason":5}',
        b'{"kind":"WorkRepeated","samples":"many","tokens":1}',
        b'{"kind":"WorkRepeated","samples":1.5,"tokens":1}',
        b'{"kind":"PhaseChanged","phase":"sleeping","reason":""}',
        b'{"kind":"RootComputed","epoch":1,"state_root":null}',
        b"[" * 100_000,
        b"9" * 5000,
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_junk_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011 the class is the contract
        Message.decode(line)


@given(st.binary(max_size=64))
def test_random_bytes_are_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011 the class is the contract
        Message.decode(line)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_a_message_cut_short_is_refused(kind, data):
    line = data.draw(messages(kind)).encode()
    cut = data.draw(st.integers(0, len(line) - 2))
    with pytest.raises(ValueError):  # noqa: PT011 the class is the contract
        Message.decode(line[:cut])
