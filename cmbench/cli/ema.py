"""`cmbench ema`."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench.cli import _progress, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Checkpoint, Json, RunsDir, Trust, complete_runs
from cmbench.cli._screen import table
from cmbench.errors import UsageError
from cmbench.rundir import checkpoints, reconstructed
from cmbench.rundir.select import address, runs_folder, select
from cmbench.text import shown
from cmbench.words.numbers import four_digits

if TYPE_CHECKING:
    from cmbench.engine.posthoc import Source

_LONGEST = 0.28  # of sigma_rel: no power function is wider
_MOST = 100  # lengths of one call


@app.command("ema")
def ema(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=complete_runs, help="A path, a unique prefix, @latest or @latest:PREFIX."
        ),
    ] = "@latest",
    lengths: Annotated[
        str, typer.Option(metavar="SIGMA_REL,...", help="Lengths to reconstruct, e.g. 0.02,0.075; without, what can.")
    ] = "",
    kept: Annotated[
        str, typer.Option("--kept", metavar="SIGMA_REL,...", help="Use only these kept lengths; all if not given.")
    ] = "",
    checkpoint: Checkpoint = "latest",
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Reconstruct averages of any length, after training, from those that training kept ([ema] keep_every)."""
    wanted, only = _lengths(lengths, "--lengths"), _lengths(kept, "--kept")
    chosen = select(run, runs_folder(runs_dir), with_checkpoint=True)
    step = checkpoints.choose(chosen, checkpoint)

    from cmbench.engine.posthoc import Source

    source = Source(chosen, step, only)
    if not wanted:
        _show_kept(source, json)
        return
    with _progress.shown("reading") as progress:
        outcomes = source.reconstruct(wanted, progress)
    if json:
        about = {"schema": 1, "run": chosen.name, "checkpoint": step, "lengths": [vars(own) for own in outcomes]}
        _screen.data(about)
        return
    _screen.line(f"{chosen.name}, checkpoint {step}: from {_kept(source)}")
    rows = [
        (own.length, four_digits(own.error), four_digits(own.weights), _difference(own.difference), own.path or "-")
        for own in outcomes
    ]
    table(["length", "profile's error", "sum of weights", "off training's own", "file"], rows)
    if made := [own.length for own in outcomes if own.path]:
        _screen.line(f"use: cmbench sample {address(chosen)} --checkpoint {step} --ema {made[0]}")


def _show_kept(source: "Source", json: bool) -> None:
    """Print what is kept, and what follows from it."""
    reach, run = source.reachable(), source.run
    there = checkpoints.averages(reconstructed.checksums(run, source.step) or {})
    made = [name for name in there if name not in source.own]
    if json:
        about = {"schema": 1, "run": run.name, "checkpoint": source.step, "kept": source.own, "steps": source.steps}
        _screen.data({**about, "bytes": source.size(), "reachable": reach, "reconstructed": made})
        return
    _screen.line(f"{run.name}, checkpoint {source.step}: {_kept(source)}")
    size = source.size() / 2**20
    _screen.line(f"the copies take {four_digits(size)} MiB, {four_digits(size / len(source.steps))} a step")
    can = f"lengths from {reach[0]:g} to {reach[1]:g}" if reach else "no lengths"
    _screen.line(f"{can} can be reconstructed; reconstructed so far: {', '.join(made) or 'none'}")


def _kept(source: "Source") -> str:
    lengths = ", ".join(dict.fromkeys(kept.group.partition("_")[2] for kept in source.kept))
    first, last = source.steps[0], source.steps[-1]
    return f"averages of lengths {lengths}, kept at {len(source.steps)} steps from {first} to {last}"


def _difference(value: float | None) -> str:
    return "-" if value is None else four_digits(value)


def _lengths(text: str, option: str) -> list[float]:
    """Read lengths, without repetitions.

    Raises:
        UsageError: one is not in (0, .28), or they are too many.
    """
    parts = text.split(",") if text else []
    found = [number if (number := checkpoints.number(part)) is not None else math.nan for part in parts]
    if not all(0 < number < _LONGEST for number in found) or len(parts) > _MOST:
        allowed = f"up to {_MOST} comma-separated numbers between 0 and {_LONGEST}, e.g. 0.02,0.05,0.1"
        raise UsageError(f"{option}: found {shown(text)}, allowed: {allowed}")
    return list(dict.fromkeys(found))
