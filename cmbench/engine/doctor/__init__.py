"""Checks before a run: what this machine lacks, and whether a recipe's network fits its objective.

Nothing is saved and no run directory is made: a few steps run in memory, to be timed. torch.compile is checked only on
request, since compiling takes longer than all the other checks.
"""

from pathlib import Path

import torch

from cmbench.contracts import Data, HasSummary, KnowsShape, has
from cmbench.engine import build, environment, fingerprint, trainer
from cmbench.engine.doctor import compiled, cost, ddp, machine, network, probe, tangent
from cmbench.engine.doctor.check import Check, Level
from cmbench.engine.trainer import Trainer
from cmbench.errors import UsageError, prefixing
from cmbench.recipe import Recipe
from cmbench.rundir.layout import RunDir


def of_machine(runs: Path) -> list[Check]:
    """Return the findings about this machine; `runs` is the folder for runs."""
    return machine.checks(runs)


def of_recipe(
    recipe: Recipe, where: str, runs_dir: Path | None = None, kept: RunDir | None = None, compile: bool = False
) -> list[Check]:
    """Build a recipe as a run would, on its device and in its precision, and return the findings about it.

    Args:
        recipe: complete, as `build.complete` returns it.
        where: named by messages.
        runs_dir: where to look for its teacher's run.
        kept: the run that the recipe was taken from, with its copies of its teacher and of its initial weights.
        compile: also check how torch.compile handles the network.

    Raises:
        UsageError: the recipe cannot be built.
        NotFoundError: its teacher is a run that does not exist.
    """
    environment.make_reproducible(recipe.train)
    data, about_data = data_check(recipe, where)
    recipe, about_distance = without_fetching(recipe)
    built = trainer.from_recipe(recipe, where, runs_dir, kept, data)
    model, at = probe.copied(built.state.model), probe.points(built)
    found = [
        _about(built),
        about_data,
        *_oddities(built),
        *about_distance,
        *tangent.checks(built, model, at),
        *network.checks(built, model, at),
        ddp.check(built, model),
        *(compiled.checks(built, model, at) if compile else [Check("compile", "-", "not looked at (--compile)")]),
    ]
    return found + cost.checks(built)


def data_check(recipe: Recipe, where: str) -> tuple[Data, Check]:
    """Return the recipe's data, or noise of the same shape if the data would have to be fetched."""
    with prefixing(where):
        device = build.device_of(recipe.train.device)
        cls, own = build.data_settings(recipe)
        if not has(cls, KnowsShape):
            own_data = build.data(recipe, device)
            return own_data, Check("data", "ok", recipe.data["kind"] + _summary(own_data))
        try:
            found = cls(own.model_copy(update={"download": False}), device)
            return found, Check("data", "ok", recipe.data["kind"] + _summary(found))
        except UsageError as error:
            shape, classes = cls.shape_and_classes(own)
            fetched = getattr(own, "download", False) and own.name != "folder"
            level: Level = "ok" if fetched else "fail"
            missing = f"{own.name} is not here yet; a run fetches it" if fetched else str(error)
            told = f"{missing}; noise of shape {list(shape)} is used instead"
            return probe.noise(shape, classes, recipe.path.sigma_data, device), Check("data", level, told)


def _summary(data: Data) -> str:
    return f": {data.summary}" if has(data, HasSummary) and data.summary else ""


def _oddities(built: Trainer) -> list[Check]:
    """Return the warnings that a run would give about the data."""
    lines = fingerprint.oddities(built.recipe, built.data)
    return [Check("data", "warn", line.removeprefix("data: ")) for line in lines]


def without_fetching(recipe: Recipe) -> tuple[Recipe, list[Check]]:
    """Return the recipe with distance = "l2" if LPIPS would first have to be fetched."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / "vgg16-397923af.pth"
    if recipe.objective.get("distance") != "lpips" or weights.exists():
        return recipe, []
    found = f"LPIPS' weights of 528 MB are not at {weights} yet; l2 is used, so a step is cheaper here than in a run"
    return recipe.model_copy(update={"objective": {**recipe.objective, "distance": "l2"}}), [
        Check("lpips", "ok", found)
    ]


def _about(built: Trainer) -> Check:
    recipe = built.recipe
    parameters = sum(p.numel() for p in built.state.model.parameters())
    kinds = f"objective {recipe.objective['kind']}, network {recipe.network['kind']}"
    found = f"{kinds}, {parameters:,} parameters, {built.device}, {built.state.model.arithmetic(built.device)}"
    return Check("recipe", "ok", found, values={"parameters": parameters})
