"""`cmbench reference`."""

from pathlib import Path
from typing import Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _figures, _outputs, _progress, _screen
from cmbench.cli._app import app
from cmbench.cli._options import (
    MOST_SAMPLES,
    N_HELP,
    AnyWeights,
    Device,
    Features,
    InceptionWeights,
    Json,
    Overrides,
    Trust,
    _complete_recipes,
)
from cmbench.cli.data import tables_of
from cmbench.errors import UsageError


@app.command("reference")
def reference(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FILE|FOLDER",
            autocompletion=_complete_recipes,
            help="A recipe, of which the training data are taken, or a file or folder, of which all are.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the .npz, for `cmbench eval --reference`.")],
    features: Features = "inception",
    inception_weights: InceptionWeights = None,
    any_weights: AnyWeights = False,
    n: Annotated[int | None, typer.Option("--n", "-n", min=2, max=MOST_SAMPLES, help=N_HELP)] = None,
    overrides: Overrides = None,
    device: Device = "auto",
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Write mean and covariance of features of real data, with which `cmbench eval` compares samples."""
    if out.suffix != ".npz":
        raise UsageError(f"--out: found '{out}', allowed: a name that ends in .npz")
    own = _figures.published(features, inception_weights, any_weights, None)
    tables = tables_of(what)

    from cmbench.engine import build, description
    from cmbench.engine import features as all_features
    from cmbench.engine import reference as references

    with _progress.shown(f"reading {what}"):
        where = build.device_of(device, "--device")
        if tables is None:
            path = recipes.find(what)
            data = build.data(build.complete(consent.named(path, overrides or ()).recipe, str(path)), where)
        else:
            data = description.of_table(tables, overrides or [], device)
        of = all_features.named(features, tuple(data.shape), where, inception_weights, any_weights)
        content, count, dimensions = references.made(data, of, own.identity, n, tables is not None)
    _outputs.write(out, content, "--out", folders=True)
    if json:
        about = {"features": own.identity, "samples": count, "dimensions": dimensions, "shape": list(data.shape)}
        _screen.data({"schema": 1, "file": str(out), **about})
        return
    _screen.line(f"{out}: {features} of {count:,} samples, {dimensions:,} dimensions")
    if count <= dimensions:
        _screen.complain(f"too few samples: of {count:,} the covariance has not full rank in {dimensions:,} dimensions")
