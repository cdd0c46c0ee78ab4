"""Trained weights by run, checkpoint and average, with their network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cmbench import recipe as recipes
from cmbench.engine import build, checkpoint
from cmbench.errors import NotFoundError, UsageError
from cmbench.model import Model
from cmbench.recipe import Recipe
from cmbench.rundir.checkpoints import ema_name, group_of
from cmbench.rundir.fields import number_of, table, text, whole
from cmbench.rundir.files import make_folder, read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.segments import first
from cmbench.text import shown

_LARGEST = 1 << 22  # numbers in a sample, or classes: more than any data have


@dataclass(frozen=True)
class Trained:
    """A model with the weights of one checkpoint.

    Attributes:
        model: on its device.
        recipe: of its run.
        sampler: how its objective samples, "consistency", "ode" or "average_velocity".
        classes: number of labels of its data.
        step: of the checkpoint.
        ema: which average of the weights, e.g. "0.999", or "none".
        forwards: cost of its training, in forward passes of its own network; 0 if it is not known.
        source: of other people's weights, where they come from: file, sha256, licence.
    """

    model: Model
    recipe: Recipe
    sampler: str
    classes: int
    step: int
    ema: str
    forwards: float = 0.0
    source: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the weights to a separate folder, for `load_kept`."""
        make_folder(folder)
        sha256 = checkpoint.write_tensors(folder / "model.safetensors", self.model.state_dict())
        about = {
            "sha256": sha256,
            "shape": self.model.shape,
            "classes": self.classes,
            "step": self.step,
            "ema": self.ema,
            "forwards": self.forwards,
            **({"source": dict(self.source)} if self.source else {}),
            "recipe": self.recipe.tables(),
        }
        write_atomically(folder / "teacher.json", to_json(about, indent=True))


def load(run: RunDir, device: torch.device, ema: str = "", step: int | None = None, key: str = "--ema") -> Trained:
    """Load a run's weights.

    Args:
        run: the run.
        device: where the model goes.
        ema: a length of the checkpoint's averages, "none" for the raw weights, or "" for the first length.
        step: of the checkpoint; None takes the newest.
        key: the name of `ema` in messages.

    Raises:
        NotFoundError: the run has no such checkpoint.
        UsageError: the run has no such average, or its recipe does not fit this version.
    """
    steps = steps_of_checkpoints(run)
    if not steps:
        raise NotFoundError(f"{run.name}: no checkpoint yet")
    if step is not None and step not in steps:
        raise NotFoundError(f"{run.name}: no checkpoint at step {step}, allowed: {', '.join(map(str, steps))}")
    recipe, meta = build.of_run(run), read_json(run.meta)
    if meta is None:
        raise NotFoundError(f"{run.meta}: missing or broken")
    step = steps[-1] if step is None else step
    ema = ema_name(ema, checkpoint.averages(run, step), key)
    file = checkpoint.file_of(run, step, group_of(ema))
    return _built(recipe, run.meta, meta, file, device, step, ema, _spent(run, step))


def load_kept(folder: Path, device: torch.device) -> Trained:
    """Load weights written by `Trained.save`.

    Raises:
        NotFoundError: the folder is missing or broken.
        UsageError: its recipe does not fit this version.
    """
    path = folder / "teacher.json"
    about = read_json(path)
    if about is None:
        raise NotFoundError(f"{folder}: the run's own copy of another run's weights is missing")
    sha256, step, ema = text(about.get("sha256")), whole(about.get("step")), text(about.get("ema"))
    if sha256 is None or step is None or ema is None:
        raise NotFoundError(f"{path}: damaged: sha256, step or ema is missing")
    recipe = build.complete(recipes.check_tables(table(about.get("recipe")), str(path)), str(path))
    file = folder / "model.safetensors", sha256
    return _built(recipe, path, about, file, device, step, ema, number_of(about.get("forwards")) or 0.0)


def _built(
    recipe: Recipe,
    path: Path,
    about: dict[str, Any],
    file: tuple[Path, str | None],
    device: torch.device,
    step: int,
    ema: str,
    forwards: float,
) -> Trained:
    found, classes = about.get("shape"), whole(about.get("classes"))
    shape = [size for each in found if (size := whole(each))] if isinstance(found, list) else []
    if not shape or shape != found or classes is None or max(math.prod(shape), classes) > _LARGEST:
        raise NotFoundError(f"{path}: damaged: shape or classes: found {shown(found)}, {shown(about.get('classes'))}")
    others = UsageError(
        f"{recipe.name}, checkpoint {step}: its weights have other names or shapes than this version's network; "
        "allowed: a run of this version"
    )
    expected = shapes_of(recipe, tuple(shape), classes)
    if expected is not None and expected != checkpoint.read_shapes(*file):
        checkpoint.verify(*file)
        raise others
    tensors = checkpoint.read_tensors(*file)
    try:
        model = build.model(recipe, tuple(shape), classes, device)
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError, IndexError):  # torch's message is a page of names
        raise others from None
    objective, _ = build.component("objective", recipe.objective["kind"])
    return Trained(model.eval(), recipe, objective.sampler, classes, step, ema, forwards, source_of(about))


def source_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a meta.json, or the description of kept weights, says of a file that weights come from."""
    return {key: own for key, own in table(about.get("source")).items() if text(own) is not None}


def shapes_of(recipe: Recipe, shape: tuple[int, ...], classes: int) -> dict[str, list[int]] | None:
    """Return the shapes of a model's tensors without allocating them; None for a class that needs real tensors.

    A damaged or foreign recipe may ask for more memory than there is.
    """
    model = shell_of(recipe, shape, classes)
    return None if model is None else {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def shell_of(recipe: Recipe, shape: tuple[int, ...], classes: int) -> Model | None:
    """Return a model whose tensors take no memory; None for a class that needs real tensors."""
    nowhere = torch.device("meta")
    try:
        with nowhere:
            return build.model(recipe, shape, classes, nowhere)
    except (RuntimeError, ValueError, TypeError, LookupError):  # the class reads the values of its tensors
        return None


def _spent(run: RunDir, step: int) -> float:
    """Return the forward-equivalents of a run up to a step, including those of its own teacher."""
    row = first(run.metrics, "forwards") or {}
    own = number_of(row.get("forwards"))
    if own is None or not row["step"]:
        return 0.0
    with_teacher = number_of(row.get("forwards_with_teacher"))
    return own * step / row["step"] + ((own if with_teacher is None else with_teacher) - own)
