"""Edit pictures with trained weights: what each task is given, at which noise levels, and what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from cmbench.contracts import HasHeldOutLabels, has
from cmbench.engine import build
from cmbench.engine.weights import Trained
from cmbench.equations import editing, sampling, timesteps
from cmbench.equations.editing import Transform
from cmbench.finite import as_float
from cmbench.model import Model
from cmbench.randomness import StepRandom

_STEPS = 40  # of algorithm 4, as in openai/consistency_models
_PAINTED = 2  # steps from a painting (Song et al. 2023, appendix D: at 5.38 and 2.24)
_ODE_STEPS = 18  # Heun's, for f of a diffusion model, and up to a latent (Karras et al. 2022, CIFAR-10: 18)
_AT_ONCE = 1024  # pictures
_COLOURS, _BRUSH = 6, 23 / 256  # of a painting, and its filter's side over a picture's (Meng et al. 2022)


@dataclass(frozen=True)
class Wanted:
    """What to do.

    Attributes:
        task: inpaint, colourise, upscale, stroke, interpolate or denoise.
        levels: descending noise levels, those of `default_levels` or others.
        variations: results of each picture; for "interpolate" pictures from the first to the second.
        seed: of all noise. A result depends on the seed and its place, not on how many are made.
        factor: for "upscale", the side of the patches whose means are known.
        is_given: the pictures are already what the task starts from: paintings, noisy ones.
    """

    task: str
    levels: Sequence[float]
    variations: int
    seed: int = 0
    factor: int = 2
    is_given: bool = False


@dataclass(frozen=True)
class Edited:
    """Pictures before and after, (n, ...) each; results (n, variations, ...).

    For "interpolate", `original` and `given` are the two ends.
    """

    original: Tensor
    given: Tensor
    results: Tensor

    def rows(self) -> Tensor:
        """Return all side by side, (n, variations + 2, ...)."""
        return torch.cat([self.original[:, None], self.given[:, None], self.results], dim=1)

    def path(self) -> Tensor:
        """Return the same with the second end at the end."""
        return torch.cat([self.original[:, None], self.results, self.given[:, None]], dim=1)


def default_levels(trained: Trained, task: str, steps: int | None, lowest: float) -> list[float]:
    """Return the noise levels of a task.

    Args:
        trained: the weights.
        task: as in `Wanted`.
        steps: their number; None takes the task's own.
        lowest: the lowest noise level that was trained; all are above it.
    """
    path = trained.recipe.path
    if task in ("inpaint", "colourise", "upscale"):
        return sampling.consistency_sigmas(steps or _STEPS, lowest, path.sigma_max)
    if task == "interpolate" and trained.sampler != "consistency":
        return [path.sigma_max]
    start = path.sigma_data if task == "interpolate" else 0.5 * path.sigma_data
    start = min(max(start, 2 * lowest), path.sigma_max)
    return sampling.consistency_sigmas(steps or _PAINTED, lowest, start) if task == "stroke" else [start]


def missing_by_default(shape: tuple[int, ...]) -> Tensor:
    """Return what inpainting paints anew without a mask: the lower half, of points the later coordinates. (1, ...)."""
    missing = torch.zeros((1, 1, *shape[1:]) if len(shape) == 3 else (1, *shape), dtype=torch.bool)
    axis = -2 if len(shape) == 3 else -1
    missing.narrow(axis, missing.shape[axis] // 2, missing.shape[axis] - missing.shape[axis] // 2).fill_(True)
    return missing


def held_out(trained: Trained, n: int) -> tuple[Tensor, Tensor | None]:
    """Return up to n held-out samples (n, ...) of a run's data, and their labels (n,) where they have some.

    Raises:
        UsageError: the data cannot be read.
    """
    data = build.data(trained.recipe, torch.device("cpu"))
    return data.held_out(n), data.held_out_labels(n) if has(data, HasHeldOutLabels) else None


def edit(
    trained: Trained, x: Tensor, wanted: Wanted, missing: Tensor | None = None, labels: Tensor | None = None
) -> Edited:
    """Edit pictures or points x (n, ...); for "interpolate" x (2 n, ...) are pairs, one after the other.

    Args:
        trained: the weights, of any objective.
        x: on any device.
        wanted: what to do.
        missing: what inpainting paints anew, (1, 1, H, W) or (1, d); None takes `missing_by_default`.
        labels: (n,), for a conditional model.
    """
    parts = []
    both = 2 if wanted.task == "interpolate" else 1
    for start in range(0, len(x) // both, _AT_ONCE):
        own = None if labels is None else labels[start : start + _AT_ONCE]
        rows = x[both * start : both * (start + _AT_ONCE)]
        parts.append(_edit_chunk(trained, rows, wanted, missing, own, start))
    tensors = zip(*((part.original, part.given, part.results) for part in parts), strict=True)
    return Edited(*(torch.cat(each).cpu() for each in tensors))


def _edit_chunk(
    trained: Trained, x: Tensor, wanted: Wanted, missing: Tensor | None, labels: Tensor | None, start: int
) -> Edited:
    model, task = trained.model, wanted.task
    device = next(model.parameters()).device
    x, labels = x.to(device), None if labels is None else labels.to(device)
    times = [model.time(torch.tensor([level], device=device)) for level in wanted.levels]
    f = consistency(trained, labels)
    if task == "interpolate":
        return _interpolated(trained, f, x[::2], x[1::2], times[0], wanted, labels, start)
    if task == "denoise":
        z = _noise(x, wanted.seed, 0, start)()
        given = x if wanted.is_given else x + wanted.levels[0] * z
        x_t = given * _scale(model, times[0], x)
        with torch.no_grad():
            return Edited(x, given, f(x_t, times[0].expand(len(x)))[:, None])
    epsilon = model.parameterisation.epsilon
    draws = (_noise(x, wanted.seed, k, start) for k in range(wanted.variations))
    if task == "stroke":
        given = x if wanted.is_given else painting(x)
        results = [editing.painted(f, given, times, model.path, epsilon, draw) for draw in draws]
    else:
        transform = _transform(task, x, wanted.factor, missing)
        given = editing.grey(x) if task == "colourise" else transform.merged(x, 0.0)
        results = [editing.edited(f, given, transform, times, model.path, epsilon, draw) for draw in draws]
    return Edited(x, given, torch.stack(results, dim=1))


def _transform(task: str, x: Tensor, factor: int, missing: Tensor | None) -> Transform:
    if task == "colourise":
        return editing.colourisation()
    if task == "upscale":
        return editing.superresolution(factor)
    return editing.inpainting(missing_by_default(tuple(x.shape[1:])) if missing is None else missing)


def _interpolated(
    trained: Trained,
    f: editing.Consistency,
    first: Tensor,
    second: Tensor,
    t: Tensor,
    wanted: Wanted,
    labels: Tensor | None,
    start: int,
) -> Edited:
    """Interpolate by latents with noise, or by the PF-ODE if the model knows its velocity."""
    model = trained.model
    if trained.sampler == "consistency":
        z = _noise(first, wanted.seed, 0, start)()
        z_1, z_2 = (editing.latents_by_noise(x, z, t, model.path) for x in (first, second))
    else:
        D = _denoiser(model, labels)
        up = _grid(model, wanted.levels[0])
        z_1, z_2 = (editing.latents_by_ode(D, x, up, model.path) for x in (first, second))
    shares = torch.linspace(0, 1, wanted.variations, dtype=torch.float64).tolist()
    return Edited(first, second, editing.interpolated(f, z_1, z_2, shares, t).transpose(0, 1))


def consistency(trained: Trained, labels: Tensor | None) -> editing.Consistency:
    """Return f (x_t, t) -> x_0 on the model's path, whatever its objective: a diffusion model's f is its PF-ODE's flow.

    A network of average velocities has f = x_t - t u(x_t, t, 0), which the model's f is.
    """
    model = trained.model
    if trained.sampler != "ode":
        return lambda x_t, t: model(x_t, t, labels)

    def flow(x_t: Tensor, t: Tensor) -> Tensor:
        sigma = float(model.path.noise_level(t[:1].double()))
        at = x_t / _scale(model, t[:1], x_t)
        return sampling.heun_ode(_denoiser(model, labels), at / sigma, _grid(model, sigma)[::-1])

    return flow


def _denoiser(model: Model, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    on_edm_path = model.on_edm_path()
    return lambda x, sigma: on_edm_path.denoise(x, sigma, labels)


def _grid(model: Model, sigma: float) -> list[float]:
    """Return ascending noise levels of Heun's steps, from the lowest to sigma, which is above it."""
    return timesteps.karras_grid(_ODE_STEPS, model.sigma_min, sigma).tolist()


def _scale(model: Model, t: Tensor, x: Tensor) -> Tensor:
    return model.path.s(t).to(x.dtype).reshape(-1, *([1] * (x.ndim - 1)))


def _noise(x: Tensor, seed: int, variation: int, start: int) -> Callable[[], Tensor]:
    """Return what draws z ~ N(0, I) like x anew each time, on the CPU: equal on every device.

    Each picture has draws of its own, by its place from `start`: those beside it do not matter.
    """
    own = StepRandom(torch.device("cpu"), seed, variation)
    generators = [own.generator(f"edit {start + i}") for i in range(len(x))]
    return lambda: torch.stack([torch.randn(x.shape[1:], generator=each) for each in generators]).to(x)


def painting(x: Tensor) -> Tensor:
    """Return pictures as if painted with a thick brush in six colours: a median filter and a palette. (n, C, H, W).

    This simulates strokes as SDEdit does (Meng et al. 2022): a median filter of side 23 of 256 pixels, 6 colours.
    """
    brush = max(3, 2 * round(_BRUSH * min(x.shape[-2:]) / 2) + 1)
    mode = "L" if x.shape[1] == 1 else "RGB"
    painted = []
    for picture in as_bytes(x):
        image = Image.fromarray(picture[..., 0] if mode == "L" else picture)
        smooth = image.filter(ImageFilter.MedianFilter(brush))
        painted.append(np.asarray(smooth.quantize(_COLOURS).convert(mode)).reshape(picture.shape))
    return of_bytes(np.stack(painted).transpose(0, 3, 1, 2)).to(x.device)


def as_bytes(x: Tensor) -> np.ndarray:
    """Return pictures (n, C, H, W) in [-1, 1] as bytes, (n, H, W, C)."""
    return ((x.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def of_bytes(pictures: np.ndarray) -> Tensor:
    """Return bytes (n, C, H, W) as pictures in [-1, 1]."""
    return as_float(torch.from_numpy(np.ascontiguousarray(pictures)))
