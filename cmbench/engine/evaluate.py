"""The measures of one checkpoint: figures with their spread and their floor."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cmbench.contracts import Data, HasOracle, has
from cmbench.engine import asking, build, features, fingerprint, memory, mistakes, weights
from cmbench.engine.asking import Place
from cmbench.engine.consistency import Constancy, Denoise, Levels, Starts, Truth, draw_starts
from cmbench.engine.judge import Judge, OfClass, labels_as_data
from cmbench.engine.ranks import Ranks
from cmbench.engine.reference import Reference
from cmbench.engine.sample import default_sigmas
from cmbench.engine.teacher import Teacher, load_teacher
from cmbench.errors import ConflictError, NotFoundError, UsageError
from cmbench.measures import Floor
from cmbench.progress import Progress
from cmbench.randomness import StepRandom
from cmbench.rundir import fingerprints
from cmbench.rundir.evaluations import Answer
from cmbench.rundir.fields import number_list
from cmbench.rundir.files import read_json
from cmbench.rundir.select import address

_LOOKED_AT = 1024  # real pictures whose colours are compared


class Evaluation:
    """Answers about one checkpoint.

    An answer is {"value", "spread", "floor"} and more keys of the measure, such as the floor's own spread. `value` is
    the mean over several sets of samples, each from its own latents. `spread` is the standard deviation over the sets:
    the effect of another seed, but not that of other held-out data. A class-conditional model draws the classes in the
    data's shares; "classes" then has the figures of each. Without a number, "why" gives the reason:
    {"value": None, ...}.

    Several ranks share out what the network and the denoiser compute; rank 0 alone measures samples.

    Args:
        place: of weights and data.
        which_features: the features that measures of samples compare, as `features.named` takes them.
        ranks: of the command.
        inception: the file of Inception's weights, and whether others than the published ones are taken.
        reference: statistics with which the Fréchet distance compares.

    Raises:
        ConflictError: the data differ, and may not.
        UsageError: the features are not available, or are for other samples.
        NotFoundError: the checkpoint is damaged.
    """

    def __init__(
        self,
        place: Place,
        which_features: str = features.PIXELS,
        ranks: Ranks | None = None,
        inception: tuple[Path | None, bool] = (None, False),
        reference: Reference | None = None,
    ) -> None:
        self.place, self._run, self._ranks = place, place.run, ranks or Ranks()
        self._device = build.device_of(place.device, "--device")
        self.trained = weights.load(place.run, self._device, place.ema, place.step)
        self._recipe = self.trained.recipe
        self._features = features.named(which_features, self.trained.model.shape, self._device, *inception)
        self._is_published, self._reference = which_features == features.INCEPTION or reference is not None, reference
        if reference is not None:
            reference.check(self._features(torch.zeros(1, *self.trained.model.shape, device=self._device)))
        self._conditional = build.is_conditional(self._recipe)

    @cached_property
    def _data(self) -> Data:
        recipe, again = build.of_run(self._run, self.place.places), f"cmbench eval {address(self._run)}"
        try:
            data = build.data(recipe, self._device)
        except UsageError as error:
            moved = f" (where they moved: {again} --set data.root=FOLDER)" if "data.root: no " in str(error) else ""
            raise UsageError(f"{self._run.recipe}: {error}{moved}") from None
        then = fingerprints.recorded(self._run, self.trained.step)
        why = fingerprints.difference(then, fingerprint.of(recipe, data))
        if not self.place.other_data and why:
            raise ConflictError(
                f"{self._run.name}: its data have changed: {why} (to measure against these: {again} --other-data)"
            )
        if tuple(data.shape) != self.trained.model.shape:
            found, allowed = list(data.shape), list(self.trained.model.shape)
            raise UsageError(f"{self._run.name}: its data are now of shape {found}, allowed: {allowed}, as its network")
        return data

    def of_samples(
        self,
        wanted: Sequence[tuple[str, int]],
        n: int,
        seed: int,
        repeats: int,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, int, Answer]]:
        """Yield the answer for each measure and number of sampler steps, as soon as it is known.

        Args:
            wanted: measures of samples, each with a number of sampler steps.
            n: samples per set.
            seed: of the first set, whose latents are those of `cmbench sample`; the other seeds follow from it.
            repeats: number of sets, at least 2.
            progress: is told of each figure of a set, and of each draw for a floor, which most of the time goes to.
        """
        told = progress or Progress()
        judge = self.judge(n)
        names = list(dict.fromkeys(name for name, _ in wanted))
        told.expect(judge.draws * len(judge.with_floors(names)) + repeats * len(wanted))
        floors = judge.floors(names, lambda name: told.begin(f"floor of {name}"))
        of_classes = self._conditional and judge.has_classes
        known = {name: {**_about_floor(floors.get(name)), **_floor_from(judge, name)} for name in names}
        against_data = [name for name in names if not judge.by_reference(name)]
        floors_of_classes = self._floors_of_classes(judge, against_data, told) if of_classes else {}
        for steps in dict.fromkeys(steps for _, steps in wanted):
            own = [name for name, k in wanted if k == steps]
            values: dict[str, list[float]] = {name: [] for name in own}
            rows: dict[str, list[list[OfClass]]] = {name: [] for name in own}
            notes: list[str] = []
            for of_set in _seeds(seed, repeats):
                with memory.wanted_by("--n", n):
                    x, labels = self._samples(n, steps, of_set)
                    for name in own:
                        told.begin(f"{name}, {steps}-step")
                        values[name] += [value for _, value in judge.figures([name], x)]
                        if name == "frechet_distance" and not notes:
                            notes = self._notes(judge, x)
                        if of_classes and labels is not None and not judge.by_reference(name):
                            rows[name].append(judge.of_classes(name, x, labels))
            for name in own:
                answer = {**_of_sets(values[name], judge.why_not(name)), **known[name]}
                if rows[name]:
                    columns = zip(zip(*rows[name], strict=True), floors_of_classes[name], strict=True)
                    answer["classes"] = [_of_class(found, floor) for found, floor in columns]
                if notes and name == "frechet_distance":
                    answer["notes"] = notes
                yield name, steps, answer

    def judge(self, n: int) -> Judge:
        """Return what measures sets of n samples."""
        return Judge(self._data, n, self._features, self._reference)

    def at_levels(self, judge: Judge, name: str, sigmas: Sequence[float], n: int, seed: int, repeats: int) -> Answer:
        """Return a measure of samples by a sampler of these noise levels: as `of_samples`, without floor or classes.

        The sets have the same latents, and the same noise between the steps, whatever the levels: figures of several
        differ by the levels alone.
        """
        values = []
        for of_set in _seeds(seed, repeats):
            with memory.wanted_by("--n", n):
                x, _ = self._drawn(n, sigmas, of_set)
                values += [value for _, value in judge.figures([name], x)]
        return {**_of_sets(values, judge.why_not(name)), "floor": None}

    def _drawn(self, n: int, sigmas: Sequence[float], seed: int) -> tuple[Tensor, Tensor | None]:
        """Return samples (n, *shape) by a sampler of these noise levels, and labels (n,) if the model takes labels."""
        labels = labels_as_data(self._data, n, seed) if self._conditional else None
        return asking.draw(self._ranks, self.place, self.trained, n, sigmas, seed, labels), labels

    def _notes(self, judge: Judge, x: Tensor) -> list[str]:
        """Return what seems wrong with a published figure of samples x (n, ...)."""
        if not self._is_published or (found := judge.features_of(x)) is None:
            return []
        known = self._reference
        shape, real = (known.shape, known.n) if known else ((), 0)
        return [
            *mistakes.of_size(len(x), found.flatten(1).shape[1], real),
            *mistakes.of_pictures(x, self._channels(), shape),
        ]

    def _channels(self) -> Sequence[float]:
        """Return the mean of each channel of real pictures: those of the reference, or else of some held-out ones."""
        if self._reference is not None and self._reference.channels:
            return self._reference.channels
        real = self._data.held_out(_LOOKED_AT)
        return real.double().mean(dim=(0, 2, 3)).tolist() if real.ndim == 4 and len(real) else []

    @staticmethod
    def _floors_of_classes(judge: Judge, names: Sequence[str], told: Progress) -> dict[str, list[Floor | None]]:
        told.expect(judge.draws * len(names))
        return judge.floors_of_classes(names, lambda name: told.begin(f"floors of {name}, class by class"))

    def of_function(self, name: str, seed: int, n: int) -> Answer:
        """Return a measure of the consistency function, as a mean and in bins, from n trajectories.

        The mean is over noise levels that depend only on the data, between the two ends in "over". "partial" means
        that the run does not train all of them, and that the mean is over those it trains. The bins lie between
        "noise_levels". The spread is the standard deviation of the mean over the trajectories. There is no floor: 0
        can be reached. The answer is {"why_not": reason} if the measure is not defined for this run.
        """
        if reason := self._why_not(name):
            return {"why_not": reason}
        asking.ask(self._ranks, name, self.place, seed=seed, n=n)
        return self.share_of_function(name, seed, n)

    def share_of_function(self, name: str, seed: int, n: int) -> Answer:
        """As any rank that has been asked, compute its share of a measure that is defined, and return the answer."""
        measure = self._true_error if name == "consistency_error" else self._self_error
        with self._ranks.in_step():
            return measure(*self._ranks.agreed(lambda: self._inputs(name, seed, n)))

    def _inputs(self, name: str, seed: int, n: int) -> tuple[Starts, Denoise]:
        """Return the starts of trajectories, and the denoiser that they follow."""
        starts = draw_starts(self._data, n, self._device, seed, self._conditional)
        if name == "self_consistency":
            return starts, self._teacher.denoiser.denoise
        assert has(self._data, HasOracle)  # else `_why_not` gives a reason
        return starts, self._data.oracle().denoise

    def _true_error(self, starts: Starts, denoise: Denoise) -> Answer:
        model = self.trained.model
        known = number_list((read_json(self._run.meta) or {}).get("profile_edges"))
        if len(known) < 2:
            raise NotFoundError(f"{self._run.meta}: damaged: profile_edges: found no times between bins")
        edges = torch.tensor(known, dtype=torch.float64)
        truth = Truth(model, denoise, edges, starts, build.sigma_lowest(self._recipe), self._ranks)
        errors = truth.each(model).double()
        *bins, at_sigma_max = errors.mean(dim=1).tolist()
        levels = model.path.noise_level(edges).tolist()
        mean = _mean(truth.mean(errors), truth.compared)
        return {**mean, "at_sigma_max": at_sigma_max, "bins": bins, "noise_levels": levels}

    def _self_error(self, starts: Starts, denoise: Denoise) -> Answer:
        model, lowest = self.trained.model, build.sigma_lowest(self._recipe)
        constancy = Constancy(model, denoise, starts, lowest, self._ranks)
        errors = constancy.each(model).double()
        bins, levels = errors.mean(dim=1).tolist(), constancy.compared.values.tolist()
        return {**_mean(errors.mean(dim=0), constancy.compared), "bins": bins, "noise_levels": levels}

    def _why_not(self, name: str) -> str:
        objective, _ = build.component("objective", self._recipe.objective["kind"])
        if objective.sampler == "ode":
            return f"objective '{self._recipe.objective['kind']}' trains no consistency function"
        if name == "consistency_error":
            return "" if has(self._data, HasOracle) else "its data have no oracle"
        if self._recipe.teacher is None:
            return "it has no teacher"
        return "its teacher is not a denoiser" if objective.teacher == "consistency" else ""

    @cached_property
    def _teacher(self) -> Teacher:
        assert self._recipe.teacher is not None  # else `_why_not` gives a reason
        own = self._run.teacher if self._run.teacher.exists() or self._recipe.teacher.file else None
        return load_teacher(self._recipe, self._recipe.teacher, self._data, self._device, self.place.runs_dir, own)

    def _samples(self, n: int, steps: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Return samples (n, *shape), and their labels (n,) if the model takes labels."""
        trained = self.trained
        lowest, mid = build.sigma_lowest(self._recipe), self._recipe.path.sigma_mid
        sigmas = default_sigmas(trained.model, trained.sampler, steps, lowest, mid)
        return self._drawn(n, sigmas, seed)


def _floor_from(judge: Judge, name: str) -> Answer:
    """Return from how many real samples a floor is drawn, for a measure that has one."""
    return {} if judge.by_reference(name) else {"floor_from": judge.floor_from(name)}


def _about_floor(floor: Floor | None) -> Answer:
    """Return a floor's part of an answer."""
    value, spread, draws = floor or (None, None, None)
    return {"floor": value, "floor_spread": spread, "floor_draws": draws}


def _of_sets(values: list[float], why_not: str) -> Answer:
    """Return mean and deviation over sets of samples, or None and the reason."""
    of_sets = torch.tensor(values, dtype=torch.float64)
    if why_not or not of_sets.isfinite().all():
        return {"value": None, "spread": None, "values": values, "why": why_not or _not_a_number(of_sets)}
    return {"value": float(of_sets.mean()), "spread": float(of_sets.std()), "values": values}


def _not_a_number(of_sets: Tensor) -> str:
    """Return why figures are not finite although there are enough samples."""
    bad = int((~of_sets.isfinite()).sum())
    return f"the samples of {bad} of {len(of_sets)} sets are not finite, or the real ones are all the same"


def _of_class(found: Sequence[OfClass], floor: Floor | None) -> Answer:
    """Return the figures of one class over several sets; "samples" is their mean number in a set."""
    measured = [each.value for each in found if each.value is not None]
    why_not = "" if len(measured) == len(found) else next(each.why_not for each in found if each.why_not)
    about = {"label": found[0].label, "samples": sum(each.samples for each in found) / len(found)}
    figure = _of_sets(measured, why_not)
    del figure["values"]
    return {**about, "real": found[0].real, **figure, **_about_floor(floor)}


def _mean(each: Tensor, levels: Levels) -> Answer:
    about = {"floor": None, "over": list(levels.over), "partial": levels.is_partial}
    return {"value": float(each.mean()), "spread": float(each.std() / len(each) ** 0.5), **about}


def _seeds(seed: int, repeats: int) -> list[int]:
    cpu = torch.device("cpu")
    return [seed, *(StepRandom(cpu, seed, i).stream_seed("samples") for i in range(1, repeats))]
