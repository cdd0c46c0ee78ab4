"""`cmbench import`."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _screen
from cmbench.cli._app import app
from cmbench.cli._options import Json, Overrides, RunsDir
from cmbench.errors import ConflictError, UsageError
from cmbench.recipe import Recipe, component_names, is_own_class
from cmbench.rundir.layout import LATEST, RunDir
from cmbench.rundir.select import address, runs_folder
from cmbench.text import shown

if TYPE_CHECKING:
    from cmbench.engine.weights_file import Asked, Weights

_FUNCTIONS = ("denoiser", "consistency", "average_velocity")
_LONGEST = 1000  # characters of a licence note


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .safetensors file, a PyTorch state dict or a diffusers folder.")
    ],
    network: Annotated[
        str, typer.Option(metavar="KIND|RECIPE", help="The weights' network, or a recipe with network, path and data.")
    ],
    out: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to put the run: the name of its folder among the runs.")
    ] = None,
    overrides: Overrides = None,
    weights: Annotated[
        str, typer.Option(metavar="NAME", help="Which of the file's state dicts, e.g. ema; needed where several fit.")
    ] = "",
    function: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What the weights compute: {', '.join(_FUNCTIONS)}; as the recipe's objective if not given.",
        ),
    ] = "",
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Names that the file may lack, e.g. 'logvar*'; may be repeated."),
    ] = None,
    allow_unexpected: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Names that the file may have beyond the network's; may be repeated."),
    ] = None,
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="The licence of the weights, which the run and its students keep.")
    ] = "",
    listed: Annotated[
        bool, typer.Option("--list", help="List the names that match and those that do not, and import nothing.")
    ] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Make a run of other people's weights, which sample, eval, watch and teachers then treat as any run.

    No code of the file is run. The network is a kind whose keys --set gives, such as --network unet
    --set network.width=64 --set 'data.shape=[3,32,32]'. Or it is a recipe, which also has the data that eval needs.
    """
    if function and function not in _FUNCTIONS:
        raise UsageError(f"--function: found {shown(function)}, allowed: {', '.join(_FUNCTIONS)}")
    if len(licence) > _LONGEST:
        raise UsageError(f"--licence: found {len(licence):,} characters, allowed: up to {_LONGEST:,}")
    run = None if listed and out is None else _run_of(out, runs_folder(runs_dir))
    given, text, where = _given(network, overrides or [])

    from cmbench.engine import importing

    recipe = importing.neutral(given, where, run.name if run else "listed", function, file)
    asked = importing.Asked(file, weights, allow_missing or (), allow_unexpected or ())
    if run is None or listed:
        _list(asked, recipe, json)
        return
    trained, found = importing.make(asked, recipe, text, licence, run, sys.argv)
    parameters = sum(p.numel() for p in trained.model.parameters())
    if json:
        about = {"run": run.name, "path": str(run.path), "parameters": parameters, "source": found.source}
        _screen.data({"schema": 1, **about})
        return
    which = f", weights {found.match.weights}" if found.match.weights else ""
    _screen.line(f"{run.name}: {len(found.match.pairs)} tensors, {parameters:,} parameters from {file}{which}")
    if found.converted:
        _screen.line(f"converted to float32: {found.types}")
    _screen.line(f"next: cmbench sample {address(run)}")


def _run_of(out: str | None, runs_dir: Path) -> RunDir:
    """Return the run to be made.

    Raises:
        UsageError: no name is given, or no run can have it.
        ConflictError: there is a folder of that name.
    """
    if out is None:
        raise UsageError("--out: missing; allowed: a name for the run, or --list to import nothing")
    if not re.fullmatch(recipes.NAME, out) or out == LATEST:
        raise UsageError(
            f"--out: found {shown(out)}, allowed: letters, digits, _ and -, at most 64 characters, and not '{LATEST}'"
        )
    run = RunDir(runs_dir / out)
    if run.path.is_symlink() or run.path.exists():
        raise ConflictError(f"{run.path}: exists; choose another --out")
    return run


def _given(network: str, overrides: list[str]) -> tuple[Recipe, str, str]:
    """Return the recipe that --network and --set mean, its text, and its name in messages."""
    if not (network in component_names("networks") or is_own_class(network)):
        given = consent.named(recipes.find(network), overrides)
        return given.recipe, given.text + "".join(f"\n# --set {override}" for override in overrides), given.where
    consent.typed([f"network.kind={network}", *overrides])
    own = {"name": "imported", "data": {"kind": "none"}, "network": {"kind": network}, "objective": {"kind": "denoise"}}
    where = f"--network {network}"
    recipe = recipes.check_tables(recipes.merged(own, recipes.parse_overrides(overrides)), where)
    return recipe, recipes.dumps(recipe), where


def _list(asked: "Asked", recipe: Recipe, json: bool) -> None:
    """Print what the file has of the network, and refuse it then if an import would."""
    from cmbench.engine import importing
    from cmbench.statedicts.match import refuse_misfits

    found = importing.look(asked, recipe)
    if json:
        _screen.data({"schema": 1, **_about(found)})
    else:
        _screen.table(["", "network", "file", "shape"], _rows(found))
        for line in _summary(found):
            _screen.line(line)
    refuse_misfits(found.match, str(found.file.path), asked.allow_missing, asked.allow_unexpected)


def _rows(found: "Weights") -> list[list[str]]:
    match = found.match
    rows = [["matched", name, entry.name, _shape(entry.shape)] for name, entry in match.pairs.items()]
    rows += [["other shape", name, "", f"{list(a)} there, {list(b)} here"] for name, (a, b) in match.reshaped.items()]
    rows += [["missing", name, "", ""] for name in match.missing]
    rows += [["unexpected", "", name, ""] for name in match.unexpected]
    return rows + [["constant", name, entry.name, _shape(entry.shape)] for name, entry in match.constants]


def _summary(found: "Weights") -> list[str]:
    match, file = found.match, found.file
    counts = {"matched": match.pairs, "of another shape": match.reshaped, "missing": match.missing}
    counts |= {"unexpected": match.unexpected}
    lines = [f"{file.path}: {file.format}, {file.size:,} bytes, sha256 {file.sha256}"]
    lines += [f"weights: {match.weights}"] if match.weights else []
    lines += [", ".join(f"{len(names)} {what}" for what, names in counts.items())]
    lines += [f"to become float32: {found.types}"] if found.converted else []
    aside = ", ".join(f"{name} ({n} tensors)" for name, n in match.aside.items())
    return [*lines, *([f"left aside: {aside}"] if aside else [])]


def _about(found: "Weights") -> dict[str, Any]:
    match = found.match
    return {
        **found.source,
        "format": found.file.format,
        "bytes": found.file.size,
        "matched": {name: entry.name for name, entry in match.pairs.items()},
        "reshaped": {name: [list(a), list(b)] for name, (a, b) in match.reshaped.items()},
        "missing": list(match.missing),
        "unexpected": list(match.unexpected),
        "constants": [[name, entry.name] for name, entry in match.constants],
        "aside": dict(match.aside),
    }


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
