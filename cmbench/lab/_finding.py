"""What measuring a claim came to: numbers against numbers, a verdict, a chart. Knows no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Relation = Literal["=", "<=", ">="]
Verdict = Literal["holds", "holds in part", "fails"]


@dataclass(frozen=True)
class Measure:
    """One number against what theory says.

    Attributes:
        what: what was measured, in a few words.
        measured: by the package's own equations.
        expected: by a closed form, quadrature or another derivation of its own, or a bound.
        tolerance: how far the measured number may lie on the wrong side, absolute.
        relation: whether it should equal what is expected, or be bounded by it.
    """

    what: str
    measured: float
    expected: float
    tolerance: float = 0.0
    relation: Relation = "="

    @property
    def holds(self) -> bool:
        """Whether the number is within its tolerance; one that is not finite is not."""
        beyond = self.measured - self.expected
        return {"=": abs(beyond), "<=": beyond, ">=": -beyond}[self.relation] <= self.tolerance


@dataclass(frozen=True)
class Curve:
    """Points of one curve of a chart; `joined` by a line or not."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes, with the labels of the axes and whether they are logarithmic."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Finding:
    """What came out.

    Attributes:
        measures: all of them have to hold.
        chart: what to look at.
        note: what does hold, where the statement holds in part; what else is worth knowing, where it holds.
        in_part: whether the measures show that the statement of the article holds only as the note says.
    """

    measures: Sequence[Measure]
    chart: Chart
    note: str = ""
    in_part: bool = False

    @property
    def verdict(self) -> Verdict:
        """Return the verdict; a measure beyond its tolerance outweighs everything."""
        if not all(measure.holds for measure in self.measures):
            return "fails"
        return "holds in part" if self.in_part else "holds"
