"""The measures of one checkpoint: figures with their spread and their floor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmbench.engine import build, features, fingerprint, memory, weights
from cmbench.engine.consistency import Constancy, Starts, Truth, draw_starts
from cmbench.engine.judge import Judge
from cmbench.engine.sample import default_sigmas, draw, round_robin_labels
from cmbench.engine.teacher import load_teacher
from cmbench.errors import ConflictError, NotFoundError, UsageError
from cmbench.randomness import StepRandom
from cmbench.rundir import fingerprints
from cmbench.rundir.evaluations import Answer
from cmbench.rundir.fields import number_list
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address


class Evaluation:
    """Answers about one checkpoint.

    An answer is {"value", "spread", "floor"} and what belongs to the measure, as of how many samples the floor is.
    `value` is the mean over several sets of samples, each from latents of its own, and `spread` the standard deviation
    of one set's figure: what another seed would change. What other held-out data would change is not in it.

    Args:
        run: the run.
        step: of the checkpoint.
        ema: as for `weights.load`.
        device: where samples are drawn and measured.
        which_features: what measures of samples compare, as `features.named` takes them.
        runs_dir: where a teacher's run is looked for, if the run keeps no copy.
        places: of the data, where they are others than the run knows, such as {"data.root": "/new"}.
        other_data: the data may be others than those that it was trained on.

    Raises:
        ConflictError: they are, and may not be.
        UsageError: the features cannot be had, or are of other samples.
        NotFoundError: the checkpoint is damaged.
    """

    def __init__(
        self,
        run: RunDir,
        step: int,
        ema: str,
        device: torch.device,
        which_features: str = features.PIXELS,
        runs_dir: Path | None = None,
        places: Mapping[str, str] | None = None,
        other_data: bool = False,
    ) -> None:
        self._run, self._device, self._runs_dir = run, device, runs_dir
        self._trained = weights.load(run, device, ema, step)
        self._recipe = self._trained.recipe
        self._features = features.named(which_features, self._trained.model.shape, device)
        self._conditional = build.is_conditional(self._recipe)
        self._places, self._other_data = places, other_data

    @cached_property
    def _data(self) -> Any:
        recipe, again = build.of_run(self._run, self._places), f"cmbench eval {address(self._run)}"
        try:
            data = build.data(recipe, self._device)
        except UsageError as error:
            moved = f" (where they moved: {again} --set data.root=FOLDER)" if "data.root: no " in str(error) else ""
            raise UsageError(f"{self._run.recipe}: {error}{moved}") from None
        then = fingerprints.recorded(self._run, self._trained.step)
        why = fingerprints.difference(then, fingerprint.of(recipe, data))
        if not self._other_data and why:
            raise ConflictError(
                f"{self._run.name}: its data are others now: {why} (to measure against these: {again} --other-data)"
            )
        if tuple(data.shape) != self._trained.model.shape:
            found, allowed = list(data.shape), list(self._trained.model.shape)
            raise UsageError(f"{self._run.name}: its data are now of shape {found}, allowed: {allowed}, as its network")
        return data

    def of_samples(
        self,
        wanted: Sequence[tuple[str, int]],
        n: int,
        seed: int,
        repeats: int,
        advance: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[str, int, Answer]]:
        """Yield the answer for each measure and number of sampler steps, as soon as it is there.

        Args:
            wanted: measures of samples, each with a number of sampler steps.
            n: samples of a set.
            seed: of the first set, whose samples are those of `cmbench sample`; the others follow from it.
            repeats: number of sets, at least 2.
            advance: called after each figure.
        """
        judge = Judge(self._data, n, self._features)
        names = dict.fromkeys(name for name, _ in wanted)
        floors = {name: {"floor": judge.floor(name), "floor_n": judge.floor_size(name)} for name in names}
        for steps in dict.fromkeys(steps for _, steps in wanted):
            values: dict[str, list[float]] = {name: [] for name, own in wanted if own == steps}
            for of_set in _seeds(seed, repeats):
                with memory.wanted_by("--n", n):
                    for name, value in judge.figures(values, self._samples(n, steps, of_set)):
                        values[name].append(value)
                        advance()
            for name, own in values.items():
                of_sets = torch.tensor(own, dtype=torch.float64)
                answer = {"value": float(of_sets.mean()), "spread": float(of_sets.std()), **floors[name]}
                yield name, steps, {**answer, "values": own}

    def of_function(self, name: str, seed: int, n: int) -> Answer:
        """Return a measure of the consistency function, its mean and in bins, from n trajectories.

        The mean is over noise levels that depend on the data alone; the bins lie between "noise_levels". The spread is
        the standard deviation of the mean over the trajectories. There is no floor: 0 can be reached.
        {"why_not": reason} where the measure is not defined for this run.
        """
        if reason := self._why_not(name):
            return {"why_not": reason}
        starts = draw_starts(self._data, n, self._device, seed, self._conditional)
        return self._true_error(starts) if name == "consistency_error" else self._self_error(starts)

    def _true_error(self, starts: Starts) -> Answer:
        model = self._trained.model
        known = number_list((read_json(self._run.meta) or {}).get("profile_edges"))
        if len(known) < 2:
            raise NotFoundError(f"{self._run.meta}: damaged: profile_edges: found no times between bins")
        edges = torch.tensor(known, dtype=torch.float64)
        truth = Truth(model, self._data.oracle().denoise, edges, starts)
        errors = truth.each(model).double()
        *bins, at_sigma_max = errors.mean(dim=1).tolist()
        levels = model.path.noise_level(edges).tolist()
        return {**_mean(truth.mean(errors)), "at_sigma_max": at_sigma_max, "bins": bins, "noise_levels": levels}

    def _self_error(self, starts: Starts) -> Answer:
        constancy = Constancy(self._trained.model, self._teacher.denoiser.denoise, starts)
        errors = constancy.each(self._trained.model).double()
        bins, levels = errors.mean(dim=1).tolist(), constancy.levels.tolist()
        return {**_mean(errors.mean(dim=0)), "bins": bins, "noise_levels": levels}

    def _why_not(self, name: str) -> str:
        objective, _ = build.component("objective", self._recipe.objective["kind"])
        if objective.sampler == "ode":
            return f"objective '{self._recipe.objective['kind']}' trains no consistency function"
        if name == "consistency_error":
            return "" if hasattr(self._data, "oracle") else "its data have no oracle"
        if self._recipe.teacher is None:
            return "it has no teacher"
        return "its teacher is no denoiser" if objective.teacher == "consistency" else ""

    @cached_property
    def _teacher(self) -> Any:
        own = self._run.teacher if self._run.teacher.exists() else None
        assert self._recipe.teacher is not None  # or `_why_not` says so
        return load_teacher(self._recipe, self._recipe.teacher, self._data, self._device, self._runs_dir, own)

    def _samples(self, n: int, steps: int, seed: int) -> Tensor:
        trained = self._trained
        lowest, mid = weights.sigma_lowest(self._recipe), self._recipe.path.sigma_mid
        sigmas = default_sigmas(trained.model, trained.sampler, steps, lowest, mid)
        labels = round_robin_labels(n, trained.classes) if self._conditional else None
        return draw(trained.model, trained.sampler, n, sigmas, seed, labels)


def _mean(each: Tensor) -> Answer:
    return {"value": float(each.mean()), "spread": float(each.std() / len(each) ** 0.5), "floor": None}


def _seeds(seed: int, repeats: int) -> list[int]:
    cpu = torch.device("cpu")
    return [seed, *(StepRandom(cpu, seed, i).stream_seed("samples") for i in range(1, repeats))]
