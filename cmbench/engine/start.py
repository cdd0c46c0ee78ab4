"""Initial weights that come from elsewhere: the teacher's, or those of the run or file that [start] names."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cmbench.engine import weights, weights_file
from cmbench.engine.teacher import Teacher
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.recipe import Recipe
from cmbench.rundir.select import portable, runs_folder, select
from cmbench.tables import Start as Config

_LEVELS = 16  # noise levels at which student and source are compared
_POINTS = 16  # samples at each level


@dataclass(frozen=True)
class Start:
    """The origin of the initial weights.

    Attributes:
        trained: the source.
        error: root mean square difference of the student's and the source's outputs, relative to the source's, on
            noisy samples at all noise levels: 0 if both are the same function. The output is f if the source is a
            consistency model, else D.
    """

    trained: weights.Trained
    error: float


def start(student: Model, recipe: Recipe, teacher: Teacher | None, own: weights.Trained | None) -> Start | None:
    """Copy the weights that the recipe names into the student; None if it names none.

    Raises:
        UsageError: the weights belong to another network, or to scalings that would turn their sign.
    """
    wanted = recipe.teacher is not None and recipe.teacher.initialise_student
    if wanted and teacher is not None and teacher.trained is not None:  # an oracle has no weights, and is refused
        key, trained, otherwise = "teacher.initialise_student: found true", teacher.trained, "or false"
    elif recipe.start is not None and own is not None:
        which = "file" if recipe.start.file else "run"
        key, trained = f"start.{which}: found '{recipe.start.file or recipe.start.run}'", own
        otherwise = "or no [start]"
    else:
        return None
    if why := _differences(trained, student, recipe):
        raise UsageError(f"{key}, but {why}; allowed: the same (dropout may differ), {otherwise}")
    student.load_state_dict(trained.model.state_dict())
    return Start(trained, difference(student, trained.model, of_f=trained.sampler == "consistency"))


def _differences(trained: weights.Trained, student: Model, recipe: Recipe) -> str:
    """Return why the weights would mean something else in the student; empty if they mean the same."""
    theirs, ours = _needs(trained.recipe), _needs(recipe)
    if differing := [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]:
        both = (f"{key} is {theirs.get(key, 'absent')} there and {ours.get(key, 'absent')} here" for key in differing)
        serves = "; scalings of another path serve this one too" if "path.scalings" in differing else ""
        return ", ".join(both) + serves
    if _shapes(trained.model) != _shapes(student):
        return "its data's shape or classes, or the number of times that its network takes, differ"
    return ""


def _needs(recipe: Recipe) -> dict[str, Any]:
    """Return what must be equal for weights to mean the same. Path, c_noise and boundary may differ, with an error."""
    network = {f"network.{key}": value for key, value in recipe.architecture().items()}
    return {**network, "path.sigma_data": recipe.path.sigma_data, "path.scalings": recipe.path.scalings}


def _shapes(model: Model) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def load(
    recipe: Recipe, config: Config, student: Model, classes: int, runs_dir: Path | None, kept: Path | None
) -> tuple[weights.Trained, Config]:
    """Return the weights that [start] names, and the table with the selector replaced by the run's name.

    Args:
        recipe: the student's.
        config: its [start] table.
        student: on its device.
        classes: of its data.
        runs_dir: where to look for runs.
        kept: where a resumed run kept its initial weights.
    """
    device = next(student.parameters()).device
    if kept is not None:
        return weights.load_kept(kept, device), config
    if config.file is not None:
        return weights_file.load(config, recipe, student.shape, classes, device, "start"), config
    run = select(config.run, runs_folder(runs_dir), with_checkpoint=True)
    trained = weights.load(run, device, config.ema, key="start.ema")
    return trained, config.model_copy(update={"run": portable(run, config.run)})


@torch.no_grad()
def difference(student: Model, source: Model, of_f: bool = False) -> float:
    """Return the relative root mean square difference of two models, of f or of D, on the EDM path.

    The noise levels are evenly spaced in the logarithm over the student's own range, ends included.
    """
    device = next(student.parameters()).device
    generator = torch.Generator().manual_seed(0)
    levels = torch.logspace(math.log10(student.sigma_min), math.log10(student.sigma_max), _LEVELS)
    sigma = levels.clamp(student.sigma_min, student.sigma_max).repeat_interleave(
        _POINTS
    )  # logspace may round the ends outwards
    x = torch.randn(len(sigma), *student.shape, generator=generator)
    x = x * (sigma.square() + student.sigma_data**2).sqrt().view(-1, *[1] * len(student.shape))
    was_training = student.training
    student.eval()
    both = (m.on_edm_path() for m in (student, source.eval()))
    mine, theirs = ((m if of_f else m.denoise)(x.to(device), sigma.to(device)) for m in both)
    student.train(was_training)
    return float(((mine - theirs).square().mean() / theirs.square().mean()).sqrt())
