"""`cmbench sample`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench.cli import _arrays, _bulk, _classes, _former, _levels, _outputs, _ranks, _screen
from cmbench.cli._app import app
from cmbench.cli._options import (
    MOST_SAMPLES,
    N_HELP,
    Checkpoint,
    Device,
    Ema,
    GpusToShare,
    Json,
    Label,
    Run,
    RunsDir,
    Seed,
    Sigmas,
    Trust,
)
from cmbench.rundir import checkpoints, fingerprints
from cmbench.rundir.select import runs_folder, select

if TYPE_CHECKING:
    from torch import Tensor

    from cmbench.engine.weights import Trained


_USUAL = 64  # samples


@app.command("sample", cls=_former.names(save="safetensors"))
@_ranks.shared_out
def sample(
    run: Run = "@latest",
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Sampler steps, 1 if not given; a teacher takes Heun steps.")
    ] = None,
    sigmas: Sigmas = "",
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=MOST_SAMPLES, help=N_HELP)] = _USUAL,
    seed: Seed = 0,
    label: Label = None,
    ema: Ema = "",
    checkpoint: Checkpoint = "latest",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Where to write the PNG, or the numbers if FILE ends in .npy or .npz; a folder gets a PNG a sample; "
            "by default the run's samples/.",
        ),
    ] = None,
    safetensors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the samples themselves as safetensors.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=100_000, help="Samples drawn at once on each device, into a folder or an .npz.")
    ] = _bulk.USUAL,
    device: Device = "auto",
    gpus: GpusToShare = None,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Draw samples from a trained run, by default the newest with a checkpoint."""
    if label is not None:
        _classes.refuse_negative(label)
    _levels.refuse_both(steps, sigmas)
    _outputs.apart(out=out, safetensors=safetensors)
    chosen = select(run, runs_folder(runs_dir), with_checkpoint=True)

    import torch
    from safetensors.torch import save as to_safetensors

    from cmbench.engine import asking, build, memory, ranks, snapshot, weights
    from cmbench.engine.sample import default_sigmas

    place = asking.Place(chosen, checkpoints.choose(chosen, checkpoint), ema, device)
    trained = weights.load(chosen, build.device_of(device, "--device"), ema, place.step)
    lowest = build.sigma_lowest(trained.recipe)
    if sigmas:
        levels = _levels.parsed(sigmas, lowest, trained.recipe.path.sigma_max)
    else:
        levels = default_sigmas(trained.model, trained.sampler, steps or 1, lowest, trained.recipe.path.sigma_mid)
    names = _classes.names_of(chosen, trained.step, trained.classes)
    of_class = _classes.wanted(label, names, trained)
    if _bulk.is_wanted(out, chosen, trained):
        _bulk.sample(place, trained, n, batch_size, levels, seed, (of_class, names), out, safetensors, json)
        return
    labels = _labels(of_class, n, trained)
    with memory.wanted_by("--n", n):
        x = asking.draw(ranks.current(), place, trained, n, levels, seed, labels).cpu()
    if not torch.isfinite(x).all():
        _screen.complain("some samples are not finite")

    asked = {
        "n": n if n != _USUAL else "",
        "sigma": _levels.brief(levels) if sigmas else "",
        "class": of_class,
        "ema": ema,
    }
    others = "".join(f"_{key}{value}" for key, value in asked.items() if value not in ("", None))
    written = [out or chosen.samples / f"{trained.step:08d}_{len(levels)}step_seed{seed}{others}.png"]
    if out is not None:
        data = fingerprints.recorded(chosen, trained.step)
        content = _arrays.content(out, x, labels, data) if _arrays.is_wanted(out) else snapshot.to_png(x)
        _outputs.write(out, content, "--out", folders=True)
    else:
        _outputs.keep(written[0], snapshot.to_png(x), "samples")
    if safetensors is not None:
        _outputs.write(safetensors, to_safetensors({"samples": x.contiguous()}), "--safetensors", folders=True)
        written.append(safetensors)
    if json:
        about = {
            "run": chosen.name,
            "step": trained.step,
            "ema": trained.ema,
            "sigmas": levels,
            "n": n,
            "seed": seed,
            **({} if of_class is None else {"label": of_class, "class": names[of_class] if names else None}),
        }
        _screen.data({"schema": 1, **about, "files": [str(path) for path in written]})
        return
    from cmbench.cli import _picture

    _picture.show(x)
    shown = ", ".join(f"{sigma:.4g}" for sigma in levels)
    kind = "" if of_class is None else f", class {of_class}{f' ({names[of_class]})' if names else ''}"
    _screen.line(f"{chosen.name}, checkpoint {trained.step}, ema {trained.ema}, sigma {shown}{kind}")
    _screen.line(f"{n} sample{'s' * (n != 1)}: {', '.join(str(path) for path in written)}")


def _labels(of_class: int | None, n: int, trained: "Trained") -> "Tensor | None":
    from cmbench.engine.build import is_conditional
    from cmbench.engine.sample import round_robin_labels

    if not is_conditional(trained.recipe):
        return None
    return round_robin_labels(n, trained.classes) if of_class is None else round_robin_labels(n, 1) + of_class
