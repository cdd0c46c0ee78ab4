"""Films: f along the trajectories of fixed latents, and where f sends each part of the latent plane.

The inputs are the same at every snapshot of a run and follow from its recipe. Nothing here touches the randomness of
training.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cmbench.engine.consistency import Denoise, Starts, evaluating
from cmbench.engine.ranks import Ranks
from cmbench.engine.sample import latents
from cmbench.engine.snapshot import as_seen
from cmbench.equations.oracle import FinitePoints, GaussianMixture, flow, flow_through
from cmbench.equations.timesteps import karras_grid
from cmbench.model import Model
from cmbench.rundir.files import make_folder, read, write_atomically
from cmbench.rundir.layout import RunDir
from cmbench.rundir.snapshots import FILM, FIXED, PLANE, TRAJECTORIES

ROWS = 6  # latents of a film strip
_COLUMNS = 10  # noise levels
_SIDE = 40  # cells of the latent plane's side
_REACH = 3.0  # of the plane, in standard deviations of the prior
_EXACT, _OF_TEACHER = 1e-5, 1e-3  # tolerances of the flows: far finer than a pixel
_MOST_NUMBERS = 1 << 22  # in a training set whose closed form is used: one flow takes a few hundred passes over it
_MOST_DATA = 500  # points that are kept to be shown behind samples
_NOWHERE = 255  # the mode of points that are not finite

_maps: dict[tuple[object, ...], Tensor] = {}  # one for each mixture: further runs in a process need not integrate again


@dataclass(frozen=True)
class Frames:
    """The inputs of f.

    Attributes:
        trajectory: one of TRAJECTORIES: of the exact PF-ODE, of the teacher's, or none (x_0 + sigma z of fixed pairs).
        sigmas: (m,), descending noise levels.
        x: (m, n, *shape), on the EDM path.
        labels: (n,), for a conditional model.
    """

    trajectory: str
    sigmas: list[float]
    x: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Plane:
    """A grid of latents over the plane, top row first, and the modes to which the exact map sends them.

    Attributes:
        latents: (s * s, 2), sigma_max z for |z_i| < 3.
        sigma_max: their noise level.
        exact: (s, s), uint8.
        modes: returns the most likely mode of each of some points (..., 2), uint8; 255 for a non-finite point.
    """

    latents: Tensor
    sigma_max: float
    exact: Tensor
    modes: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Film:
    """The answers of a model.

    Attributes:
        f: (m, n, *shape), f(x_t, t), or D(x_t, t) for a denoiser.
        modes: (m, n), uint8, the mode of each answer; None if the data have no modes.
        sent_to: (s, s), uint8, the mode to which f sends each latent of the plane; None without a plane.
    """

    f: Tensor
    modes: Tensor | None
    sent_to: Tensor | None


class Camera:
    """Evaluates a model at fixed inputs, and keeps everything that never changes.

    Args:
        frames: the inputs.
        plane: of latents, if the data are a mixture in the plane and the model takes no labels.
        mixture: the data's mixture, if they are one.
        sigma_data: standard deviation of the data.
        is_denoiser: whether to evaluate D instead of f.
        data: (k, d), held-out points to show behind samples.
    """

    def __init__(
        self,
        frames: Frames,
        plane: Plane | None,
        mixture: GaussianMixture | None,
        sigma_data: float,
        is_denoiser: bool,
        data: Tensor | None,
    ) -> None:
        self.frames, self.plane, self._mixture = frames, plane, mixture
        self._sigma_data, self._is_denoiser, self._data = sigma_data, is_denoiser, data

    @torch.no_grad()
    def take(self, model: Model, ranks: Ranks | None = None) -> Film:
        """Evaluate a model at the inputs. Ranks share them out, and all get the answers; all must ask."""
        frames, of_model, by_rows = self.frames, model.on_edm_path(), (ranks or Ranks()).by_rows
        ask = by_rows(of_model.denoise if self._is_denoiser else of_model)
        with evaluating(model):
            m, n = frames.x.shape[:2]
            sigma = torch.tensor(frames.sigmas).to(frames.x).repeat_interleave(n)
            labels = None if frames.labels is None else frames.labels.repeat(m)
            f = ask(frames.x.flatten(0, 1), sigma, labels).view(frames.x.shape)
            sent_to = None
            if self.plane is not None:
                x = self.plane.latents
                ends = by_rows(of_model)(x, x.new_full((len(x),), self.plane.sigma_max))
                sent_to = self.plane.modes(ends).view(_SIDE, _SIDE)
        modes = None if self._mixture is None else modes_of(self._mixture, f, frames.sigmas[-1])
        return Film(f, modes, sent_to)

    def write(self, run: RunDir, step: int, film: Film) -> None:
        """Write a film as a snapshot of a step, and the fixed inputs if they are not written yet.

        Raises:
            OSError: the files cannot be written.
        """
        make_folder(run.snapshots)
        self._write_fixed(run)
        modes = {} if film.modes is None else {"modes": film.modes}
        write_atomically(run.snapshots / FILM.format(step), _saved({"f": _seen(film.f), **modes}))
        if film.sent_to is not None:
            write_atomically(run.snapshots / PLANE.format(step), _saved({"sent_to": film.sent_to}))

    def _write_fixed(self, run: RunDir) -> None:
        frames, path = self.frames, run.snapshots / FIXED
        sigmas = torch.tensor(frames.sigmas)
        scale = self._sigma_data * (sigmas.square() + self._sigma_data**2).rsqrt()  # to the deviation of the data
        tensors = {
            "trajectory": torch.tensor([TRAJECTORIES.index(frames.trajectory)], dtype=torch.uint8),
            "is_denoiser": torch.tensor([self._is_denoiser], dtype=torch.uint8),
            "sigmas": sigmas,
            "x": _seen(scale.to(frames.x).view(-1, *[1] * (frames.x.ndim - 1)) * frames.x),
        }
        if self._data is not None:
            tensors["data"] = self._data[:_MOST_DATA].float()
        if self.plane is not None:
            tensors["exact"] = self.plane.exact
        content = _saved(tensors)
        with suppress(OSError):
            if read(path) == content:
                return
        write_atomically(path, content)


def frames_along(
    model: Model,
    oracle: object,
    teacher: Denoise | None,
    labels: Tensor | None,
    starts: Callable[[], Starts],
    lowest: float,
    seed: int,
    n: int,
) -> Frames:
    """Return the inputs of f: along the trajectories of the first of the n latents from which samples are drawn.

    Args:
        model: any model with the path and range of those to be evaluated.
        oracle: of the data, if they have one. That of a large set is not used: it would take minutes.
        teacher: a denoiser D(x, sigma, labels) on the EDM path, if there is one.
        labels: (ROWS,), of the latents, for a conditional model.
        starts: pairs, used if there is neither oracle nor teacher.
        lowest: the lowest noise level that is trained.
        seed: of the latents.
        n: number of latents.
    """
    sigmas = karras_grid(_COLUMNS, lowest, model.sigma_max).flip(0).tolist()
    z = latents(model.shape, n, seed)[:ROWS].to(next(model.parameters()).device)
    labels = None if labels is None else labels[: len(z)].to(z.device)
    ways: list[tuple[str, Any, torch.dtype, float]] = []
    if _is_quick(oracle):
        ways.append((TRAJECTORIES[0], oracle.denoise, torch.float64, _EXACT))
    if teacher is not None:
        ways.append((TRAJECTORIES[1], teacher, z.dtype, _OF_TEACHER))
    for name, denoise, dtype, rtol in ways:
        with suppress(ArithmeticError), torch.no_grad():  # the integrator gave up, as for a teacher that is not finite
            x = flow_through(_typed(denoise, dtype, labels), sigmas[0] * z.double(), sigmas[0], sigmas, rtol)
            return Frames(name, sigmas, x.to(z.dtype), labels)
    x_0, own, generator = starts()
    noise = torch.randn(x_0.shape, generator=generator).to(x_0)
    return Frames(TRAJECTORIES[2], sigmas, torch.stack([x_0 + sigma * noise for sigma in sigmas]), own)


def plane_of(mixture: GaussianMixture, sigma_max: float, sigma_min: float, device: torch.device) -> Plane:
    """Return the latent plane of a mixture; its exact map is integrated once per process."""
    places = _REACH * ((torch.arange(_SIDE, dtype=torch.float64) + 0.5) / _SIDE * 2 - 1)
    y, x = torch.meshgrid(-places, places, indexing="ij")
    grid = (sigma_max * torch.stack([x, y], dim=-1)).view(-1, 2).to(device)
    own = (mixture.weights, mixture.means, mixture.variances, mixture.axes)
    key = (*(tensor.cpu().numpy().tobytes() for tensor in own), sigma_max, sigma_min)
    if key not in _maps:
        ends = flow(lambda x, sigma: mixture.denoise(x, sigma), grid, sigma_max, sigma_min, _EXACT)
        _maps[key] = modes_of(mixture, ends, sigma_min).view(_SIDE, _SIDE).cpu()
    return Plane(grid.float(), sigma_max, _maps[key], lambda x: modes_of(mixture, x, sigma_min))


def modes_of(mixture: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """Return the most likely mode of each of some points (..., 2), as uint8; 255 for a non-finite point."""
    flat = x.reshape(-1, x.shape[-1])
    found = mixture.component(flat.nan_to_num(), flat.new_full((len(flat),), sigma)).to(torch.uint8)
    return torch.where(flat.isfinite().all(dim=1), found, _NOWHERE).view(x.shape[:-1]).to(torch.uint8)


def has_plane(oracle: object, shape: tuple[int, ...]) -> TypeGuard[GaussianMixture]:
    """Return whether data have modes in a plane of latents."""
    return isinstance(oracle, GaussianMixture) and shape == (2,) and len(oracle.weights) < _NOWHERE


def is_seen(shape: tuple[int, ...]) -> bool:
    """Return whether samples of a shape can be shown in a strip: pictures, or points in two or more dimensions."""
    return len(shape) == 3 or (len(shape) == 1 and shape[0] > 1)


def _is_quick(oracle: object) -> TypeGuard[GaussianMixture | FinitePoints]:
    return isinstance(oracle, GaussianMixture) or (
        isinstance(oracle, FinitePoints) and oracle.points.numel() <= _MOST_NUMBERS
    )


def _typed(denoise: Any, dtype: torch.dtype, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, sigma: denoise(x.to(dtype), sigma.to(dtype), labels).double()


def _seen(x: Tensor) -> Tensor:
    """Return pictures as bytes, or the first two coordinates of points. (m, n, ...)."""
    if x.ndim == 5:
        x = as_seen(x.detach().flatten(0, 1))[0].unflatten(0, x.shape[:2])
        return ((x.nan_to_num().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return x.detach().float()[..., :2]


def _saved(tensors: dict[str, Tensor]) -> bytes:
    return save_safetensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
