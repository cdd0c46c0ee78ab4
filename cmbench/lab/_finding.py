"""The result of measuring a claim: measured and expected numbers, a verdict, a chart. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Relation = Literal["=", "<=", ">="]
Verdict = Literal["holds", "holds in part", "fails"]


@dataclass(frozen=True)
class Measure:
    """A measured number and the one that theory expects.

    Attributes:
        what: what was measured, in a few words.
        measured: the number by the package's own equations.
        expected: the number by a closed form, quadrature or another independent derivation; or a bound.
        tolerance: how far the measured number may be off on the wrong side, absolute.
        relation: whether the measured number should equal the expected one, or be bounded by it.
    """

    what: str
    measured: float
    expected: float
    tolerance: float = 0.0
    relation: Relation = "="

    @property
    def holds(self) -> bool:
        """Whether the number is finite and within its tolerance."""
        beyond = self.measured - self.expected
        return {"=": abs(beyond), "<=": beyond, ">=": -beyond}[self.relation] <= self.tolerance


@dataclass(frozen=True)
class Curve:
    """The points of one curve of a chart; `joined` says whether a line joins them."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes, with the axes' labels and scales (linear or logarithmic)."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of measuring a claim.

    Attributes:
        measures: all of them must hold.
        chart: the chart of the claim.
        note: what does hold, if the statement holds only in part; otherwise what else is worth knowing.
        in_part: whether the measures show that the statement holds only as the note says.
    """

    measures: Sequence[Measure]
    chart: Chart
    note: str = ""
    in_part: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict; if any measure is beyond its tolerance, the claim fails."""
        if not all(measure.holds for measure in self.measures):
            return "fails"
        return "holds in part" if self.in_part else "holds"
