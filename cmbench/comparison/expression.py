"""A small language of conditions on runs: `sw1 > 1.05 * a.sw1 or loss > 2`. It is never executed as Python.

It has numbers, + - * /, comparisons, and, or, not, min, max, abs and brackets. `a.sw1` is the last sw_1step of run a.
A metric without a run is that of each run after the first in turn, or of the only run.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cmbench.errors import UsageError, did_you_mean

_LONGEST = 500  # characters: limits the nesting for Python's parser
_ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type, Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, tuple[Callable[..., float], range]] = {  # with how many numbers each takes
    "min": (min, range(2, 100)),
    "max": (max, range(2, 100)),
    "abs": (abs, range(1, 2)),
}
_ALLOWED = "numbers, metrics, a.metric, + - * /, comparisons, and, or, not, min(), max(), abs()"

Lookup = Callable[[ast.expr], float]
Values = Mapping[str, Mapping[str, float | None]]  # letter of a run -> metric -> last value


@dataclass(frozen=True)
class Verdict:
    """Whether a condition holds for a run, by its letter, or for all at once, and the values that it used."""

    run: str | None
    holds: bool
    values: dict[str, float]


def metric_named(name: str, metrics: Collection[str]) -> str:
    """Return the metric that a name means: its full name, or a short form such as sw1 for sw_1step.

    Raises:
        UsageError: there is no such metric; the message names the nearest.
    """
    short = re.sub(r"^sw_?(\d+)$", r"sw_\1step", name)
    if name not in metrics and short not in metrics:
        known = [metric for metric in metrics if metric.isidentifier()]  # no others can be named in a condition
        raise UsageError(f"found no metric {name!r}, allowed: {', '.join(known) or 'none'}{did_you_mean(short, known)}")
    return name if name in metrics else short


class Condition:
    """A parsed condition, on runs with certain metrics."""

    def __init__(self, text: str, runs: Collection[str], metrics: Collection[str]) -> None:
        """Parse a condition.

        Args:
            text: as typed.
            runs: their letters.
            metrics: of all runs together.

        Raises:
            UsageError: something in it is not allowed or does not exist, or a run is compared with itself.
        """
        self._runs, self._metrics, self._text = runs, metrics, text
        self._tree = _parsed(text)
        try:
            self._names = {ast.unparse(node): self._meant(node) for node in _references(self._tree)}
            _truth(self._tree, lambda node: 1.0, trial=True)
            self._refuse_to_compare_with_itself()
        except RecursionError:
            raise UsageError(f"found too many nested brackets or signs, allowed: {_ALLOWED}") from None

    def verdicts(self, values: Values) -> list[Verdict]:
        """Return a verdict for each run after the first, or for the only run; one for all if every metric has a run.

        If a metric is compared with that of a named run, that run is left out instead of the first: no run is compared
        with itself. The condition holds if a value is not finite: a run that diverged passes no gate.

        Raises:
            UsageError: a run lacks a metric of the condition, or a number is divided by zero.
        """
        return [self._verdict(run, values) for run in self._judged()]

    def _judged(self) -> Sequence[str | None]:
        """Return the runs that a metric without a run means; None alone if every metric has a run."""
        bare = {metric for run, metric in self._names.values() if run is None}
        if not bare:
            return [None]
        against = {run for run, metric in self._names.values() if run and metric in bare}
        runs = list(self._runs)
        return [run for run in runs if run not in against] if against else runs[1:] or runs

    def _refuse_to_compare_with_itself(self) -> None:
        if not self._judged():
            named = next(name for name, (run, _) in self._names.items() if run)
            raise UsageError(f"found only runs that {named} compares with themselves, allowed: two runs or more")

    def _verdict(self, run: str | None, values: Values) -> Verdict:
        found: dict[str, float] = {}
        for name, (of, metric) in self._names.items():
            value = values[of or str(run)].get(metric)
            if value is None:
                raise UsageError(f"run {of or run} has no {metric}")
            found[name] = value
        shown = {name if self._names[name][0] else f"{run}.{name}": value for name, value in found.items()}
        if not all(map(math.isfinite, found.values())):
            return Verdict(run, True, shown)
        try:
            holds = _truth(self._tree, lambda node: found[ast.unparse(node)])
        except ZeroDivisionError:
            raise UsageError(f"{self._text}: divides by zero{f' for run {run}' if run else ''}") from None
        return Verdict(run, holds, shown)

    def _meant(self, node: ast.expr) -> tuple[str | None, str]:
        """Return the run (None for each in turn) and the metric of a name."""
        if isinstance(node, ast.Name):
            return None, metric_named(node.id, self._metrics)
        assert isinstance(node, ast.Attribute)
        run = node.value.id.lower() if isinstance(node.value, ast.Name) else ""
        if run not in self._runs:
            found = ast.unparse(node.value)
            raise UsageError(
                f"found no run {found!r}, allowed: {', '.join(self._runs)}{did_you_mean(found, self._runs)}"
            )
        return run, metric_named(node.attr, self._metrics)


def _parsed(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise UsageError(f"found {len(text)} characters, allowed: at most {_LONGEST}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it cannot be parsed"
        raise UsageError(f"{text!r}: {reason}; allowed: {_ALLOWED}") from None


def _references(node: ast.AST) -> Iterable[ast.expr]:
    """Yield the names of metrics in a condition; a metric and its run are one name."""
    if isinstance(node, ast.Attribute | ast.Name):
        yield node
        return
    for child in node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node):
        yield from _references(child)


def _truth(node: ast.expr, lookup: Lookup, trial: bool = False) -> bool:
    """Return whether a condition holds. A trial checks every part, whatever the numbers are."""
    match node:
        case ast.BoolOp(op, parts):
            truths = [_truth(part, lookup, trial) for part in parts]
            return all(truths) if isinstance(op, ast.And) else any(truths)
        case ast.UnaryOp(ast.Not(), part):
            return not _truth(part, lookup, trial)
        case ast.Compare(left, signs, rights) if all(type(sign) in _COMPARISONS for sign in signs):
            numbers = [_number(part, lookup, trial) for part in (left, *rights)]
            pairs = zip(signs, numbers, numbers[1:], strict=False)
            return all(_COMPARISONS[type(sign)](x, y) for sign, x, y in pairs)
    raise UsageError(f"found {ast.unparse(node)!r}, allowed: a comparison, of {_ALLOWED}")


def _number(node: ast.expr, lookup: Lookup, trial: bool) -> float:
    match node:
        case ast.Constant(int() | float() as value) if not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
        case ast.Name() | ast.Attribute():
            return lookup(node)
        case ast.UnaryOp(ast.USub(), part):
            return -_number(part, lookup, trial)
        case ast.BinOp(left, sign, right) if type(sign) in _ARITHMETIC:
            x, y = (_number(part, lookup, trial) for part in (left, right))
            return 1.0 if trial else _ARITHMETIC[type(sign)](x, y)
        case ast.Call(ast.Name(name), parts, []) if name in _FUNCTIONS and len(parts) in _FUNCTIONS[name][1]:
            return _FUNCTIONS[name][0](*(_number(part, lookup, trial) for part in parts))
    raise UsageError(f"found {ast.unparse(node)!r}, allowed: {_ALLOWED}")
