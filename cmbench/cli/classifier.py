"""`cmbench classifier`."""

from pathlib import Path
from typing import Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _former, _outputs, _progress, _screen
from cmbench.cli._app import app
from cmbench.cli._options import MOST_STEPS, Device, Json, Overrides, RecipeFile, Seed, Trust
from cmbench.errors import UsageError


@app.command("classifier", cls=_former.names(steps="train_steps"))
def classifier(
    recipe: RecipeFile,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write the .safetensors, for `cmbench eval --features`.")
    ],
    train_steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Optimiser steps.")] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    overrides: Overrides = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Train a small classifier on a recipe's data. `cmbench eval` can compare its features."""
    if out.suffix != ".safetensors":
        raise UsageError(f"--out: found '{out}', allowed: a name that ends in .safetensors")
    path = recipes.find(recipe)

    from cmbench.engine import build
    from cmbench.engine import classifier as classifiers

    complete = build.complete(consent.named(path, overrides or ()).recipe, str(path))
    with _progress.shown():
        data = build.data(complete, build.device_of(device, "--device"))
    trained = classifiers.train(data, train_steps, seed)
    accuracy = classifiers.accuracy(trained, data)
    _outputs.write(out, trained.to_safetensors(), "--out", folders=True)
    if json:
        _screen.data({"schema": 1, "file": str(out), "accuracy": accuracy})
    else:
        _screen.line(f"{out}: {accuracy:.1%} of held-out data are classified correctly")
