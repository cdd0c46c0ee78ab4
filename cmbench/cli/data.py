"""`cmbench data describe`."""

import textwrap
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _app, _plots, _progress, _screen
from cmbench.cli._options import Device, Json, Overrides, Trust, _complete_recipes
from cmbench.errors import UsageError
from cmbench.pictures import packed
from cmbench.text import plain

if TYPE_CHECKING:
    from cmbench.engine.description import Description

app = typer.Typer(help="Look at data before training on them.", rich_markup_mode=None)
_app.app.add_typer(app, name="data")
_MANY = 16  # channels, or classes, that are listed one by one
_NAMES = 20  # columns of what figures are called
_NUMBERS = (".npy", ".npz", ".safetensors", ".csv")


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        _screen.text(context.get_help())


@app.command()
def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FILE|FOLDER",
            autocompletion=_complete_recipes,
            help="A recipe, a file of arrays, a folder of pictures, or a folder or zip in EDM's form.",
        ),
    ],
    overrides: Overrides = None,
    device: Device = "cpu",
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Print shape, range, standard deviation and classes of data, and the sigma_data that fits them."""
    tables = tables_of(what)

    from cmbench.engine import build, description

    with _progress.shown(f"reading {what}"):
        if tables is None:
            path = recipes.find(what)
            whole = build.complete(consent.named(path, overrides or ()).recipe, str(path))
            data, sigma_data = build.data(whole, build.device_of(device, "--device")), whole.path.sigma_data
        else:
            data, sigma_data = description.of_table(tables, overrides or [], device), None
        found = description.of(data, sigma_data)
    if json:
        _screen.data({"schema": 1, "data": what, **found.as_dict()})
    else:
        _show(found)


def tables_of(what: str) -> dict[str, Any] | None:
    """Return the [data] of a file or folder; None if `what` is a recipe.

    Raises:
        UsageError: it is a file that is neither a recipe nor data.
    """
    path = Path(what).expanduser()
    kind = path.suffix.lower()
    if kind in _NUMBERS:
        return {"kind": "arrays", "root": str(path)}
    if kind == ".zip" or packed.is_packed(path):
        return {"kind": "edm", "root": str(path)}
    if path.is_dir():
        return {"kind": "images", "name": "folder", "root": str(path)}
    if kind not in ("", ".toml") and path.exists():
        allowed = f"a recipe, a folder, {', '.join(_NUMBERS)} or .zip"
        raise UsageError(f"{what}: found a file of kind {kind}, allowed: {allowed}")
    return None


def _show(found: "Description") -> None:
    for name, value in found.lines():
        first, *others = _fitting(value)
        _screen.line(f"{name:<{_NAMES}}{first}")
        for more in others:
            _screen.line(f"{'':<{_NAMES}}{more}")
    if 1 < len(found.channels) <= _MANY:
        rows = [[f"{i}", *(f"{value:.4g}" for value in astuple(each))] for i, each in enumerate(found.channels)]
        _screen.table(["channel", "lowest", "highest", "mean", "standard deviation"], rows)
    if 1 < len(found.counts) <= _MANY:
        names = found.names or [str(i) for i in range(len(found.counts))]
        _screen.table(["class", "name", "samples"], [[str(i), names[i], f"{n:,}"] for i, n in enumerate(found.counts)])
    for line in found.warnings:
        _screen.complain(line)


def _fitting(value: str) -> list[str]:
    """Return foreign text as lines that a terminal does not fold; elsewhere it is one, for programs."""
    text = plain(value)
    return (textwrap.wrap(text, max(20, _plots.width() - _NAMES)) if _screen.is_terminal() else []) or [text]
