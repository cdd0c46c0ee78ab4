"""`cmbench lab`."""

import importlib.util
import io
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbench import lab as claims
from cmbench.cli import _findings, _former, _outputs, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Json, Markdown
from cmbench.cli._screen import table
from cmbench.errors import UsageError, refusing_write_errors


def _complete_claims(incomplete: str) -> list[str]:
    names = ["all", *(claim.name for claim in claims.all_claims())]
    return [name for name in names if name.startswith(incomplete)]


@app.command("lab", cls=_former.names(png="out"))
def lab(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLAIM",
            autocompletion=_complete_claims,
            help="Claims to measure, or all; without any, they are listed.",
        ),
    ] = None,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write the charts, each as FOLDER/CLAIM.png.")
    ] = None,
    markdown: Markdown = None,
) -> int:
    """Measure claims of the theory on problems with closed-form solutions. Exit code 1 if one fails."""
    if not names:
        if out or markdown:
            raise UsageError(f"--{'out' if out else 'markdown'}: found one, allowed only with claims")
        _list(json)
        return 0
    wanted = claims.chosen(names)
    _check_outputs(out, markdown)
    results = []
    for claim in wanted:
        start = time.perf_counter()
        with _screen.waiting(f"measuring {claim.name}"):
            finding = claims.measure(claim)
        results.append(_findings.Result(claim, finding, time.perf_counter() - start))
        if not json:
            _findings.show(results[-1])
        if out:
            _draw(results[-1], out)
    if markdown:
        _outputs.write(markdown, _findings.page(results).encode(), "--markdown")
    if json:
        _screen.data({"schema": 1, "counts": _findings.counts(results), "claims": [r.plain() for r in results]})
    else:
        _screen.text(f"\n{_findings.summary(results)}")
    return int(any(result.finding.verdict == "fails" for result in results))


def _check_outputs(out: Path | None, markdown: Path | None) -> None:
    """Check the output paths before anything is measured, and make the folder of the charts.

    Raises:
        UsageError: matplotlib is missing, or a path is not writable.
    """
    if out and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--out: needs the matplotlib package: pip install 'cmbench[plots]'")
    if markdown:
        _outputs.check(markdown, "--markdown")
    if out:
        with refusing_write_errors(f"--out {out}"):
            out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise UsageError(f"--out {out}: cannot be written: the folder is not writable")


def _list(json: bool) -> None:
    found = claims.all_claims()
    if json:
        _screen.data({"schema": 1, "claims": [vars(claim) for claim in found]})
        return
    table(["claim", "source", "statement"], [(claim.name, claim.source, claim.statement) for claim in found])
    _screen.text("\nnext: cmbench lab CLAIM, cmbench lab all")


def _draw(result: "_findings.Result", folder: Path) -> None:
    """Draw the chart of a finding with matplotlib."""
    from matplotlib.figure import Figure

    chart = result.finding.chart
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    axes: Any = figure.subplots()
    for curve in chart.curves:
        axes.plot(curve.x, curve.y, "-o" if curve.joined else "o", markersize=3, linewidth=1.2, label=curve.label)
    axes.set(title=f"{result.claim.name}: {chart.title}", xlabel=chart.x, ylabel=chart.y)
    axes.set(xscale="log" if chart.log_x else "linear", yscale="log" if chart.log_y else "linear")
    axes.tick_params(which="minor", labelsize=6)  # otherwise they overlap
    axes.legend(fontsize="small")
    figure.savefig(encoded := io.BytesIO(), format="png")
    _outputs.write(folder / f"{result.claim.name}.png", encoded.getvalue(), "--out")
