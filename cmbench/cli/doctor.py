"""`cmbench doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _screen, _terminal
from cmbench.cli._app import app
from cmbench.cli._options import Json, Overrides, RunsDir, Trust, _complete_recipes
from cmbench.cli._screen import table
from cmbench.errors import NotFoundError, UsageError
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select

if TYPE_CHECKING:
    from cmbench.engine.doctor.check import Check


@app.command("doctor")
def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=_complete_recipes,
            help="A recipe's path or name, or a run's; without it, the machine is checked.",
        ),
    ] = None,
    overrides: Overrides = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Also compare the network with its compiled form; takes about a minute."),
    ] = False,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Check this machine, or a recipe before training. Exit code 1 if a check fails."""
    for option, given in (("--set", overrides), ("--compile", compile)):
        if recipe is None and given:
            raise UsageError(f"{option}: found one, allowed only with a recipe")
    checks = _of_machine(runs_dir) if recipe is None else _of_recipe(recipe, overrides or [], runs_dir, compile)
    counts = {level: sum(check.level == level for check in checks) for level in ("ok", "warn", "fail", "-")}
    if json:
        _screen.data({"schema": 1, "recipe": recipe, "counts": counts, "checks": [vars(c) for c in checks]})
    else:
        _print(checks)
        _screen.text("\n" + ", ".join(f"{n} {level}" for level, n in counts.items() if n and level != "-"))
    return 1 if counts["fail"] else 0


def _of_machine(runs_dir: Path | None) -> "list[Check]":
    from cmbench.engine import doctor as engine
    from cmbench.engine.doctor.check import Check

    terminal = _terminal.look()
    return [*engine.of_machine(runs_folder(runs_dir)), Check("terminal", *terminal)]


def _of_recipe(name: str, overrides: list[str], runs_dir: Path | None, compile: bool) -> "list[Check]":
    path, run = _find(name, runs_dir)
    if run is None:
        given = consent.named(path, overrides).recipe
    else:
        consent.typed(overrides)
        given = recipes.load(path, overrides)

    from cmbench.engine import build
    from cmbench.engine import doctor as engine

    with _screen.waiting(f"looking at {path}"):
        whole = build.complete(given, str(path)) if run is None else build.of_run(run, overrides=overrides)
        return engine.of_recipe(whole, str(path), runs_dir, run, compile)


def _find(name: str, runs_dir: Path | None) -> tuple[Path, RunDir | None]:
    """Return the file of a recipe; for a run, its recipe file and the run."""
    try:
        path = recipes.find(name)
    except UsageError as no_recipe:
        try:
            run = select(name, runs_folder(runs_dir))
        except NotFoundError as no_run:
            raise (no_run if name.startswith("@") else no_recipe) from None
        return run.recipe, run
    run = RunDir(path.parent)
    return path, run if path == run.recipe and run.meta.exists() else None


def _print(checks: "list[Check]") -> None:
    found: list[tuple[str, str, str]] = []
    for check in checks:
        found.append((check.name, check.level, check.found))
        found += [("", "", f"-> {check.advice}")] if check.advice else []
    table(["check", "", "found"], found)
    bins: list[dict[str, Any]] = next((c.values["bins"] for c in checks if "bins" in c.values), [])
    if bins:
        _screen.text("\ndF/dt along the conditional velocity: relative error in each bin of noise levels")
        keys = [key for key in bins[0] if key.startswith("error_")]
        names = {"error_jvp": "against float64 jvp", "error_finite_difference": "against float64 differences"}
        rows = [[_range(b["sigma"]), *(f"{b[key]:.1e}" for key in keys)] for b in bins]
        table(["noise level", *(names[key] for key in keys)], rows)


def _range(ends: list[float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"
