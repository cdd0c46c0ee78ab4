"""`cmbench edit`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbench.cli import _classes, _given_pictures, _levels, _outputs, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Checkpoint, Device, Ema, Json, Label, Run, RunsDir, Seed, Sigmas, Trust
from cmbench.errors import UsageError, did_you_mean
from cmbench.rundir import checkpoints
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select
from cmbench.text import shown

if TYPE_CHECKING:
    from torch import Tensor

    from cmbench.engine.weights import Trained

_TASKS = ("inpaint", "colourise", "upscale", "stroke", "interpolate", "denoise")
_OF_POINTS = ("inpaint", "interpolate", "denoise")
_ONE_EVALUATION = ("interpolate", "denoise")
_N, _VARIATIONS, _BETWEEN = 4, 3, 7  # pictures, results of each, and pictures from one to another
_MOST = 10_000  # pictures, and variations of each
_FACTOR = 2
_COUNT = "Number of held-out pictures, or of pairs; 4 if not given."
_RESULTS = "Results of each picture; if not given 3, and 7 from one to another."
_EACH = "Sampler steps of each result; if not given 40, and 2 from a stroke."


@dataclass(frozen=True)
class _Asked:
    """What the command line says, checked as far as it can be without a run."""

    task: str
    pictures: list[Path]
    mask: Path | None
    n: int
    variations: int
    factor: int
    steps: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        more = {"factor": self.factor} if self.task == "upscale" else {}
        return {"task": self.task, "n": self.n, "variations": self.variations, **more}


@app.command("edit")
def edit(
    run: Run = "@latest",
    task: Annotated[str, typer.Option(metavar="TASK", help=f"What to do: {', '.join(_TASKS)}.")] = "inpaint",
    picture: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A picture to edit, instead of held-out data; may be repeated."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What inpainting paints anew: a picture, white there; else the lower half."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", min=1, max=_MOST, help=_COUNT),
    ] = None,
    variations: Annotated[
        int | None,
        typer.Option(min=1, max=_MOST, help=_RESULTS),
    ] = None,
    factor: Annotated[
        int | None, typer.Option(min=2, max=1024, help="How many times larger upscaling makes a side; 2 if not given.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help=_EACH),
    ] = None,
    sigmas: Sigmas = "",
    seed: Seed = 0,
    label: Label = None,
    ema: Ema = "",
    checkpoint: Checkpoint = "latest",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the PNG; by default the run's samples/.")
    ] = None,
    device: Device = "auto",
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Edit pictures with a trained run, without training it for that."""
    if label is not None:
        _classes.refuse_negative(label)
    _levels.refuse_both(steps, sigmas)
    asked = _asked(task, picture or [], mask, n, variations, factor, steps)
    if out is not None:
        _outputs.check(out, "--out", folders=True)
    chosen = select(run, runs_folder(runs_dir), with_checkpoint=True)

    import torch

    from cmbench.engine import build, memory, snapshot, weights
    from cmbench.engine import edit as engine

    step = checkpoints.choose(chosen, checkpoint)
    trained = weights.load(chosen, build.device_of(device, "--device"), ema, step)
    _check_run(asked, trained)
    lowest = build.sigma_lowest(trained.recipe)
    if sigmas:
        levels = _levels.parsed(sigmas, lowest, trained.recipe.path.sigma_max)
        _refuse_several(asked.task, len(levels), "--sigmas")
    else:
        levels = engine.default_levels(trained, asked.task, asked.steps, lowest)
    names = _classes.names_of(chosen, trained.step, trained.classes)
    of_class = _classes.wanted(label, names, trained)
    missing = None if asked.mask is None else _given_pictures.mask(asked.mask, trained.model.shape)
    x, labels = _pictures(asked, trained, of_class)
    wanted = engine.Wanted(asked.task, levels, asked.variations, seed, asked.factor, bool(asked.pictures))
    with memory.wanted_by("--n", asked.n):
        edited = engine.edit(trained, x, wanted, missing, labels)
    if not torch.isfinite(edited.results).all():
        _screen.complain("some results are not finite")

    rows = edited.path() if asked.task == "interpolate" else edited.rows()
    is_picture = len(trained.model.shape) == 3
    shown_x = rows.flatten(0, 1) if is_picture else edited.results.flatten(0, 1)
    columns = rows.shape[1] if is_picture else None
    content = snapshot.to_png(shown_x, columns)
    about = {
        "run": chosen.name,
        "step": trained.step,
        "ema": trained.ema,
        "sigmas": levels,
        "seed": seed,
        **asked.as_dict(),
        **({} if of_class is None else {"label": of_class, "class": names[of_class] if names else None}),
    }
    if out is not None:
        _outputs.write(out, content, "--out", folders=True)
    else:
        out = _place(chosen, about, x, missing)
        _outputs.keep(out, content, "samples")
    if json:
        _screen.data({"schema": 1, **about, "columns": _columns(asked), "files": [str(out)]})
        return
    from cmbench.cli import _picture

    _picture.show(shown_x, columns)
    _screen.line(f"{chosen.name}, checkpoint {trained.step}, ema {trained.ema}, {_described(levels)}")
    _screen.line(f"{asked.task}, from the left: {_in_words(asked)}: {out}" if is_picture else f"{asked.task}: {out}")


def _asked(
    task: str,
    pictures: list[Path],
    mask: Path | None,
    n: int | None,
    variations: int | None,
    factor: int | None,
    steps: int | None,
) -> _Asked:
    """Check what needs no run.

    Raises:
        UsageError: there is no such task, or an option does not go with it.
    """
    if task not in _TASKS:
        raise UsageError(f"--task: found {shown(task)}, allowed: {', '.join(_TASKS)}{did_you_mean(task, _TASKS)}")
    if mask is not None and task != "inpaint":
        raise UsageError(f"--mask: found one, allowed for --task {task}: none; inpaint takes one")
    if factor is not None and task != "upscale":
        raise UsageError(f"--factor: found {factor}, allowed for --task {task}: none; upscale takes one")
    if pictures and n is not None:
        raise UsageError(f"--n: found {n}, allowed with --picture: none; it counts held-out pictures")
    if task == "interpolate" and pictures and len(pictures) != 2:
        raise UsageError(f"--picture: found {len(pictures)}, allowed for --task interpolate: 2, or none")
    _refuse_several(task, steps or 1, "--steps")
    least, most = {"interpolate": (2, _MOST), "denoise": (1, 1)}.get(task, (1, _MOST))
    usual = {"interpolate": _BETWEEN, "denoise": 1}.get(task, _VARIATIONS)
    if variations is not None and not least <= variations <= most:
        allowed = "1" if most == 1 else f"at least {least}"
        raise UsageError(f"--variations: found {variations}, allowed for --task {task}: {allowed}")
    count = len(pictures) // (2 if task == "interpolate" else 1) if pictures else n or _N
    return _Asked(task, pictures, mask, count, variations or usual, factor or _FACTOR, steps)


def _refuse_several(task: str, found: int, option: str) -> None:
    if task in _ONE_EVALUATION and found > 1:
        raise UsageError(f"{option}: found {found}, allowed for --task {task}: 1, for it evaluates f once")


def _check_run(asked: _Asked, trained: "Trained") -> None:
    """Refuse a task that a run's kind of data does not have.

    Raises:
        UsageError: the run learns no pictures, or none in colour, or their sides cannot be divided.
    """
    shape = trained.model.shape
    if len(shape) != 3:
        what = f"points of {shape[0]} number{'s' * (shape[0] > 1)}" if len(shape) == 1 else f"data of {len(shape)} axes"
        able = [task for task in _OF_POINTS if task != "inpaint" or shape[0] > 1]
        if asked.task not in able:
            raise UsageError(f"--task: found {asked.task}, allowed for a run of {what}: {', '.join(able)}")
        if asked.pictures or asked.mask:
            raise UsageError(f"{'--picture' if asked.pictures else '--mask'}: found one, but the run learns {what}")
        return
    channels, height, width = shape
    is_seen = channels in (1, 3)
    if asked.pictures and not is_seen:
        raise UsageError(f"--picture: found one, but the run learns latents of {channels} channels")
    if (asked.task == "colourise" and channels != 3) or (asked.task == "stroke" and not is_seen):
        able = [task for task in _TASKS if task != "colourise" and (is_seen or task != "stroke")]
        what = "grey pictures" if channels == 1 else f"latents of {channels} channels"
        raise UsageError(f"--task: found {asked.task}, allowed for a run of {what}: {', '.join(able)}")
    if asked.task == "upscale" and (height % asked.factor or width % asked.factor):
        allowed = [p for p in range(2, min(height, width) + 1) if height % p == width % p == 0]
        raise UsageError(
            f"--factor: found {asked.factor}, allowed for pictures of {width}x{height}: "
            f"{', '.join(map(str, allowed)) or 'none'}"
        )


def _pictures(asked: _Asked, trained: "Trained", of_class: int | None) -> tuple["Tensor", "Tensor | None"]:
    """Return what to edit and, for a conditional run, its labels.

    Raises:
        UsageError: a picture cannot be used, there are too few held out, or a label is missing.
    """
    import torch

    from cmbench.engine import build
    from cmbench.engine import edit as engine

    needs_label = build.is_conditional(trained.recipe) and of_class is None
    if needs_label and (asked.pictures or asked.task == "interpolate"):
        raise UsageError("--label: found none, allowed for pictures of a conditional run: a class of theirs")
    both = 2 if asked.task == "interpolate" else 1
    if asked.pictures:
        factor = asked.factor if asked.task == "upscale" else None
        x = _given_pictures.read(asked.pictures, trained.model.shape, factor)
        return x, None if of_class is None else torch.full((asked.n,), of_class)
    x, own = engine.held_out(trained, both * asked.n)
    if len(x) < both * asked.n:
        raise UsageError(f"--n: found {asked.n}, allowed for these held-out data: up to {len(x) // both}")
    if of_class is not None:
        return x, torch.full((asked.n,), of_class)
    if not needs_label:
        return x, None
    if own is None:
        raise UsageError("--label: found none, and the held-out data of the run have no labels")
    return x, own


def _place(run: RunDir, about: dict[str, Any], x: "Tensor", missing: "Tensor | None") -> Path:
    """Return the file of a result in the run's samples/: what was asked for in another way has another one."""
    digest = hashlib.sha256(to_json(about) + x.numpy().tobytes())
    if missing is not None:
        digest.update(missing.numpy().tobytes())
    return run.samples / f"{about['step']:08d}_{about['task']}_seed{about['seed']}_{digest.hexdigest()[:12]}.png"


def _columns(asked: _Asked) -> list[str]:
    if asked.task == "interpolate":
        return ["first", *["result"] * asked.variations, "second"]
    return ["original", "input", *["result"] * asked.variations]


def _in_words(asked: _Asked) -> str:
    results = f"{asked.variations} result{'s' * (asked.variations != 1)}"
    return f"first, {results}, second" if asked.task == "interpolate" else f"original, input, {results}"


def _described(levels: list[float]) -> str:
    listed = levels if len(levels) <= 4 else [*levels[:2], levels[-1]]
    texts = [f"{level:.4g}" for level in listed]
    if len(levels) > 4:
        texts.insert(2, "...")
    return f"sigma {', '.join(texts)}" + (f" ({len(levels)} steps)" if len(levels) > 4 else "")
