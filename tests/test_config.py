"""One line for each mistake in a table: the key, what was found, what is allowed."""

from typing import Literal

import pytest
from pydantic import Field

from cmbench.config import Config, Floats, Fraction, Ints, NonNegative, Positive, PositiveInt, check
from cmbench.errors import ConflictError, DivergedError, NotFoundError, UsageError, did_you_mean, prefixing


class Inner(Config):
    width: PositiveInt = 3
    share: Fraction = 0.5


class Outer(Config):
    inner: Inner = Inner()
    rate: Positive = 1.0
    decay: NonNegative = 0.0
    lengths: Floats = (1.0,)
    sizes: Ints = ()
    kind: Literal["edm", "trigflow"] = "edm"
    count: int = Field(1, ge=0, le=9)
    whole: bool = False
    title: str = ""


def complaint(table: dict, prefix: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        check(Outer, table, "x.toml", prefix)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("x.toml: ")
    return message.removeprefix("x.toml: ")


def test_a_table_becomes_its_config():
    table = {"inner": {"width": 7}, "rate": 2, "lengths": [0.5, 1], "sizes": [1, 2], "kind": "trigflow"}
    checked = check(Outer, table, "x.toml")
    assert checked == Outer(inner=Inner(width=7), rate=2.0, lengths=(0.5, 1.0), sizes=(1, 2), kind="trigflow")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rat": 1.0}, "rat: unknown key; did you mean 'rate'? (allowed: inner, rate, decay, lengths, sizes, "),
        ({"width": 1}, "width: unknown key; did you mean 'inner.width'? (allowed: inner, rate, decay, lengths, "),
        ({"inner": {"sizes": 1}}, "inner.sizes: unknown key; did you mean 'sizes'? (allowed: width, share)"),
        ({"inner": {"widht": 1}}, "inner.widht: unknown key; did you mean 'width'? (allowed: width, share)"),
        ({"inner": {"width": 0}}, "inner.width: found 0, allowed: greater than or equal to 1"),
        ({"inner": 3}, "inner: found 3, allowed: a table"),
        ({"whole": "maybe"}, "whole: found 'maybe', allowed: true or false"),
        ({"whole": 1}, "whole: found 1, allowed: true or false"),
        ({"title": [1]}, "title: found [1], allowed: text in quotes"),
        ({"rate": 0.0}, "rate: found 0.0, allowed: greater than 0"),
        ({"rate": "1"}, "rate: found '1', allowed: a valid number"),
        ({"rate": float("nan")}, "rate: found nan, allowed: a finite number"),
        ({"rate": True}, "rate: found True, allowed: a valid number"),
        ({"inner": {"share": 1.0}}, "inner.share: found 1.0, allowed: less than 1"),
        ({"decay": -0.1}, "decay: found -0.1, allowed: greater than or equal to 0"),
        ({"count": 2.0}, "count: found 2.0, allowed: a valid integer"),
        ({"count": 10}, "count: found 10, allowed: less than or equal to 9"),
        ({"sizes": [1, 1.5]}, "sizes.1: found 1.5, allowed: a valid integer"),
        ({"lengths": 0.5}, "lengths: found 0.5, allowed: a list, as [0.5]"),
        ({"lengths": "0.5, .1"}, "lengths: found '0.5, .1', allowed: a list, as [0.5, .1]"),
        ({"lengths": "short"}, "lengths: found 'short', allowed: a list, as [\"short\"]"),
        ({"lengths": True}, "lengths: found True, allowed: a list, as [true]"),
        ({"lengths": {}}, "lengths: found {}, allowed: a list"),
        ({"kind": "trigflwo"}, "kind: found 'trigflwo', allowed: 'edm' or 'trigflow'; did you mean 'trigflow'?"),
        ({"kind": 5}, "kind: found 5, allowed: 'edm' or 'trigflow'"),
        ({"rate": "x" * 500}, "rate: found 'xxx"),
    ],
)
def test_mistakes(table, message):
    found = complaint(table)
    assert found.startswith(message)
    assert len(found) < 200


def test_several_mistakes_are_counted():
    assert complaint({"rate": 0.0, "decay": -1.0, "count": 10}).endswith("(and 2 more)")
    assert "more" not in complaint({"rate": 0.0})


def test_a_prefix_stands_before_the_key():
    assert complaint({"rate": 0.0}, prefix="outer").startswith("outer.rate: found 0.0")


def test_exit_codes():
    codes = {error: error.exit_code for error in (UsageError, DivergedError, NotFoundError, ConflictError)}
    assert codes == {UsageError: 2, DivergedError: 3, NotFoundError: 4, ConflictError: 5}


def test_naming_names_usage_errors_alone():
    with pytest.raises(UsageError, match=r"^x\.toml: bad$"), prefixing("x.toml"):
        raise UsageError("bad")
    with pytest.raises(NotFoundError, match=r"^gone$"), prefixing("x.toml"):
        raise NotFoundError("gone")


def test_the_nearest_name():
    assert did_you_mean("digts", ["mixtures", "digits"]) == "; did you mean 'digits'?"
    assert did_you_mean("qqq", ["mixtures", "digits"]) == ""
    assert did_you_mean("x", []) == ""
