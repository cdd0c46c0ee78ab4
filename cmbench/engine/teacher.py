"""The teacher for distillation: a closed-form oracle, a trained run, or a custom class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cmbench import contracts
from cmbench.contracts import Data
from cmbench.engine import build, weights, weights_file
from cmbench.errors import UsageError
from cmbench.randomness import forked_seed
from cmbench.recipe import Recipe
from cmbench.rundir.select import portable, runs_folder, select
from cmbench.tables import Teacher as Config

_UNTOLD = "data.augment: found {:g}, allowed with {}, which {}: 0"
_ASKED = 5  # samples that a custom class must denoise; a size that data are unlikely to have


@dataclass(frozen=True)
class Teacher:
    """A denoiser, with everything that a run must keep of it.

    Attributes:
        config: the [teacher] table, with a selector replaced by the name of the selected run.
        denoiser: has `denoise(x, sigma, labels)` on the EDM path; a trained model can also be called, as f.
        trained: the weights and their origin, if the teacher is a trained model.
    """

    config: Config
    denoiser: contracts.Teacher
    trained: weights.Trained | None = None

    def save(self, folder: Path) -> None:
        """Copy a trained teacher into the run, so that the run can be resumed without the teacher's run."""
        if self.trained is not None:
            self.trained.save(folder)


def load_teacher(
    recipe: Recipe, config: Config, data: Data, device: torch.device, runs_dir: Path | None, own_copy: Path | None
) -> Teacher:
    """Return the teacher of a recipe.

    Args:
        recipe: the student's.
        config: its [teacher] table.
        data: the data set, which knows its oracle.
        device: where the teacher works.
        runs_dir: where to look for runs.
        own_copy: where a resumed run kept its teacher.

    Raises:
        UsageError: the teacher does not fit the data, cannot be told of their augmentation, or is no denoiser.
        NotFoundError: there is no such run, or it has no checkpoint.
    """
    if (changes := build.augmentation(recipe)) is not None and config.kind not in ("run", "file"):
        raise UsageError(_UNTOLD.format(recipe.data["augment"], f"teacher.kind = '{config.kind}'", "knows none"))
    if config.kind == "oracle":
        if not contracts.has(data, contracts.HasOracle):
            raise UsageError(
                "teacher.kind: found 'oracle', allowed: 'run', 'file' or a class, since these data have no oracle"
            )
        return Teacher(config, data.oracle())
    if config.kind not in ("run", "file"):
        return Teacher(config, _of_ones_own(config.kind, data, device, build.is_conditional(recipe)))
    if own_copy is not None:
        trained = weights.load_kept(own_copy, device)
    elif config.kind == "file":
        trained = weights_file.load(config, recipe, tuple(data.shape), data.classes, device, "teacher")
    else:
        run = select(config.run, runs_folder(runs_dir), with_checkpoint=True)
        trained = weights.load(run, device, config.ema, key="teacher.ema")
        config = config.model_copy(update={"run": portable(run, config.run)})
    _refuse_unfit(trained, recipe, config, data)
    takes = trained.recipe.network.get("augment_labels", 0)
    if changes is not None and takes != changes.size:
        told = f"takes {takes} labels of it in place of {changes.size}"
        raise UsageError(_UNTOLD.format(recipe.data["augment"], "this teacher", told))
    trained.model.requires_grad_(False).eval()
    return Teacher(config, trained.model.on_edm_path(), trained)


def _refuse_unfit(trained: weights.Trained, recipe: Recipe, config: Config, data: Data) -> None:
    """Refuse weights that cannot teach the objective of a recipe.

    Raises:
        UsageError: they compute something else, or are for other data.
    """
    key = f"teacher.{config.kind}: found '{config.file or config.run}'"
    wanted = build.component("objective", recipe.objective["kind"])[0].teacher
    whole = trained.sampler == "consistency" and build.sigma_lowest(trained.recipe) <= trained.recipe.path.sigma_min
    is_file = config.kind == "file"
    if wanted == "consistency" and not whole:
        model = "teacher.function = 'consistency'" if is_file else "a run of a consistency model, such as 'ect'"
        raise UsageError(f"{key}, allowed: {model}")
    if wanted != "consistency" and trained.sampler != "ode":
        denoiser = "teacher.function = 'denoiser'" if is_file else "a run of objective 'denoise'"
        raise UsageError(f"{key}, allowed: {denoiser}")
    if trained.model.shape != tuple(data.shape):
        found = list(trained.model.shape)
        raise UsageError(
            f"teacher.{config.kind}: found a teacher of data of shape {found}, allowed: {list(data.shape)}"
        )
    if build.is_conditional(trained.recipe) and not build.is_conditional(recipe):
        raise UsageError(f"{key}, which is class-conditional, allowed for it: network.class_conditional = true")


def _of_ones_own(kind: str, data: Data, device: torch.device, conditional: bool) -> Any:
    """Return an instance of `module:Class`, after a test in which it denoises some samples.

    Raises:
        UsageError: the class cannot be built, has no `denoise(x, sigma, labels)`, or this raises or changes the shape.
    """
    module, _, name = kind.partition(":")
    cls = build.imported("teacher.kind", module, name)
    x, sigma = torch.zeros(_ASKED, *data.shape, device=device), torch.ones(_ASKED, device=device)
    labels = torch.zeros(_ASKED, dtype=torch.int64, device=device) if conditional else None
    try:
        with torch.no_grad(), forked_seed(0, device):
            teacher = cls(data)
            denoised = teacher.denoise(x, sigma, labels)
    except Exception as error:  # a custom class may raise anything
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(
            f"teacher.kind: found '{kind}', which fails with {why}; allowed: a class that is built with the data set "
            "and has denoise(x, sigma, labels)"
        ) from error
    found = list(denoised.shape) if isinstance(denoised, torch.Tensor) else type(denoised).__name__
    if found != list(x.shape):
        raise UsageError(
            f"teacher.kind: found '{kind}', whose denoise returns {found} for x of shape {list(x.shape)}; "
            "allowed: the same shape"
        )
    return teacher
