"""The results of measured claims, as text on the terminal, as plain data, and as a page of Markdown."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.text import Text

from cmbench.cli import _plots, _screen
from cmbench.cli._screen import table
from cmbench.lab import Chart, Claim, Finding, Measure

_MARKERS = ("o", "x", "+", "*", "#", "@")
_VERDICTS = ("holds", "holds in part", "fails")


@dataclass(frozen=True)
class Result:
    """A claim, its finding, and the seconds it took."""

    claim: Claim
    finding: Finding
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Return everything as data."""
        found = self.finding
        measures = [{**vars(measure), "holds": measure.holds} for measure in found.measures]
        outcome = {"verdict": found.verdict, "measures": measures, "note": found.note, "chart": asdict(found.chart)}
        return {**vars(self.claim), **outcome, "seconds": round(self.seconds, 2)}


def counts(results: Sequence[Result]) -> dict[str, int]:
    """Return how many claims came to each verdict."""
    return {verdict: sum(r.finding.verdict == verdict for r in results) for verdict in _VERDICTS}


def summary(results: Sequence[Result]) -> str:
    """Return the counts and the time in one line."""
    parts = ", ".join(f"{n} {verdict}" for verdict, n in counts(results).items() if n)
    return f"{parts}; {sum(r.seconds for r in results):.0f} s"


def show(result: Result) -> None:
    """Print one result with its chart."""
    claim, finding = result.claim, result.finding
    _screen.text(f"\n{claim.name} ({claim.source}): {finding.verdict}")
    _screen.text(f"  claim    {claim.statement}\n  setting  {claim.setting}")
    if finding.note:
        _screen.text(f"  note     {finding.note}")
    _screen.line("")
    rows = [
        ("ok" if m.holds else "fails", measured, expected, what) for m, (what, measured, expected) in _rows(finding)
    ]
    table(["", "measured", "expected", ""], rows)
    _screen.line("")
    _screen.show(_chart(finding.chart))


def page(results: Sequence[Result]) -> str:
    """Return a page of Markdown."""
    lines = ["# The claims of the theory, measured", "", "Made by `cmbench lab all --markdown docs/lab.md`.", ""]
    lines += ["| claim | source | verdict |", "|---|---|---|"]
    lines += [f"| [`{r.claim.name}`](#{r.claim.name}) | {r.claim.source} | {r.finding.verdict} |" for r in results]
    for result in results:
        claim, finding = result.claim, result.finding
        lines += [
            "",
            f"## {claim.name}",
            "",
            f"{claim.source}, **{finding.verdict}**: {_plain(claim.statement)}.",
            "",
        ]
        lines += [f"*Setting:* {_plain(claim.setting)}.", ""]
        lines += ["| | measured | expected |", "|---|---|---|"]
        lines += [f"| {_plain(what)} | {measured} | {expected} |" for _, (what, measured, expected) in _rows(finding)]
        lines += ["", _plain(finding.note)] if finding.note else []
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return text that Markdown shows literally."""
    for character in "\\|*_<":
        text = text.replace(character, f"\\{character}")
    return text


def _rows(finding: Finding) -> Iterator[tuple[Measure, tuple[str, str, str]]]:
    for m in finding.measures:
        bound = f"{m.expected:.5g}" if m.relation == "=" else f"{m.relation} {m.expected:.5g}"
        yield m, (m.what, f"{m.measured:.5g}", bound + (f" ± {m.tolerance:.2g}" if m.tolerance else ""))


def _chart(chart: Chart) -> Text:
    """Return the chart as text; logarithmic axes leave out values that are not positive."""
    curves, labels = [], []
    for curve, marker in zip(chart.curves, _MARKERS, strict=False):
        x, y = _scaled(curve.x, chart.log_x), _scaled(curve.y, chart.log_y)
        curves.append(_plots.Series(x, y, marker, joined=False))
        labels.append(f"{marker} {curve.label}")
    xs = [x for curve in chart.curves for x in curve.x]
    ticks = _plots.log_ticks(min(xs), max(xs)) if chart.log_x else _even_ticks(min(xs), max(xs))
    head = f"{chart.y} over {chart.x}: {chart.title}\n{'   '.join(labels)}\n"
    return Text(head) + _plots.chart(curves, ticks, 14, log_y=chart.log_y)


def _scaled(values: Sequence[float], log: bool) -> list[float]:
    return [math.log10(v) if v > 0 else math.nan for v in values] if log else list(values)


def _even_ticks(low: float, high: float) -> dict[float, str]:
    places = [low + i * (high - low) / 4 for i in range(5)]
    return {place: f"{place:.3g}" for place in places}
