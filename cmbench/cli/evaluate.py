"""`cmbench eval`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbench import recipe as recipes
from cmbench import steering
from cmbench.cli import _data_now, _eval_charts, _figures, _figures_page, _former, _outputs, _ranks, _screen
from cmbench.cli._app import app
from cmbench.cli._figures import Asked, Subject
from cmbench.cli._options import (
    MOST_SAMPLES,
    N_HELP,
    AnyWeights,
    Device,
    Features,
    GpusToShare,
    InceptionWeights,
    Json,
    Markdown,
    OtherData,
    Places,
    RunsDir,
    Seed,
    Trust,
    complete_runs,
)
from cmbench.errors import NotFoundError, UsageError, did_you_mean
from cmbench.measures import MEASURES
from cmbench.rundir import checkpoints, reconstructed
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select
from cmbench.text import shown, shown_key

_TRAJECTORIES = 128  # if the recipe sets none


@app.command("eval", cls=_former.names(metrics="measures"))
@_ranks.shared_out
def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_runs,
            help="Paths, unique prefixes, @latest or @latest:PREFIX; the newest run with a checkpoint if not given.",
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Sampler steps, e.g. 1,2,4; as in [evaluate] if not given.")] = "",
    n: Annotated[int | None, typer.Option("--n", "-n", min=2, max=MOST_SAMPLES, help=N_HELP)] = None,
    repeats: Annotated[int, typer.Option(min=2, max=10_000, help="Number of sample sets, which give the spread.")] = 5,
    measures: Annotated[str, typer.Option(metavar="NAME,...", help="Comma-separated measures; all if not given.")] = "",
    features: Features = "pixels",
    inception_weights: InceptionWeights = None,
    any_weights: AnyWeights = False,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Statistics mu and sigma, with which frechet_distance compares."),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(metavar="STEP|best|latest,...", help="The checkpoint to use: a step, best or latest; or several."),
    ] = "latest",
    ema: Annotated[
        str, typer.Option(help="A length from the run's [ema], or none; the first if not given. Or several, or all.")
    ] = "",
    seed: Seed = 0,
    device: Device = "auto",
    gpus: GpusToShare = None,
    markdown: Markdown = None,
    chart: Annotated[bool, typer.Option("--chart", help="Draw the figures over steps, and over averages.")] = False,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture of these charts; wants 'cmbench[plots]'.")
    ] = None,
    moved: Places = None,
    other_data: OtherData = False,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Measure samples of runs against real data. Earlier results are reused."""
    published = _figures.published(features, inception_weights, any_weights, reference)
    names = ["frechet_distance"] if reference and not measures else _metrics(measures)
    asked = Asked(names, bool(measures), repeats, seed, features, published.identity, published)
    wanted_steps = _steps(steps)
    _outputs.apart(markdown=markdown, png=png)
    if markdown:
        _outputs.check(markdown, "--markdown")
    folder = runs_folder(runs_dir)
    about = _About(moved or [], other_data)
    subjects = [
        _subject(run, step, average, wanted_steps, n, about)
        for name in runs or ["@latest"]
        for run in [select(name, folder, with_checkpoint=True)]
        for step, average in _weights(run, checkpoint, ema)
    ]
    if chart or png:
        _eval_charts.check(subjects, png)
    answers = _figures.answered(subjects, asked, device, runs_dir)
    if markdown:
        _outputs.write(markdown, _figures_page.page(subjects, answers, asked).encode(), "--markdown")
    charts = _eval_charts.found(subjects, answers) if chart or png else []
    if png:
        _outputs.write(png, _eval_charts.png(charts), "--png")
    if json:
        _screen.data({"schema": 1, "runs": [_about(*pair, asked) for pair in zip(subjects, answers, strict=True)]})
        return
    for subject, figures in zip(subjects, answers, strict=True):
        _figures.show(subject, figures, asked)
    if chart:
        _eval_charts.show(charts)


@dataclass(frozen=True)
class _About:
    """What the command line says about the data of all runs."""

    moved: list[str]
    other_data: bool

    def places(self, run: RunDir) -> dict[str, str]:
        given = recipes.flat_overrides(self.moved)
        if wrong := next((key for key in given if key != "data.root"), None):
            raise UsageError(f"--set: found {shown_key([wrong])}, allowed: data.root")
        return steering.places_in(recipes.load(run.recipe), given, run.name)


def _weights(run: RunDir, checkpoint: str, ema: str) -> list[tuple[int, str]]:
    """Return the steps of checkpoints and the averages that lists of them mean, each pair once.

    Raises:
        UsageError: an item of a list is empty, or there is no such checkpoint or average.
    """
    for option, given in (("--checkpoint", checkpoint), ("--ema", ema)):
        if "," in given and not all(map(str.strip, given.split(","))):
            raise UsageError(f"{option}: found {shown(given)}, allowed: values with commas between them")
    found = []
    for step in dict.fromkeys(checkpoints.choose(run, each) for each in checkpoint.split(",")):
        lengths = checkpoints.averages(_sums(run, step))
        wanted = [*lengths, "none"] if ema == "all" else ema.split(",")
        found += [(step, name) for name in dict.fromkeys(checkpoints.ema_name(each, lengths) for each in wanted)]
    return found


def _sums(run: RunDir, step: int) -> dict[str, str]:
    if (sums := reconstructed.checksums(run, step)) is None:
        raise NotFoundError(f"{run.checkpoint(step) / 'state.json'}: missing or broken")
    return sums


def _subject(run: RunDir, step: int, name: str, steps: list[int], n: int | None, about: _About) -> Subject:
    """Find weights and data, without reading the weights."""
    sums = _sums(run, step)
    table = recipes.load(run.recipe).evaluate
    sha256 = sums[checkpoints.group_of(name)]
    places = about.places(run)
    data, others = _data_now.content(run, step, places, about.other_data)
    trajectories = table.true_error_n or _TRAJECTORIES
    return Subject(
        run,
        step,
        name,
        sha256,
        steps or list(table.steps),
        n or table.n,
        trajectories,
        data,
        places,
        about.other_data,
        others,
    )


def _steps(text: str) -> list[int]:
    parts = text.split(",") if text else []
    if not all(re.fullmatch("[0-9]{1,4}", part) and 1 <= int(part) <= 1000 for part in parts):
        raise UsageError(f"--steps: found {shown(text)}, allowed: comma-separated integers from 1 to 1000, e.g. 1,2,4")
    return list(dict.fromkeys(map(int, parts)))


def _metrics(text: str) -> list[str]:
    names = text.split(",") if text else list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise UsageError(
                f"--measures: found '{name}', allowed: {', '.join(MEASURES)}{did_you_mean(name, MEASURES)}"
            )
    return list(dict.fromkeys(names))


def _about(subject: Subject, figures: list[dict[str, Any]], asked: Asked) -> dict[str, Any]:
    return {
        "run": subject.run.name,
        "checkpoint": subject.step,
        "ema": subject.ema,
        "n": subject.n,
        "repeats": asked.repeats,
        "seed": asked.seed,
        "features": asked.features,
        **({"other_data": subject.others} if subject.others else {}),
        "figures": figures,
    }
