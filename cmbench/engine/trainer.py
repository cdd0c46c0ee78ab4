"""A built recipe: data, objective and state, ready for the loop."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmbench import consent, steering
from cmbench.contracts import BringsWeights, Data, HasOracle, Objective, has
from cmbench.engine import build, compiler, compute, film, fingerprint, memory, optimizer
from cmbench.engine import ranks as all_ranks
from cmbench.engine import start as starts
from cmbench.engine.compiled import Compiled
from cmbench.engine.compute import Compute
from cmbench.engine.consistency import Constancy, Starts, TrueErrors, Truth, compared_levels, draw_starts
from cmbench.engine.film import Camera, Film
from cmbench.engine.judge import Judge, labels_as_data
from cmbench.engine.meters import Profile
from cmbench.engine.ranks import Ranks
from cmbench.engine.sample import default_sigmas, draw, round_robin_labels
from cmbench.engine.start import Start
from cmbench.engine.state import Average, Groups, State
from cmbench.engine.teacher import Teacher, load_teacher
from cmbench.engine.weights import Trained, shapes_of
from cmbench.errors import UsageError, prefixing
from cmbench.measures import OF_SAMPLES, Floor, row_key
from cmbench.model import Model
from cmbench.randomness import forked_seed
from cmbench.recipe import Given, Recipe
from cmbench.rundir import floors
from cmbench.rundir.files import read_json
from cmbench.rundir.fingerprints import Fingerprint
from cmbench.rundir.layout import RunDir, steps_of_checkpoints


@dataclass
class Trainer:
    """Everything that `loop.train` needs. Only `steer` changes its recipe, between two steps.

    `labels_in_turn` is set for class-conditional runs of earlier versions: they still evaluate equal shares of
    classes.
    """

    recipe: Recipe
    device: torch.device
    data: Data
    objective: Objective
    state: State
    teacher: Teacher | None
    start: Start | None
    compute: Compute
    labels_in_turn: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # changed since the run began
    ranks: Ranks = field(default_factory=all_ranks.current)
    warnings: list[str] = field(default_factory=list)  # for the journal, whose writer removes them

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the data."""
        return fingerprint.of(self.recipe, self.data)

    @property
    def conditional(self) -> bool:
        """Whether the network takes the labels."""
        return build.is_conditional(self.recipe)

    @property
    def sampling_model(self) -> Model:
        """The model with the first average of the weights, or with the weights themselves if there is no average."""
        return self.state.averages[0].model if self.state.averages else self.state.model

    def steered(self, settings: Mapping[str, Any], where: str, also: Collection[str] = ()) -> Recipe:
        """Return the recipe with settings such as {"optimizer.lr": 1e-4} in force; messages name `where`.

        The keys `also` are allowed besides the steerable ones.

        Raises:
            UsageError: a key cannot be changed while a run trains, or not to this value.
        """
        return build.complete(steering.steered(self.recipe, settings, where, also), where)

    def steer(self, settings: Mapping[str, Any], where: str, also: Collection[str] = ()) -> None:
        """Apply settings from the next step on. Raises as `steered`; then nothing has changed."""
        before, after = self.recipe, self.steered(settings, where, also)
        if after.train.steps != before.train.steps:
            self._last(after)
        elif after.objective != before.objective:
            _, self.objective.config = build.settings("objective", after)
        self.recipe = after
        self.settings |= settings
        for average, length in zip(self.state.averages, self.recipe.ema.lengths, strict=True):
            average.take_length(self.recipe.ema, length)

    def _last(self, after: Recipe) -> None:
        """Replace the objective by one for a recipe of other train.steps, with the same state: it may have curricula.

        The optimiser is replaced too, because it holds the objective's parameters.
        """
        state, denoiser = self.state, self.teacher and self.teacher.denoiser
        state.model.last_F = None  # of the last step: a tensor with a history, which no copy of the model can have
        cls, settings = build.settings("objective", after)
        objective = cls(settings, state.model, denoiser, after.train.steps).to(self.device)
        objective.load_state_dict(state.objective.state_dict())
        own = optimizer.build(after.optimizer, state.model, objective)
        optimizer.load_state_tensors(own, optimizer.state_tensors(state.optimizer))
        self.objective = state.objective = objective
        state.optimizer = own

    def saved(self) -> Groups:
        """Return all tensors of a checkpoint; the other ranks hand over their unfinished means."""
        self.ranks.tell({"do": "gather"})
        return self.state.groups(self.ranks)

    def snapshot(self) -> dict[int, Tensor]:
        """Draw the samples of [snapshot], (n, *shape) for each number of sampler steps; all ranks together."""
        return {steps: self.sample(self.recipe.snapshot.n, steps) for steps in self.recipe.snapshot.steps}

    @cached_property
    def behind_snapshots(self) -> Tensor | None:
        """Held-out points to show behind samples, (n, d). None for pictures, and for data without held-out samples."""
        if len(self.data.shape) != 1 or self.data.shape[0] > 2:
            return None
        with forked_seed(self.recipe.seed, self.device):
            try:
                return self.data.held_out(self.recipe.snapshot.n)
            except Exception:  # a custom class may raise anything; an evaluation will report it
                return None

    def sample(self, n: int, steps: int = 1, as_data: bool = False) -> Tensor:
        """Draw n samples (n, *shape) in so many steps, from latents that follow from the recipe's seed.

        All ranks draw their shares of them.
        A class-conditional model draws the classes in turn, or with `as_data`, for measures, in the data's shares.
        """
        labels = None
        if self.conditional:
            seed, classes = self.recipe.seed, self.data.classes
            labels = labels_as_data(self.data, n, seed) if as_data else round_robin_labels(n, classes)
        model, sampler = self.sampling_model, self.objective.sampler
        sigmas = default_sigmas(model, sampler, steps, build.sigma_lowest(self.recipe), self.recipe.path.sigma_mid)
        return draw(model, sampler, n, sigmas, self.recipe.seed, labels, self.ranks)

    def film(self) -> Film | None:
        """Evaluate f along the trajectories of fixed latents; all ranks together.

        None for samples that cannot be shown.
        """
        return None if self.camera is None else self.camera.take(self.sampling_model, self.ranks)

    @cached_property
    def camera(self) -> Camera | None:
        """The trajectories, integrated on first use. None if that fails: training continues."""
        with forked_seed(self.recipe.seed, self.device):
            try:
                return self.ranks.agreed(self._camera)
            except Exception as error:  # a user's oracle or teacher may raise anything
                if memory.is_lack(error):
                    raise
                self.warnings.append(f"snapshots have no film strips: {type(error).__name__}: {error}")
                return None

    def _camera(self) -> Camera | None:
        if not film.is_seen(tuple(self.data.shape)):
            return None
        model, recipe, lowest = self.state.model, self.recipe, build.sigma_lowest(self.recipe)
        oracle = self.data.oracle() if has(self.data, HasOracle) else None
        is_denoiser = self.objective.sampler == "ode"
        teacher = self.teacher.denoiser.denoise if self.teacher and self.objective.teacher != "consistency" else None
        labels = round_robin_labels(film.ROWS, self.data.classes) if self.conditional else None
        frames = film.frames_along(
            model, oracle, teacher, labels, lambda: self._starts(film.ROWS), lowest, recipe.seed, recipe.snapshot.n
        )
        mixture = oracle if film.has_plane(oracle, tuple(self.data.shape)) else None
        plane = None
        if mixture is not None and not self.conditional and not is_denoiser:
            plane = film.plane_of(mixture, model.sigma_max, lowest, self.device)
        return Camera(frames, plane, mixture, model.sigma_data, is_denoiser, self.behind_snapshots)

    def evaluate(self) -> dict[str, float]:
        """Return the measures of [evaluate] for each of its numbers of sampler steps, e.g. {"sw_1step": ...}.

        Measures that need more samples are left out: see `unmeasured`. All ranks draw samples; rank 0 measures them.
        """
        config, judge = self.recipe.evaluate, self._judge()
        values: dict[str, float] = {}
        for steps in config.steps:
            x = self.sample(config.n, steps, as_data=not self.labels_in_turn)
            figures = judge.figures(config.metrics, x) if self.ranks.leads else ()
            values |= {row_key(name, steps): value for name, value in figures}
        return values

    def unmeasured(self) -> dict[str, str]:
        """Return the measures of [evaluate] that cannot be computed here, and why, e.g. {"recall": "it needs ..."}."""
        reasons = {name: self._judge().why_not(name) for name in self.recipe.evaluate.metrics}
        return {name: reason for name, reason in reasons.items() if reason}

    def floor(self) -> dict[str, Floor]:
        """Return a perfect sampler's value for each measure of [evaluate], e.g. {"sw": Floor(...)}."""
        return {
            OF_SAMPLES[name].key: found for name, found in self._judge().floors(self.recipe.evaluate.metrics).items()
        }

    def true_error(self) -> TrueErrors | None:
        """Return the distance to the true consistency function; all ranks together.

        None if the objective trains no consistency function, or the data have no oracle.
        """
        return None if self._truth is None else self._truth.figures(self.sampling_model)

    def self_error(self) -> tuple[float, bool] | None:
        """Return the change of f between noise levels on a teacher's trajectories, and whether it is partial.

        All ranks compute it together. None if the recipe does not ask for it.
        """
        if self._constancy is None:
            return None
        return float(self._constancy.each(self.sampling_model).mean()), self._constancy.compared.is_partial

    @property
    def is_partial(self) -> bool:
        """Whether means over noise levels leave out levels that other runs have; such means have another name."""
        model = self.state.model
        return compared_levels(model.sigma_data, build.sigma_lowest(self.recipe), model.sigma_max).is_partial

    def _judge(self) -> Judge:
        return Judge(self.data, self.recipe.evaluate.n)

    @cached_property
    def _truth(self) -> Truth | None:
        """The exact trajectories, integrated on first use."""
        n = self.recipe.evaluate.true_error_n
        if not n or self.objective.sampler == "ode" or not has(self.data, HasOracle):
            return None
        model, edges, lowest = self.state.model, self.state.profile.edges, build.sigma_lowest(self.recipe)
        return Truth(model, self.data.oracle().denoise, edges, self._starts(n), lowest, self.ranks)

    @cached_property
    def _constancy(self) -> Constancy | None:
        """Trajectories of the teacher, integrated on first use."""
        n = self.recipe.evaluate.self_error_n
        if not n or self.teacher is None:
            return None
        lowest = build.sigma_lowest(self.recipe)
        return Constancy(self.state.model, self.teacher.denoiser.denoise, self._starts(n), lowest, self.ranks)

    def _starts(self, n: int) -> Starts:
        return draw_starts(self.data, n, self.device, self.recipe.seed, self.conditional)


def from_file(path: str | Path, overrides: Sequence[str] = (), runs_dir: Path | None = None) -> Trainer:
    """Build a recipe file with overrides `table.key=value`.

    Raises:
        UsageError: something in the recipe is not allowed.
        NotFoundError: its teacher is a run that does not exist.
    """
    return from_given(consent.named(Path(path), overrides), runs_dir)


def from_given(given: Given, runs_dir: Path | None = None) -> Trainer:
    """Build a recipe that has been read. Raises as `from_file`."""
    return from_recipe(build.complete_new(given.recipe, given.where), given.where, runs_dir)


def from_recipe(
    recipe: Recipe, where: str, runs_dir: Path | None = None, kept: RunDir | None = None, data: Data | None = None
) -> Trainer:
    """Build a complete recipe.

    Args:
        recipe: as `build.complete` returns it.
        where: named by messages.
        runs_dir: where to look for the teacher's run.
        kept: the resumed run, with its own copies of its teacher and of its initial weights.
        data: a data set that replaces the recipe's own, on the recipe's device.

    Raises:
        UsageError: something in the recipe is not allowed.
        LackError: the network does not fit the device.
    """
    with prefixing(where):
        device = build.device_of(recipe.train.device)
        if recipe.train.compile:
            compiler.refuse_if_impossible(device)
        data = build.data(recipe, device) if data is None else data
        build.check_augmentation(recipe, data.shape)
        if ":" not in recipe.network["kind"] and (shapes := shapes_of(recipe, data.shape, data.classes)) is not None:
            memory.refuse_network(recipe, sum(map(math.prod, shapes.values())), device)
        with memory.wanted_by_network(recipe, device):
            return _on_device(recipe, device, data, runs_dir, kept)


def _on_device(recipe: Recipe, device: torch.device, data: Data, runs_dir: Path | None, kept: RunDir | None) -> Trainer:
    model = build.model(recipe, data.shape, data.classes, device)
    if has(model.F_theta, BringsWeights) and (kept is None or not steps_of_checkpoints(kept)):
        model.F_theta.bring_weights()
    teacher, source = None, None
    if recipe.teacher is not None:
        copy = kept.teacher if kept is not None and (kept.teacher.exists() or recipe.teacher.file) else None
        teacher = load_teacher(recipe, recipe.teacher, data, device, runs_dir, copy)
        recipe = recipe.model_copy(update={"teacher": teacher.config})
    if recipe.start is not None:
        kept_start = kept.start if kept else None
        source, table = starts.load(recipe, recipe.start, model, data.classes, runs_dir, kept_start)
        recipe = recipe.model_copy(update={"start": table})
    started = starts.start(model, recipe, teacher, source)
    cls, settings = build.settings("objective", recipe)
    if recipe.evaluate.self_error_n and (teacher is None or cls.teacher == "consistency"):
        found = recipe.evaluate.self_error_n
        raise UsageError(f"evaluate.self_error_n: found {found}, allowed without a teacher that denoises: 0")
    objective = cls(settings, model, teacher and teacher.denoiser, recipe.train.steps).to(device)
    all_ranks.current().part(recipe.train.batch_size, objective)  # refuses a batch of fewer samples than ranks
    trained = teacher.trained if teacher else None
    teacher_cost = compute.of_teacher(teacher, model, build.is_conditional(recipe))
    forwards = compute.per_image(objective.forwards, teacher_cost)
    averages = [Average(recipe.ema, length, model, recipe.train.batch_size) for length in recipe.ema.lengths]
    profile = Profile(objective.profile_edges(recipe.profile.bins))
    built = optimizer.build(recipe.optimizer, model, objective)
    compiled = Compiled() if recipe.train.compile else None
    state = State(model, objective, built, averages, profile, trained.model if trained else None, compiled)
    spent = Compute(forwards, _spent_before(model, trained, source))
    earlier = kept is not None and not floors.has_spread(read_json(kept.meta) or {})
    in_turn = earlier and build.is_conditional(recipe)
    return Trainer(recipe, device, data, objective, state, teacher, started, spent, in_turn)


def _spent_before(model: Model, *sources: Trained | None) -> float:
    """Return the training cost of the sources, in forward passes of the model; each source counts once."""
    by_origin = {(s.recipe.name, s.step, s.forwards): s for s in sources if s is not None}
    return sum(s.forwards * compute.relative_cost(s.model, model) for s in by_origin.values())
