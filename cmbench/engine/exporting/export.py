"""Writes a generator for other programs: all of it, checked, or nothing."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from cmbench import __version__
from cmbench.engine import snapshot
from cmbench.engine.build import is_conditional
from cmbench.engine.exporting import card, check, formats, generator
from cmbench.engine.exporting.check import Agreement
from cmbench.engine.weights import Trained
from cmbench.rundir import fingerprints, new_folder
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir

_CHECK = ".check"  # in the folder while it is made


def write(kind: str, run: RunDir, trained: Trained, sigmas: Sequence[float], out: Path, seed: int = 0) -> Agreement:
    """Write an export into a new folder, once its samples are those of cmbench.

    Args:
        kind: the format.
        run: the run.
        trained: its weights, on the CPU.
        sigmas: descending noise levels.
        out: the folder.
        seed: of the samples that are compared and shown.

    Raises:
        UsageError: the format cannot hold this run's generator, or the folder cannot be written.
        CmbenchError: the export does not give cmbench's samples.
    """
    made = generator.of(trained, sigmas)
    with new_folder.made(out, "--out") as folder:
        found = check.reference(trained, sigmas, seed)
        exported = formats.write(kind, folder, trained, made, found)
        if kind != "diffusers":  # which says all in its own files
            formats.put(folder / "generator.json", to_json(about(run, trained, made), indent=True))
        own = folder / _CHECK
        own.mkdir()
        for name, content in exported.own.items():
            formats.put(own / name, content)
        agrees = check.alone(kind, folder, found, trained.recipe.path.sigma_data, exported.more, own)
        shutil.rmtree(own)
        formats.put(folder / card.PICTURE, snapshot.to_png(found.samples))
        text = card.written(kind, run, trained, made, found, agrees, exported.usage)
        formats.put(folder / "README.md", text.encode())
    return agrees


def about(run: RunDir, trained: Trained, made: generator.Generator) -> dict[str, object]:
    """Return generator.json: what makes a generator of F_theta. See docs/export.md."""
    recipe, data = trained.recipe, fingerprints.recorded(run, trained.step)
    return {
        "schema": 1,
        "cmbench": __version__,
        "run": run.name,
        "step": trained.step,
        "ema": trained.ema,
        "shape": list(trained.model.shape),
        "classes": trained.classes if is_conditional(recipe) else 0,
        "class_names": fingerprints.names(data) if is_conditional(recipe) else [],
        "network": recipe.network,
        "times": trained.model.times,
        "path": recipe.path.model_dump(mode="json"),
        "units": {"shift": data.get("shift") or [], "scale": data.get("scale") or 1.0},
        **made.plan.about(),
    }
