"""The results of an ablation or a sweep: a line for each run, a row for each variant."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from cmbench.cli import _screen
from cmbench.cli._plan import ENDED, Task, Variant
from cmbench.cli._screen import table
from cmbench.measures import better
from cmbench.rundir import figures, floors, status
from cmbench.rundir.files import name_nonfinite, read_json
from cmbench.rundir.log import Row
from cmbench.rundir.segments import newest
from cmbench.words.numbers import four_digits

Summary = dict[str, Any]


def in_words(task: Task) -> str:
    """Say how a task's run ended, e.g. `finished  sw_1step 0.0541` or `diverged at step 7`."""
    state = task.state
    if task.run and state != "finished":
        state += f" at step {status.read(task.run)['step']}"
    quality = _figures(task)["quality"]
    return state if quality is None else f"{state}  {_metric(task)} {four_digits(quality)}"


def report_ablation(name: str, path: Path, tasks: Sequence[Task], json: bool) -> None:
    """Print a row for each variant; as JSON, also each run."""
    rows, metric = _rows_of(tasks), _metric(tasks[0])
    if json:
        told = [row for _, row in rows]
        _screen.data({"schema": 1, "name": name, "recipe": str(path), "metric": metric, "variants": told})
    else:
        _print(["variant"], rows, tasks)


def report_sweep(name: str, path: Path, keys: Sequence[str], tasks: Sequence[Task], json: bool) -> None:
    """Print a row for each combination of the swept keys but the seed, the best first; as JSON, also each run.

    Combinations whose evaluations decide by different metrics stay in their order.
    """
    rows, metrics = _rows_of(tasks), {_metric(task) for task in tasks}
    if len(metrics) == 1:
        rows = _best_first(rows, _metric(tasks[0]))
    if json:
        told = [row for _, row in rows]
        about = {"name": name, "recipe": str(path), "metric": _metric(tasks[0]), "keys": list(keys)}
        _screen.data({"schema": 1, **about, "combinations": told})
    else:
        _print([key for key in keys if key != "seed"], rows, tasks)


def _rows_of(tasks: Sequence[Task]) -> list[tuple[Variant, Summary]]:
    """Return the results of each variant."""
    of_variants: dict[str, list[Task]] = {}
    for task in tasks:
        of_variants.setdefault(task.variant.name, []).append(task)
    return [(own[0].variant, _summary(own)) for own in of_variants.values()]


def _best_first(rows: list[tuple[Variant, Summary]], metric: str) -> list[tuple[Variant, Summary]]:
    """Sort rows by quality; those without come last."""
    sign = -1 if better(metric) == "higher" else 1

    def place(row: tuple[Variant, Summary]) -> float:
        quality = row[1]["quality"]
        return sign * quality if isinstance(quality, int | float) else math.inf

    return sorted(rows, key=place)


def _print(titles: Sequence[str], rows: Sequence[tuple[Variant, Summary]], tasks: Sequence[Task]) -> None:
    """Print the table, with the floor of its metric."""
    metric = _metric(tasks[0])
    shown = {"quality": metric, "true_error": "true_error"}
    if all(row["true_error"] is None for _, row in rows):
        del shown["true_error"]
    known = next((floors.of_meta(read_json(task.run.meta) or {}) for task in tasks if task.run), {})
    cells = [[*variant.cells, *_cells(row, shown, known)] for variant, row in rows]
    table([*titles, "seeds", *shown.values(), "largest tangent_norm", "diverged"], cells)
    if floor := floors.of_row(known, metric):
        _screen.line(f"floor of {metric}: {floors.in_words(floor, four_digits)}")
    if any(floors.MARK in cell for row in cells for cell in row):
        _screen.line(floors.legend())


def _metric(task: Task) -> str:
    return task.recipe.evaluate.decisive


def _figures(task: Task) -> dict[str, Any]:
    """Return the results of one run."""
    run = task.run
    logs = [run.metrics, run.events] if run else []  # the journal has a divergence and its tangent norm
    return {
        "seed": task.recipe.seed,
        "run": run.name if run else None,
        "state": task.state,
        "quality": figures.newest(_rows(logs[:1]), _metric(task)),
        "true_error": figures.newest(_rows(logs[:1]), "true_error"),
        "largest_tangent_norm": figures.largest(_rows(logs), "tangent_norm"),
    }


def _rows(logs: Iterable[Path]) -> Iterator[Row]:
    """Yield the rows of logs, the newest first."""
    return chain.from_iterable(map(newest, logs))


def _summary(tasks: Sequence[Task]) -> Summary:
    """Return the results of one variant's runs.

    Means are over the runs that finished: the last values of a diverged run belong to an earlier step.
    """
    runs = [_figures(task) for task in tasks]
    ended = [run for run in runs if run["state"] in ENDED]
    finished = [run for run in ended if run["state"] == "finished"]
    summary: Summary = {**tasks[0].variant.told, "overrides": tasks[0].variant.overrides}
    for key in ("quality", "true_error"):
        values = [run[key] for run in finished if run[key] is not None]
        summary[key], summary[f"{key}_std"] = figures.mean_and_deviation(values)
    norms = [run["largest_tangent_norm"] for run in ended if run["largest_tangent_norm"] is not None]
    summary["largest_tangent_norm"] = statistics.median(norms) if norms else None
    summary["diverged"], summary["of"] = len(ended) - len(finished), len(ended)
    return name_nonfinite({**summary, "runs": [name_nonfinite(run) for run in runs]})


def _cells(row: Summary, shown: dict[str, str], known: floors.Floors) -> list[str]:
    return [
        ", ".join(str(run["seed"]) for run in row["runs"] if run["state"] in ENDED) or "-",
        *(
            floors.marked(four_digits(row[key], row[f"{key}_std"]), floors.is_within(known, metric, row[key]))
            for key, metric in shown.items()
        ),
        four_digits(row["largest_tangent_norm"]),
        f"{row['diverged']} of {row['of']}",
    ]
