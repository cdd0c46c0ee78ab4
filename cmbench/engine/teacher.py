"""The denoiser that distillation follows: a closed-form oracle, a trained run, or a class of one's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cmbench.engine import build, weights
from cmbench.errors import UsageError
from cmbench.networks._model import Model
from cmbench.recipe import Recipe
from cmbench.recipe import Teacher as Config
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select


@dataclass(frozen=True)
class Teacher:
    """A denoiser, with what a run needs to keep of it.

    Attributes:
        config: the [teacher] table, a selector replaced by the name of the run that it meant.
        denoiser: has `denoise(x, sigma, labels)` on the EDM path.
        trained: the run that it came from, where it is a trained model.
    """

    config: Config
    denoiser: Any
    trained: weights.Trained | None = None

    def initialise(self, student: Model, recipe: Recipe) -> None:
        """Copy the teacher's weights into a student of `recipe`.

        Raises:
            UsageError: equal weights would not make them the same function.
        """
        trained = self.trained
        if trained is None or _function_of(trained.recipe) != _function_of(recipe):
            raise UsageError(
                "teacher.initialise_student: the student's [network] or path.sigma_data differs from the teacher's; "
                "allowed: the same (dropout may differ), or initialise_student = false"
            )
        student.load_state_dict(trained.model.state_dict())

    def save(self, folder: Path) -> None:
        """Keep a trained teacher inside the run, so that the run can be resumed whatever happens to the teacher's."""
        if self.trained is not None:
            self.trained.save(folder)


def _function_of(recipe: Recipe) -> tuple[dict[str, Any], float]:
    """Return what a denoiser depends on beside its weights."""
    return {k: v for k, v in recipe.network.items() if k != "dropout"}, recipe.path.sigma_data


def load_teacher(
    recipe: Recipe, config: Config, data: Any, device: torch.device, runs_dir: Path | None, own_copy: Path | None
) -> Teacher:
    """Return the teacher of a recipe.

    Args:
        recipe: the student's.
        config: its [teacher] table.
        data: the data set, which knows its oracle.
        device: where the teacher works.
        runs_dir: where runs are looked for.
        own_copy: where a run that is resumed kept its teacher.

    Raises:
        UsageError: the teacher does not fit the data.
        NotFoundError: there is no such run, or it has no checkpoint.
    """
    if config.kind == "oracle":
        return Teacher(config, data.oracle())
    if config.kind != "run":
        module, _, name = config.kind.partition(":")
        return Teacher(config, build.imported("teacher.kind", module, name)(data))
    if own_copy is not None:
        trained = weights.load_kept(own_copy, device)
    else:
        run = select(config.run, runs_folder(runs_dir), with_checkpoint=True)
        trained = weights.load(run, device, config.ema, key="teacher.ema")
        config = config.model_copy(update={"run": _portable(run, config.run)})
    if trained.sampler != "ode":
        raise UsageError(f"teacher.run: found '{config.run}', allowed: a run of objective 'denoise'")
    if trained.model.shape != tuple(data.shape):
        raise UsageError(
            f"teacher.run: found a teacher of data of shape {list(trained.model.shape)}, allowed: {list(data.shape)}"
        )
    if build.is_conditional(trained.recipe) and not build.is_conditional(recipe):
        raise UsageError(
            f"teacher.run: found '{config.run}', which is class-conditional, allowed for it: "
            "network.class_conditional = true"
        )
    return Teacher(config, trained.model.requires_grad_(False).eval(), trained)


def _portable(run: RunDir, selector: str) -> str:
    """Return how to name the run again: a path stays a path, anything else becomes the full name."""
    return str(run.path) if Path(selector, "recipe.toml").exists() else run.name
