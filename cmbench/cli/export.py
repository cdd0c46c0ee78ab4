"""`cmbench export`."""

from pathlib import Path
from typing import Annotated

import typer

from cmbench.cli import _screen
from cmbench.cli._app import app
from cmbench.cli._options import Checkpoint, Ema, Json, Run, RunsDir, Seed, Trust
from cmbench.errors import UsageError, did_you_mean
from cmbench.rundir import checkpoints, new_folder
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select
from cmbench.text import shown
from cmbench.views import rows_file

FORMATS = ("safetensors", "torch", "onnx", "diffusers")
_MOST_STEPS = 100  # each is a copy of the network in the graph


@app.command("export")
def export(
    run: Run = "@latest",
    as_: Annotated[
        str, typer.Option("--as", metavar="FORMAT", help=f"A generator in this format: {', '.join(FORMATS)}.")
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(metavar="FORMAT", help=f"The run's rows in this format instead: {', '.join(rows_file.FORMATS)}."),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write: a new or an empty folder.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, max=_MOST_STEPS, help="Sampler steps of the generator; a teacher takes Heun steps.")
    ] = 1,
    ema: Ema = "",
    checkpoint: Checkpoint = "latest",
    seed: Seed = 0,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Write a run for other programs: a generator that needs no cmbench, or its rows.

    A generator is a function of latents, of labels where the run has them, and of the noise of later steps. It is
    loaded again in a process without cmbench, and its samples are compared with cmbench's before anything is kept.
    """
    if bool(as_) == bool(metrics):
        found = "both" if as_ else "neither"
        raise UsageError(f"--as, --metrics: found {found}, allowed: one, such as --as torch or --metrics csv")
    _refuse_unknown(as_, "--as", FORMATS)
    _refuse_unknown(metrics, "--metrics", rows_file.FORMATS)
    if out is None:
        raise UsageError("--out: missing; allowed: a new or an empty folder")
    new_folder.check(out, "--out")
    chosen = select(run, runs_folder(runs_dir), with_checkpoint=bool(as_))
    if metrics:
        counts = rows_file.write(chosen, metrics, out)
        told = ", ".join(f"{n:,} {what}" for what, n in counts.items())
        _say(chosen, out, {"metrics": metrics, "rows": counts}, f"{told} as {metrics}", json)
    else:
        _generator(chosen, as_, out, steps, ema, checkpoint, seed, json)


def _generator(
    chosen: RunDir, kind: str, out: Path, steps: int, ema: str, checkpoint: str, seed: int, json: bool
) -> None:
    step = checkpoints.choose(chosen, checkpoint)
    with _screen.waiting(f"exporting {chosen.name} as {kind}"):
        import torch

        from cmbench.engine import build, memory, weights
        from cmbench.engine.exporting import export, formats
        from cmbench.engine.sample import default_sigmas

        formats.check_extra(kind)
        trained = weights.load(chosen, torch.device("cpu"), ema, step)
        lowest, mid = build.sigma_lowest(trained.recipe), trained.recipe.path.sigma_mid
        sigmas = default_sigmas(trained.model, trained.sampler, steps, lowest, mid)
        with memory.wanted_by("--steps", steps):
            agrees = export.write(kind, chosen, trained, sigmas, out, seed)
    about = {"as": kind, "step": trained.step, "ema": trained.ema, "sigmas": sigmas, "difference": agrees.largest}
    levels = ", ".join(f"{sigma:.4g}" for sigma in sigmas)
    told = (
        f"checkpoint {trained.step}, ema {trained.ema}, sigma {levels}, as {kind}; {agrees.samples} samples drawn "
        f"without cmbench differ from its own by {agrees.largest:.2g} of the size of data"
    )
    _say(chosen, out, about, told, json)


def _say(chosen: RunDir, out: Path, about: dict[str, object], told: str, json: bool) -> None:
    if json:
        files = sorted(str(path) for path in out.rglob("*") if path.is_file())
        _screen.data({"schema": 1, "run": chosen.name, **about, "files": files})
        return
    _screen.line(f"{chosen.name}: {told}")
    _screen.line(f"written: {out}")


def _refuse_unknown(found: str, option: str, allowed: tuple[str, ...]) -> None:
    if found and found not in allowed:
        raise UsageError(f"{option}: found {shown(found)}, allowed: {', '.join(allowed)}{did_you_mean(found, allowed)}")
