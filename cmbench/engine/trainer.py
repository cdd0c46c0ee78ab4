"""A recipe, built: data, objective and state, ready for the loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmbench import recipe as recipes
from cmbench.engine import build, optimizer
from cmbench.engine.meters import Profile
from cmbench.engine.sample import default_sigmas, draw, round_robin_labels
from cmbench.engine.state import Average, State
from cmbench.engine.teacher import Teacher, load_teacher
from cmbench.errors import naming
from cmbench.evaluation.sliced_wasserstein import sliced_wasserstein
from cmbench.networks._model import Model
from cmbench.recipe import Recipe


@dataclass(frozen=True)
class Trainer:
    """What `loop.train` needs."""

    recipe: Recipe
    device: torch.device
    data: Any
    objective: Any
    state: State
    teacher: Teacher | None

    @property
    def conditional(self) -> bool:
        """Whether the network takes the labels."""
        return build.is_conditional(self.recipe)

    @property
    def sampling_model(self) -> Model:
        """The first average of the weights, or the weights themselves where the recipe keeps none."""
        return self.state.averages[0].model if self.state.averages else self.state.model

    def sample(self, n: int, steps: int = 1) -> Tensor:
        """Draw n samples (n, *shape) in so many steps, from latents that follow from the recipe's seed."""
        labels = round_robin_labels(n, self.data.classes) if self.conditional else None
        model, sampler = self.sampling_model, self.objective.sampler
        return draw(model, sampler, n, default_sigmas(model, sampler, steps), self.recipe.seed, labels)

    def evaluate(self) -> dict[str, float]:
        """Return the sliced Wasserstein distance to held-out data, for each number of steps of [evaluate]."""
        config = self.recipe.evaluate
        real = self.data.held_out(config.n)
        return {f"sw_{s}step": sliced_wasserstein(self.sample(config.n, s), real) for s in config.steps}

    def floor(self) -> float:
        """Return the same distance between training data and held-out data: what a perfect sampler would show."""
        n = self.recipe.evaluate.n
        return sliced_wasserstein(self.data.train_sample(n), self.data.held_out(n))


def from_file(path: str | Path, overrides: Sequence[str] = (), runs_dir: Path | None = None) -> Trainer:
    """Build a recipe file with overrides `table.key=value`.

    Raises:
        UsageError: something in it is not allowed.
        NotFoundError: its teacher is a run that does not exist.
    """
    given = recipes.load(Path(path), overrides)
    return from_recipe(build.complete(given, str(path)), str(path), runs_dir)


def from_recipe(recipe: Recipe, where: str, runs_dir: Path | None = None, teacher_dir: Path | None = None) -> Trainer:
    """Build a complete recipe.

    Args:
        recipe: as `build.complete` returns it.
        where: what messages name.
        runs_dir: where the teacher's run is looked for.
        teacher_dir: a run's own copy of its teacher, when the run is resumed.
    """
    with naming(where):
        device = build.device_of(recipe.train.device)
        data = build.data(recipe, device)
        model = build.model(recipe, data.shape, data.classes, device)
        teacher = None
        if recipe.teacher is not None:
            teacher = load_teacher(recipe, recipe.teacher, data, device, runs_dir, teacher_dir)
            recipe = recipe.model_copy(update={"teacher": teacher.config})
            if recipe.teacher is not None and recipe.teacher.initialise_student:
                teacher.initialise(model, recipe)
        cls, settings = build.settings("objective", recipe)
        objective = cls(settings, model, teacher and teacher.denoiser, recipe.train.steps).to(device)
    averages = [Average(recipe.ema, length, model) for length in recipe.ema.lengths]
    profile = Profile(objective.profile_edges(recipe.profile.bins))
    state = State(model, objective, optimizer.build(recipe.optimizer, model), averages, profile)
    return Trainer(recipe, device, data, objective, state, teacher)
