"""The fingerprint of a data set, and signs that something is wrong with it, from the samples themselves."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cmbench.contracts import Data, HasContent, HasCounts, HasNames, HasScale, HasSizes, has
from cmbench.errors import UsageError
from cmbench.randomness import StepRandom, forked_seed
from cmbench.recipe import Recipe
from cmbench.rundir.fingerprints import Fingerprint
from cmbench.tables import is_own_class

_LOOKED_AT = 1024  # samples
_ASKED = 4  # samples in the test batch of a custom class
# Factor above or below sigma_data. Sets in [-1, 1] under the published .5 stay below it: CIFAR-10 has 1.0, MNIST 1.23,
# Fashion-MNIST 1.41, digits 1.5. The usual mistake lies above it: latents of Stable Diffusion, times .18215, have 1.8.
_FAR = 1.6
_ABSURD = 10  # factor beyond which no one means it: bytes that were not scaled have 140, latents without a scale 12
_BRIGHTEST = 1.01  # largest value of pictures, with room for rounding
_ALIKE = 0.05  # of sigma_data: samples that differ by less are almost all the same


def of(recipe: Recipe, data: Data) -> Fingerprint:
    """Return the fingerprint of a recipe's data, as `rundir.fingerprints` describes it."""
    sizes = data.count_and_held_out if has(data, HasSizes) else (None, None)
    found: dict[str, Any] = {"count": sizes[0], "held_out": sizes[1]}
    found |= {"shape": list(data.shape), "classes": int(data.classes)}
    names: Sequence[str] = data.names if has(data, HasNames) else ()
    counts = data.counts if has(data, HasCounts) else ()
    found |= {"names": [str(name) for name in names], "counts": list(counts)} if names else {}
    if has(data, HasScale) and (data.scale != 1 or any(data.shift)):
        found |= {"shift": list(data.shift), "scale": data.scale}
    return {**found, "content": _content(recipe, data)}


def _content(recipe: Recipe, data: Data) -> str:
    if has(data, HasContent) and isinstance(data.content, str):
        return data.content
    if not is_own_class(recipe.data["kind"]):
        return "recipe"
    found = hashlib.blake2b(digest_size=16)
    for name in ("train_sample", "held_out"):
        if (x := _some(data, name)) is None:
            return ""
        found.update(x.contiguous().numpy().tobytes())
    return f"samples1:{found.hexdigest()}"


def _some(data: Data, name: str) -> Tensor | None:
    """Return some samples as float64 on the CPU, or None if a custom class cannot provide them."""
    with torch.no_grad(), forked_seed(0):
        try:
            return getattr(data, name)(_LOOKED_AT).cpu().double()
        except Exception:  # a custom class may raise anything; an evaluation will report it
            return None


def check(recipe: Recipe, data: Data, device: torch.device) -> None:
    """Refuse a custom data set whose batches do not fit training.

    Raises:
        UsageError: samples have another shape or type, or labels are beyond the classes.
    """
    kind = recipe.data["kind"]
    if not is_own_class(kind):
        return
    try:
        with torch.no_grad(), forked_seed(0, device):
            x_0, labels = data.batch(_ASKED, StepRandom(device, recipe.seed, 0))
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"data.kind: found '{kind}', whose batch fails with {why}") from error
    if why := _unlike(x_0, [_ASKED, *data.shape], "float32", torch.float32, "x_0"):
        raise UsageError(f"data.kind: found '{kind}', whose {why}")
    if not isinstance(labels, Tensor) or labels.shape != (_ASKED,) or labels.is_floating_point():
        found = f"{list(labels.shape)} {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise UsageError(f"data.kind: found '{kind}', whose batch returns labels {found}, allowed: [n] int64")
    if not (int(labels.min()) >= 0 and int(labels.max()) < data.classes):
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise UsageError(f"data.kind: found '{kind}', whose labels are {found}, allowed: 0 to {data.classes - 1}")


def _unlike(x: object, shape: list[int], name: str, dtype: torch.dtype, what: str) -> str:
    if not isinstance(x, Tensor):
        return f"batch returns {what} of type {type(x).__name__}, allowed: a tensor"
    if list(x.shape) != shape or x.dtype != dtype:
        found = f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')}"
        scale = "; bytes become x / 127.5 - 1" if x.dtype == torch.uint8 else ""
        return f"batch returns {what} {found}, allowed: {shape} {name}{scale}"
    return "" if bool(x.isfinite().all()) else f"batch returns {what} that is not finite"


def is_far(deviation: float, sigma_data: float) -> bool:
    """Return whether a standard deviation differs much from path.sigma_data."""
    return not sigma_data / _FAR <= deviation <= sigma_data * _FAR


def refuse_absurd(recipe: Recipe, data: Data) -> None:
    """Refuse a sigma_data that cannot be meant.

    Raises:
        UsageError: it is more than ten times the standard deviation of the data, or less than a tenth.
    """
    x, found = _some(data, "train_sample"), recipe.path.sigma_data
    deviation = 0.0 if x is None or not len(x) else float(x.std(unbiased=False))
    if deviation and not found / _ABSURD <= deviation <= found * _ABSURD:
        least, most = deviation / _ABSURD, deviation * _ABSURD
        raise UsageError(
            f"path.sigma_data: found {found:g}, but the data have a standard deviation of {deviation:.3g}; allowed: "
            f"{least:.2g} to {most:.2g}, best {deviation:.2g}"
        )


def oddities(recipe: Recipe, data: Data) -> list[str]:
    """Return a line for each unusual property of the training data."""
    x = _some(data, "train_sample")
    if x is None or not len(x):
        return []
    sigma_data = recipe.path.sigma_data
    across = float(x.var(dim=0, unbiased=False).mean().sqrt())
    deviation = float(x.std(unbiased=False))
    n = f"{len(x):,} training samples"
    if across == 0 and len(x) > 1:
        return [f"data: all of {n} looked at are the same"]
    lines = []
    if across < _ALIKE * sigma_data and len(x) > 1:
        lines.append(f"data: {n} looked at are almost the same: they differ by {across:.2g} (standard deviation)")
    low, high = float(x.min()), float(x.max())
    own, is_pictures = is_own_class(recipe.data["kind"]), x.ndim == 4 and x.shape[1] in (1, 3)
    if is_pictures and (low < -_BRIGHTEST or high > _BRIGHTEST or (own and low >= 0)):
        lines.append(f"data: pictures have values from {low:.3g} to {high:.3g}; snapshots show -1 to 1")
    if is_far(deviation, sigma_data):
        lines.append(
            f"data: the standard deviation is {deviation:.3g} (values from {low:.3g} to {high:.3g}), far from "
            f"path.sigma_data = {sigma_data:g}, on which scalings and noise levels depend; path.sigma_data = "
            f"{deviation:.2g} would fit"
        )
    return lines
