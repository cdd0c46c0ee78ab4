"""`cmbench compare`."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench.cli import _dashboard, _outputs, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Ascii, Json, Plain, RunsDir, RunsToCompare
from cmbench.comparison import filter as run_filter
from cmbench.errors import NotFoundError, UsageError, prefixing
from cmbench.rundir import overview
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs, runs_folder, select_many

if TYPE_CHECKING:  # not every command should load numpy
    from cmbench.comparison.compare import Comparison


@app.command("compare")
def compare(
    runs: RunsToCompare = None,
    runs_dir: RunsDir = None,
    where: Annotated[
        str | None,
        typer.Option("--filter", metavar="WORDS", help="Filter these runs, or all: 'tag:x state:finished loss<0.1'."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare only these metrics, profiles or machine curves: sw1, 'machine_*'; may be repeated.",
        ),
    ] = None,
    plain: Plain = False,
    json: Json = False,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE.csv", help="Write CSV, one value per line; - prints it.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one page with charts and snapshots.")] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture of tables, charts and snapshots.")
    ] = None,
    reach: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=LEVEL", help="Show when each run reached LEVEL: sw1=0.06; may be repeated."),
    ] = None,
    fail_if: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Exit with 1 if it holds for a run after the first, e.g. 'sw1 > 1.05 * a.sw1'; a is the first run. "
            "It also holds if a value is not finite.",
        ),
    ] = None,
    ascii_only: Ascii = False,
) -> int:
    """Compare runs, named a, b, c and so on: on a screen in a terminal, otherwise as tables, JSON, CSV or a page."""
    if plain + json + (csv == "-") > 1:
        raise UsageError("--plain, --json, --csv -: found more than one, allowed: one of them")
    if csv is not None and csv != "-" and not csv.endswith(".csv"):  # --csv once took no file: this may be a run
        raise UsageError(f"--csv: found '{csv}', allowed: a file whose name ends in .csv, or - to print it")
    _outputs.apart(html=html, png=png, csv=Path(csv) if csv else None)
    folder = runs_folder(runs_dir)
    chosen = _chosen(runs or [], where, folder)
    asked = plain or json or csv or html or png or fail_if is not None or reach or metric
    if not asked and _dashboard.can_be_shown():
        _dashboard.show(folder, chosen, ascii_only)
        return 0
    from cmbench.comparison import compare as comparison

    with prefixing("--metric"):
        found = comparison.compare(chosen, metric or [])
    found = _with_goals(found, reach or [])
    holding = [] if fail_if is None else _verdicts(found, fail_if)
    _write(found, html, png, None if csv in (None, "-") else Path(csv))
    if json or csv == "-":
        _print_data(found, json)
    elif plain or not (html or png or csv or fail_if is not None):
        _print_tables(found, ascii_only)
    for line in holding:
        _screen.line(line, err=True)
    return 1 if holding else 0


def _chosen(selectors: list[str], where: str | None, folder: Path) -> list[RunDir]:
    """Return the selected runs.

    Raises:
        UsageError: no run is named, or the filter is malformed.
        NotFoundError: no run matches.
    """
    if not selectors and where is None:
        raise UsageError("compare: found no runs, allowed: RUN..., --filter WORDS, or both")
    with prefixing("--filter"):
        is_meant = run_filter.parse(where or "")
    chosen = select_many(selectors, folder) if selectors else all_runs(folder)
    chosen = [run for run in chosen if is_meant(overview.glance(run))] if where is not None else chosen
    if not chosen:
        raise NotFoundError(f"--filter {where!r}: no such run in {folder} (cmbench ls)")
    return chosen


def _with_goals(found: "Comparison", reach: list[str]) -> "Comparison":
    """Replace the usual levels by those of --reach, if any."""
    from cmbench.comparison import compare as comparison
    from cmbench.comparison import expression

    goals = []
    for text in reach:
        name, _, level = text.partition("=")
        with prefixing(f"--reach {text!r}"):
            metric = expression.metric_named(name.strip(), comparison.metrics_of(found.members))
            try:
                number = float(level)
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                raise UsageError(f"found no finite number {level!r}, allowed: METRIC=LEVEL, e.g. sw1=0.06")
            goals.append(comparison.goal(found.members, metric, number))
    return dataclasses.replace(found, goals=goals) if goals else found


def _verdicts(found: "Comparison", text: str) -> list[str]:
    """Return a line for each run that meets the condition."""
    from cmbench.comparison import compare as comparison
    from cmbench.comparison.expression import Condition
    from cmbench.text import plain

    values = {member.letter: {name: column.last for name, column in member.columns.items()} for member in found.members}
    with prefixing("--fail-if"):
        verdicts = Condition(text, values.keys(), comparison.metrics_of(found.members)).verdicts(values)
    names = {member.letter: member.run.name for member in found.members}
    return [
        f"{plain(text)}: holds{f' of {verdict.run} ({plain(names[verdict.run])})' if verdict.run else ''}: "
        + ", ".join(f"{name} = {value:.6g}" for name, value in verdict.values.items())
        for verdict in verdicts
        if verdict.holds
    ]


def _write(found: "Comparison", html: Path | None, png: Path | None, csv: Path | None) -> None:
    """Write the requested files."""
    if csv:
        from cmbench.cli import _report_csv

        _outputs.write(csv, _report_csv.encoded(found).encode(), "--csv")
    if not (html or png):
        return
    from cmbench.cli import _report_html, _report_png
    from cmbench.views import chart_file

    chart_file.check("--html" if html else "--png")
    for option, path, encode in (("--html", html, _report_html.encoded), ("--png", png, _report_png.encoded)):
        if path:
            _outputs.write(path, encode(found), option)


def _print_data(found: "Comparison", json: bool) -> None:
    if json:
        from cmbench.cli import _report_json

        _screen.data(_report_json.plain(found))
    else:
        from cmbench.cli import _report_csv

        _screen.text(_report_csv.encoded(found).rstrip("\n"))


def _print_tables(found: "Comparison", ascii_only: bool) -> None:
    from cmbench.words.comparison import report

    for section in report(found, ascii_only):
        _screen.line("")
        _screen.line(section.title)
        if section.rows:
            _screen.table(section.headers, section.rows, section.spare)
        else:
            _screen.line(section.otherwise)
