"""`cmbench sigma-mid`."""

import math
import statistics
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbench import recipe as recipes
from cmbench import steering
from cmbench.cli import _data_now, _eval_charts, _figures, _progress, _screen
from cmbench.cli._app import app
from cmbench.cli._eval_charts import Chart, Curve
from cmbench.cli._options import (
    MOST_SAMPLES,
    N_HELP,
    Checkpoint,
    Device,
    Ema,
    Json,
    OtherData,
    Places,
    RunsDir,
    Seed,
    Trust,
    complete_runs,
)
from cmbench.errors import NotFoundError, UsageError, did_you_mean
from cmbench.measures import OF_SAMPLES
from cmbench.progress import Progress
from cmbench.rundir import checkpoints, evaluations, reconstructed
from cmbench.rundir.evaluations import Answer, Question
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, runs_folder, select
from cmbench.text import shown_key
from cmbench.words.numbers import four_digits

if TYPE_CHECKING:
    from cmbench.engine.evaluate import Evaluation

_DIRECTED = {name: measure for name, measure in OF_SAMPLES.items() if measure.better}


@app.command("sigma-mid")
def sigma_mid(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=complete_runs, help="A path, a unique prefix, @latest or @latest:PREFIX."
        ),
    ] = "@latest",
    measure: Annotated[str, typer.Option(metavar="NAME", help="The measure of samples to improve.")] = (
        "sliced_wasserstein"
    ),
    points: Annotated[int, typer.Option(min=3, max=1000, help="Noise levels of the scan before the search.")] = 12,
    n: Annotated[int | None, typer.Option("--n", "-n", min=2, max=MOST_SAMPLES, help=N_HELP)] = None,
    repeats: Annotated[int, typer.Option(min=2, max=10_000, help="Number of sample sets, which give the spread.")] = 5,
    features: Annotated[
        str, typer.Option(help="Features of samples to compare: pixels, inception, or a classifier's .safetensors.")
    ] = "pixels",
    checkpoint: Checkpoint = "latest",
    ema: Ema = "",
    seed: Seed = 0,
    device: Device = "auto",
    chart: Annotated[bool, typer.Option("--chart", help="Draw the measure over the noise levels.")] = False,
    moved: Places = None,
    other_data: OtherData = False,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Search the second noise level of two-step sampling that gives the best samples. Figures are kept in the run."""
    if measure not in _DIRECTED:
        hint = did_you_mean(measure, _DIRECTED)
        raise UsageError(f"--measure: found '{measure}', allowed: {', '.join(_DIRECTED)}{hint}")
    identity = _figures.identity(features)
    chosen = select(run, runs_folder(runs_dir), with_checkpoint=True)
    step = checkpoints.choose(chosen, checkpoint)
    places = _places(chosen, moved or [])
    sums = reconstructed.checksums(chosen, step)
    if sums is None:
        raise NotFoundError(f"{chosen.checkpoint(step) / 'state.json'}: missing or broken")
    name = checkpoints.ema_name(ema, checkpoints.averages(sums))
    content, _ = _data_now.content(chosen, step, places, other_data)

    from cmbench.engine.asking import Place
    from cmbench.engine.evaluate import Evaluation

    evaluation = Evaluation(Place(chosen, step, name, device, runs_dir, places, other_data), features)
    size = n or evaluation.trained.recipe.evaluate.n
    about = {"metric": measure, "version": OF_SAMPLES[measure].version, "weights": sums[checkpoints.group_of(name)]}
    about |= {"seed": seed, **({"data": content} if content else {}), "n": size, "repeats": repeats}
    about |= {"features": identity, "steps": 2}
    levels = Levels(chosen, evaluation, about)
    with _progress.shown("reading") if not json else nullcontext(Progress()) as progress:
        best = _searched(levels, points, progress)
    if json:
        told = {"run": chosen.name, "checkpoint": step, "ema": name, "n": size, "repeats": repeats, "seed": seed}
        _screen.data({"schema": 1, **told, "metric": measure, **_found(levels, best)})
        return
    _screen.line(f"{chosen.name}, checkpoint {step}, ema {name}: {repeats} sets of {size:,} samples, seed {seed}")
    which = f" --checkpoint {step}" if checkpoint != "latest" else ""
    which += f" --ema {name}" if ema else ""
    _show(levels, best, measure, f"{address(chosen)}{which}")
    if chart:
        _eval_charts.show([_chart(levels, measure)])


@dataclass
class Levels:
    """The figures of the second noise levels that were looked at, read if they are kept from before.

    Raises on the first use:
        UsageError: the objective's sampler has no such level.
    """

    run: RunDir
    evaluation: "Evaluation"
    about: Question
    figures: dict[float, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the levels of the recipe, and what measures samples."""
        from cmbench.engine import build
        from cmbench.engine.sample import default_sigmas

        trained = self.evaluation.trained
        if trained.sampler != "consistency":
            kind = trained.recipe.objective["kind"]
            raise UsageError(f"{self.run.name}: objective '{kind}' is not sampled with a second noise level")
        lowest, mid = build.sigma_lowest(trained.recipe), trained.recipe.path.sigma_mid
        self.high, self.own = default_sigmas(trained.model, trained.sampler, 2, lowest, mid)
        self.low = lowest
        self._judge = self.evaluation.judge(self.about["n"])

    def figure(self, level: float) -> float:
        """Return the mean over the sets, with the sign that makes lower better; nan where there is none."""
        if level not in self.figures:
            self.figures[level] = self._answer(level)
        value = self.figures[level]["value"]
        return math.nan if value is None else value if self.better == "lower" else -value

    @property
    def better(self) -> str:
        """Which way is better."""
        return OF_SAMPLES[self.about["metric"]].better

    def _answer(self, level: float) -> Answer:
        question = {**self.about, "sigmas": [self.high, level]}
        if (kept := evaluations.read(self.run, question)) is not None:
            return kept
        metric, n, seed, repeats = (self.about[key] for key in ("metric", "n", "seed", "repeats"))
        answer = self.evaluation.at_levels(self._judge, metric, question["sigmas"], n, seed, repeats)
        evaluations.write(self.run, question, answer)
        return answer


def _searched(levels: Levels, points: int, progress: Progress) -> float:
    """Return the best level; the recipe's own is one of those that are looked at."""
    from cmbench.engine import second_level

    def figure(level: float) -> float:
        progress.begin(f"sigma {level:g}")
        return levels.figure(level)

    progress.expect(points)
    own = figure(levels.own)
    if levels.figures[levels.own]["value"] is None:
        raise UsageError(f"{levels.run.name}: {levels.about['metric']}: {levels.figures[levels.own]['why']}")
    best = second_level.searched(figure, levels.low, levels.high, points)
    return levels.own if own <= figure(best) else best


def _found(levels: Levels, best: float) -> dict[str, Any]:
    """Return the outcome as data."""
    keys = ("value", "spread", "values")
    looked_at = [{"sigma": s, **{key: levels.figures[s][key] for key in keys}} for s in sorted(levels.figures)]
    difference, error = _paired(levels, best)
    about = {"best": best, "recipe": levels.own, "difference": difference, "difference_error": error}
    return {**about, "sigma_max": levels.high, "better": levels.better, "levels": looked_at}


def _paired(levels: Levels, best: float) -> tuple[float, float]:
    """Return by how much the best level's figure exceeds the recipe's, and the standard error over the sets."""
    pairs = zip(levels.figures[best]["values"], levels.figures[levels.own]["values"], strict=True)
    differences = [one - other for one, other in pairs]
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


def _show(levels: Levels, best: float, measure: str, weights: str) -> None:
    """Print the outcome; `weights` are named as for `cmbench sample`."""
    rows = [_row("best", best, levels)] if best != levels.own else []
    rows += [_row("the recipe's, and the best" if best == levels.own else "the recipe's", levels.own, levels)]
    _screen.table(["second noise level", "sigma", measure, "spread", "better"], rows)
    low, high = min(levels.figures), max(levels.figures)
    _screen.line(f"of {len(levels.figures)} levels from {low:g} to {high:g}, with the same latents and noise")
    if best == levels.own:
        return
    difference, error = _paired(levels, best)
    _screen.line(f"difference: {difference:+.3g} ± {error:.1g}, its standard error over the sets")
    sampled = f"cmbench sample {weights} --sigmas {levels.high:g},{best:g}"
    _screen.line(f"next run: path.sigma_mid = {best:g}; this one: {sampled}")


def _row(what: str, level: float, levels: Levels) -> tuple[str, ...]:
    figure = levels.figures[level]
    return what, f"{level:.4g}", four_digits(figure["value"]), four_digits(figure["spread"]), levels.better


def _chart(levels: Levels, measure: str) -> Chart:
    curve = Curve(levels.run.name)
    for level in sorted(levels.figures):
        curve.add(level, f"{level:.3g}", levels.figures[level])
    return Chart(f"{measure} ({levels.better} is better)", "second noise level", [curve])


def _places(run: RunDir, moved: list[str]) -> dict[str, str]:
    given = recipes.flat_overrides(moved)
    if wrong := next((key for key in given if key != "data.root"), None):
        raise UsageError(f"--set: found {shown_key([wrong])}, allowed: data.root")
    return steering.places_in(recipes.load(run.recipe), given, run.name)
