"""`cmbench sample --out FOLDER` or `FILE.npz`: many pictures, in batches, taken up again where they were ended."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from cmbench.cli import _progress, _screen
from cmbench.errors import STOPPED, CmbenchError, StoppedError, UsageError
from cmbench.rundir import checkpoints, fingerprints
from cmbench.rundir.layout import RunDir

if TYPE_CHECKING:
    from cmbench.engine.asking import Place
    from cmbench.engine.weights import Trained

USUAL = 64  # samples of a batch; EDM's generate.py takes as many


def is_wanted(out: Path | None, run: RunDir, trained: "Trained") -> TypeGuard[Path]:
    """Return whether samples go, batch by batch, into a folder, or into an .npz of pictures.

    A folder is one that is there, or a new name without a suffix. Other numbers of an .npz keep the units of their
    data, and are drawn at once.

    Raises:
        UsageError: samples that are no pictures should go into a folder.
    """
    from cmbench.engine import bulk

    if out is None:
        return False
    own = fingerprints.recorded(run, trained.step)
    in_own_units = bool(any(own.get("shift") or [])) or (own.get("scale") or 1.0) != 1
    is_pictures = bulk.takes(trained.model.shape) and not in_own_units
    try:
        is_folder = out.is_dir() or not (out.suffix or out.exists())
    except (OSError, ValueError):
        return False  # `_outputs` says why
    if is_folder and not is_pictures:
        what = f"samples of shape {list(trained.model.shape)}{' in units of their own' if in_own_units else ''}"
        raise UsageError(f"--out {out}: cannot be written: a folder takes pictures of one or three colours, not {what}")
    return is_folder or (is_pictures and out.suffix.lower() == ".npz")


def sample(
    place: "Place",
    trained: "Trained",
    n: int,
    batch_size: int,
    sigmas: list[float],
    seed: int,
    of_class: tuple[int | None, list[str]],
    out: Path,
    safetensors: Path | None,
    json: bool,
) -> None:
    """Draw samples into their place, and say so.

    Raises:
        UsageError: the place was begun otherwise, or cannot be written.
        StoppedError: there is no room on the disk.
    """
    from cmbench.engine import build, bulk, ranks
    from cmbench.progress import told

    label, names = of_class
    weights = (checkpoints.checksums(place.run, trained.step) or {}).get(checkpoints.group_of(trained.ema), "")
    classes = trained.classes if build.is_conditional(trained.recipe) else 0
    numbers = str(safetensors) if safetensors else ""
    wanted = bulk.Wanted(n, batch_size, sigmas, seed, classes, label, weights, str(out), numbers)
    work = bulk.Bulk(ranks.current(), place, trained, wanted)
    there, since = work.done, time.monotonic()
    try:
        with _progress.shown(), told().counting("sampling", n, there, "images") as count:
            bad = work.draw(count)
    except CmbenchError as error:
        if error.exit_code != STOPPED:
            raise
        raise StoppedError(f"{error}; {_kept(work.done, n)}") from None
    except KeyboardInterrupt:
        _screen.complain(_kept(work.done, n))
        raise
    seconds, drawn = time.monotonic() - since, n - there
    if bad:
        _screen.complain(f"{bad:,} samples are not finite")
    files = [str(path) for path in (out, safetensors) if path is not None]
    if json:
        about = {"run": place.run.name, "step": trained.step, "ema": trained.ema, "sigmas": sigmas, "n": n}
        named = {} if label is None else {"label": label, "class": names[label] if names else None}
        spent = {"drawn": drawn, "seconds": seconds, "not_finite": bad}
        _screen.data({"schema": 1, **about, "seed": seed, **named, **spent, "files": files})
        return
    shown = ", ".join(f"{sigma:.4g}" for sigma in sigmas)
    kind = "" if label is None else f", class {label}{f' ({names[label]})' if names else ''}"
    _screen.line(f"{place.run.name}, checkpoint {trained.step}, ema {trained.ema}, sigma {shown}{kind}")
    before = f", {there:,} of them from before" if there else ""
    speed = f", {drawn / max(seconds, 1e-9):,.3g} images/s" if drawn else ""
    _screen.line(f"{n:,} sample{'s' * (n != 1)}: {', '.join(files)}{before}{speed}")


def _kept(done: int, n: int) -> str:
    return f"{done:,} of {n:,} samples are there; the same command goes on"
