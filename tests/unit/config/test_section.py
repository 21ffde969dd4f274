"""Errors of what is read from TOML, in words."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from peer.config.section import Section, explain, field_names, unknown_field


class Circle(Section):
    kind: Literal["circle"]
    radius: float


class Square(Section):
    kind: Literal["square"]
    width: float


class Label(Section):
    text: str = ""


class Drawing(Section):
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    labels: tuple[Label, ...] = ()


CIRCLE = {"kind": "circle", "radius": 1.0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"shape": CIRCLE, "lables": []}, "the field lables is unknown; did you mean labels?"),
        (
            {"shape": CIRCLE | {"radios": 1.0}},
            "the field shape.radios is unknown; did you mean radius?",
        ),
        ({"shape": CIRCLE | {"width": 1.0}}, "the field shape.width is unknown; known here: kind"),
        (
            {"shape": CIRCLE, "labels": [{}, {"txet": ""}]},
            "the field labels.1.txet is unknown; did you mean text?",
        ),
        ({"shape": {"kind": "circle", "radius": "wide"}}, "shape.radius: "),
        ({"shape": CIRCLE, "labels": [{"text": 5}]}, "labels.0.text: "),
    ],
)
def test_a_complaint_names_the_field_as_the_file_has_it(body, message):
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(body)
    assert explain(caught.value, Drawing).startswith(message)


def test_a_complaint_about_everything_names_the_file():
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(5)
    assert explain(caught.value, Drawing).startswith("the file: ")


def test_the_names_of_a_union_are_those_of_all_its_models():
    assert field_names(Drawing, []) == ["labels", "shape"]
    assert field_names(Drawing, ["shape"]) == ["kind", "radius", "width"]
    assert field_names(Drawing, ["nothing"]) == []


def test_an_unknown_field_where_nothing_is_known_says_so():
    sentence = unknown_field(Drawing, ["nothing", "at_all"])
    assert sentence == "the field nothing.at_all is unknown; known here: none"


def test_a_section_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Label().text = "new"
