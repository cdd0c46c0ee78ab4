"""Schedules of one recipe, or of two compared, as charts and a table."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmbench.cli import _plots, _screen
from cmbench.cli._plots import Series
from cmbench.cli._screen import table
from cmbench.words.numbers import four_digits, number

if TYPE_CHECKING:
    from cmbench.engine.schedules import OverNoise, Schedules

_OVER_NOISE = {
    "proposal": "density of the times drawn, p(log sigma)",
    "weight": "effective weight, lambda(t) p(log sigma), of area 1",
    "interval": "interval, (t - r) / t",
}
_STEP_MARKERS = ("1", "2", "3")
_RECIPE_MARKERS = ("o", "x")


def show(recipes: "Sequence[Schedules]") -> None:
    """Print the schedules of one recipe or of two."""
    labels = [s.name for s in recipes]
    if len(set(labels)) < len(labels):
        labels = [f"{name} ({i})" for i, name in enumerate(labels, 1)]
    pairs = "   ".join(f"{marker} {label}" for marker, label in zip(_RECIPE_MARKERS, labels, strict=False))
    _screen.line(pairs if len(recipes) > 1 else f"{labels[0]}: {recipes[0].total:,} steps")
    for name in dict.fromkeys(name for s in recipes for name in s.scalars):
        _over_steps(name, recipes)
    constants = [(n, *(_constant(s, n) for s in recipes)) for n in dict.fromkeys(n for s in recipes for n in s.scalars)]
    constants = [row for row in constants if any(row[1:])]
    if constants:
        _screen.line("")
        table(["constant", *labels], constants)
    for kind in _OVER_NOISE:
        _over_noise(kind, recipes)
    _screen.line("")
    table(["outside sigma_min to sigma_max", *labels], _outside(recipes))
    for schedules, label in zip(recipes, labels, strict=True):
        for note in schedules.notes:
            _screen.line(f"{label}: {note}")


def _constant(schedules: "Schedules", name: str) -> str:
    values = schedules.scalars.get(name, [])
    return four_digits(values[0]) if values and min(values) == max(values) else ""


def _over_steps(name: str, recipes: "Sequence[Schedules]") -> None:
    """Draw one scalar over the steps, or over shares of the run if the recipes' numbers of steps differ."""
    if all(_constant(s, name) for s in recipes if name in s.scalars):
        return
    total = max(s.total for s in recipes)
    shared = len({s.total for s in recipes}) > 1
    curves = [
        Series(
            [step / s.total * total for step in s.steps],
            s.scalars[name],
            marker if len(recipes) > 1 else "braille",
            joined=len(recipes) == 1,
        )
        for s, marker in zip(recipes, _RECIPE_MARKERS, strict=False)
        if name in s.scalars
    ]
    ends = [
        f"{four_digits(s.scalars[name][0])} to {four_digits(s.scalars[name][-1])}" for s in recipes if name in s.scalars
    ]
    _screen.text(f"\n{name} over the {'share of the run' if shared else 'steps'}: {'; '.join(ends)}")
    quarters = [i / 4 for i in range(5)]
    _screen.show(
        _plots.chart(curves, {q * total: f"{q:.0%}" if shared else number(round(q * total)) for q in quarters}, 10)
    )


def _over_noise(kind: str, recipes: "Sequence[Schedules]") -> None:
    """Draw one quantity over the noise level: all steps in one chart, or a chart per step for two recipes."""
    having = [s for s in recipes if getattr(s.noise[0], kind)]
    if not having:
        return
    changes = any(getattr(look, kind) != getattr(s.noise[0], kind) for s in having for look in s.noise)
    lows, highs = ([s.noise[0].edges[end] for s in having] for end in (0, -1))
    ticks = _plots.log_ticks(min(lows), max(highs))
    if len(recipes) == 1:
        looks = having[0].noise if changes else having[0].noise[:1]
        curves = [_curve(look, kind, m) for look, m in zip(looks, _STEP_MARKERS, strict=False)]
        at = "   ".join(f"{m} step {look.step:,}" for look, m in zip(looks, _STEP_MARKERS, strict=False))
        _screen.text(f"\n{_OVER_NOISE[kind]}\n{at if changes else 'the same at every step'}")
        _screen.show(_plots.chart(curves, ticks))
        return
    for i, when in enumerate(("first", "middle", "last") if changes else ("every",)):
        curves = [
            _curve(s.noise[min(i, len(s.noise) - 1)], kind, marker)
            for s, marker in zip(recipes, _RECIPE_MARKERS, strict=False)
            if s in having
        ]
        _screen.text(f"\n{_OVER_NOISE[kind]}, {when} step")
        _screen.show(_plots.chart(curves, ticks))


def _curve(look: "OverNoise", kind: str, marker: str) -> Series:
    """Return points in the middle of the bins. Empty bins have none, so that grids show as grids."""
    middles = [0.5 * (math.log10(a) + math.log10(b)) for a, b in zip(look.edges, look.edges[1:], strict=False)]
    empty = (None,) if kind == "interval" else (None, 0.0)
    return Series(middles, [None if y in empty else y for y in getattr(look, kind)], marker, joined=False)


def _outside(recipes: "Sequence[Schedules]") -> list[list[str]]:
    """Return the shares of samples and of weight that the charts do not show, at the last step."""
    rows = (("samples", 0), ("weight", 1))
    return [[name, *(_percent(s.noise[-1].outside[i]) for s in recipes)] for name, i in rows]


def _percent(share: float) -> str:
    """Return a share as text; "-" if there is none, because the weight is not finite."""
    return f"{share:.2%}" if math.isfinite(share) else "-"
