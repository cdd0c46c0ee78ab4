"""Conditions on runs: what they say, and what they refuse to understand."""

import math

import pytest

from cmbench.comparison.expression import Condition, metric_named
from cmbench.errors import UsageError

METRICS = ["loss", "sw_1step", "sw_2step", "true_error"]
VALUES = {
    "a": {"loss": 1.0, "sw_1step": 0.5, "true_error": 0.0},
    "b": {"loss": 2.0, "sw_1step": 0.6, "true_error": 3.0},
    "c": {"loss": 0.5, "sw_1step": 0.4, "true_error": -1.0},
}


def holds(text, values=VALUES):
    return {v.run: v.holds for v in Condition(text, list(values), METRICS).verdicts(values)}


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "sw1 > 1.05 * a.sw1": {"b": True, "c": False},
        "sw_1step > a.sw_1step": {"b": True, "c": False},
        "A.sw1 < sw1": {"b": True, "c": False},
        "loss > 1 and sw1 > .55": {"b": True, "c": False},
        "loss > 9 or not sw1 > .55": {"b": False, "c": True},
        "0.4 < sw1 <= 0.6": {"b": True, "c": False},
        "0.4 <= sw1 < 0.6": {"b": False, "c": True},
        "abs(loss - a.loss) > 0.75": {"b": True, "c": False},
        "max(loss, sw1, 1) == 1": {"b": False, "c": True},
        "min(loss, 1) != 1": {"b": False, "c": True},
        "-loss + 2 * 3 / 2 - 1 == 0": {"b": True, "c": False},
        "b.loss > a.loss": {None: True},
        "loss > 1.05 * b.loss": {"a": False, "c": False},
        "loss >= c.loss": {"a": True, "b": True},
        "sw1 > a.sw1 or b.loss > 9": {"b": True, "c": False},
        "(((loss)) > 1)": {"b": True, "c": False},
    }.items(),
)
def test_what_conditions_say(text, expected):
    assert holds(text) == expected


def test_the_only_run_is_meant_by_a_bare_metric():
    assert holds("loss > 0.9", {"a": VALUES["a"]}) == {"a": True}


def test_the_values_looked_at():
    verdict = Condition("sw1 > 1.05 * a.sw1", list(VALUES), METRICS).verdicts(VALUES)[0]
    assert verdict.values == {"b.sw1": 0.6, "a.sw1": 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_passes_no_gate(value):
    for text in ("sw1 > 1", "sw1 < 1", "not sw1 > 1", "sw1 != sw1", "1 / sw1 > 7", "a.loss > 5 and sw1 > 1"):
        assert holds(text, {"a": VALUES["a"], "b": {"sw_1step": value}}) == {"b": True}


ESCAPES = [
    "__import__('os').system('true') > 0",
    "().__class__.__bases__[0] > 0",
    "a.__class__ > 0",
    "a.sw1.real > 0",
    "a.loss.__class__.__mro__ > 0",
    "(lambda: 1)() > 0",
    "[x for x in (1, 2)] > 0",
    "loss if loss else loss",
    "'a' > 0",
    "b'a' > 0",
    "f'{loss}' > 0",
    "True > 0",
    "None == loss",
    "1j > 0",
    "... > 0",
    "1e999 > 0",
    "9 ** 9 ** 9 > 0",
    "9 << 9 > 0",
    "loss % 2 > 0",
    "loss // 2 > 0",
    "~1 > 0",
    "loss & 1 > 0",
    "loss[0] > 0",
    "loss in (1, 2)",
    "loss is 1",
    "(x := 1) > 0",
    "open('f') > 0",
    "eval('1') > 0",
    "max(*loss) > 0",
    "max(loss, key=abs) > 0",
    "max(loss) > 0",
    "abs(loss, 1) > 0",
    "abs() > 0",
    "min.__call__(1, 2) > 0",
    "a.max(1, 2) > 0",
    "max > 0",
    "print(1) > 0",
    "(loss > 1) + 1 > 0",
    "loss",
    "1 + 1",
    "-loss",
    "not loss",
    "loss and sw1 > 1",
    "loss > 1; loss > 2",
    "loss = 1",
    "loss > 1\nimport os",
    "import os",
    "",
    "(",
    "(" * 300 + "1" + ")" * 300 + " > 0",
    "-" * 499 + "1",
    "1" * 501,
    "9" * 490 + " > 0",
    "yield 1",
    "await loss",
    "a > 0",
    "loss > \x00",
    "\ud800 > 0",
    "lòss > 0",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_else_is_understood(text):
    with pytest.raises(UsageError) as error:
        Condition(text, list(VALUES), METRICS)
    assert "allowed" in str(error.value)


def test_names_that_are_not_there():
    for text, mentions in {
        "los > 1": ["'los'", "'loss'?", "sw_1step"],
        "sw3 > 1": ["'sw3'", "'sw_2step'?"],
        "d.loss > 1": ["no run 'd'", "a, b, c"],
        "1 > 2 and los > 1": ["'los'"],
        "a.los > 1": ["'los'", "'loss'?"],
    }.items():
        with pytest.raises(UsageError) as error:
            Condition(text, list(VALUES), METRICS)
        assert [part for part in mentions if part not in str(error.value)] == [], str(error.value)


def test_what_a_run_cannot_be_asked():
    with pytest.raises(UsageError, match="run b has no sw_2step"):
        holds("sw2 > 1")
    with pytest.raises(UsageError, match="run a has no sw_2step"):
        holds("loss > a.sw2")
    with pytest.raises(UsageError, match="divides by zero for run b"):
        holds("loss / a.true_error > 1")


def test_short_forms_of_metrics():
    assert (
        metric_named("sw1", METRICS) == metric_named("sw_1", METRICS) == metric_named("sw_1step", METRICS) == "sw_1step"
    )
    assert metric_named("sw1", ["sw1", "sw_1step"]) == "sw1"
