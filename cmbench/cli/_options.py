"""Arguments and options that several commands share, with their completion."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cmbench import consent, recipe
from cmbench.rundir.select import all_runs, runs_folder


def complete_runs(incomplete: str) -> list[str]:
    """Return the runs whose names begin with `incomplete`, for the shell."""
    names = [run.name for run in reversed(all_runs(runs_folder()))]
    return _offered(["@latest", *names], incomplete)


def _complete_recipes(incomplete: str) -> list[str]:
    paths = [str(path) for path in recipe.available()]
    names = [path.stem for path in recipe.available()]
    return _offered([*names, *paths], incomplete)


def _offered(names: list[str], incomplete: str) -> list[str]:
    """Return the names with this prefix, except those that a shell needs quoted: some shells evaluate them."""
    return [name for name in names if name.startswith(incomplete) and shlex.quote(name) == name]


RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", envvar="CMBENCH_RUNS_DIR", help="Folder of the runs; ./runs if not given."),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete_runs,
        help="A path, a unique prefix, @latest or @latest:PREFIX.",
    ),
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete_runs,
        help="Paths, unique prefixes, @latest or @latest:PREFIX; all runs if not given.",
    ),
]
RunsToCompare = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete_runs,
        help="Paths, unique prefixes, patterns such as 'ct_*', @latest or @latest:PREFIX.",
    ),
]
Ascii = Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters only.")]
RecipeFile = Annotated[
    str,
    typer.Argument(metavar="RECIPE", autocompletion=_complete_recipes, help="A recipe's path or name."),
]
RecipeFileOrNone = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", autocompletion=_complete_recipes, help="A recipe's path or name."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key of the recipe; may be repeated."),
]
Places = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="data.root=FOLDER", help="Override a key: only data.root, where the data are now."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key from the next step on; may be repeated."),
]
MOST_SAMPLES = 10**7  # as for recipes, see config.py
MOST_STEPS = 10**12
N_HELP = "Number of samples."  # of `--n`
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Ema = Annotated[str, typer.Option(help="A length of [ema] or of `cmbench ema`, or none; the first if not given.")]
InceptionWeights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Inception's weights, a .pth; torch's folder if not given."),
]
AnyWeights = Annotated[
    bool, typer.Option("--any-weights", help="Take other Inception weights than the published ones: no FID.")
]
Features = Annotated[
    str,
    typer.Option(help="Features of samples to compare: pixels, inception, a classifier's .safetensors, or an .onnx."),
]
Checkpoint = Annotated[
    str, typer.Option(metavar="STEP|best|latest", help="The checkpoint to use: a step, best or latest.")
]
CheckpointOrNone = Annotated[
    str | None,
    typer.Option(
        metavar="STEP|best|latest",
        help="The checkpoint to go back to; later steps are abandoned.",
    ),
]
OtherData = Annotated[
    bool, typer.Option("--other-data", help="Use the current data, even if the run was trained on others.")
]
HostGone = Annotated[bool, typer.Option("--host-gone", help="Resume a run of another host whose trainer has ended.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait for the answer; 0: do not wait.")]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as Markdown.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="Print text instead of showing the screen: tables, or lines until a run ends.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of everything that is drawn.")]
Sigmas = Annotated[str, typer.Option(help="Descending noise levels instead of steps, e.g. 80,0.8.")]
Label = Annotated[str | None, typer.Option(metavar="NUMBER|NAME", help="Class of all samples, for a conditional run.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", callback=consent.trust, help="Import module:Class of a run's recipe, and trust its file as it is."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        max=10_000,
        help="How many runs train at a time; if not given 1, or with --gpus one a GPU.",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="N|LIST",
        help="GPUs to train on together: N, or those listed, such as 0-3 or 0,2.",
    ),
]
GpusToShare = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="N|LIST",
        help="GPUs to share the work: N, or those listed, such as 0-3; the figures are those of one.",
    ),
]
GpuPool = Annotated[
    str | None,
    typer.Option("--gpus", metavar="N|LIST", help="GPUs to train on, one run each: N, or those listed, such as 0-3."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Foreground = Annotated[
    bool,
    typer.Option("--foreground", help="Train in this process and print plain lines."),
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Start the trainer, print the run's name and return.")]
