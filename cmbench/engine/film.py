"""What a model makes of fixed latents: f along their trajectories, and where f sends each part of the latent plane.

What is asked is the same at every snapshot of a run and follows from its recipe; nothing here touches the randomness
of training.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cmbench.engine.consistency import Denoise, Starts, evaluating
from cmbench.engine.sample import latents
from cmbench.engine.snapshot import is_pictures
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
_MOST_NUMBERS = 1 << 22  # of a training set whose closed form is asked: one flow is a few hundred passes over it
_MOST_DATA = 500  # points that are kept to be seen behind others
_NOWHERE = 255  # the mode of what is not finite

_maps: dict[tuple[object, ...], Tensor] = {}  # one for each mixture: several runs in a process need not integrate again


@dataclass(frozen=True)
class Frames:
    """Where f is asked.

    Attributes:
        trajectory: one of TRAJECTORIES: of the exact PF-ODE, of the teacher's, or none: x_0 + sigma z of fixed pairs.
        sigmas: (m,), descending noise levels.
        x: (m, n, *shape), on the EDM path.
        labels: (n,), of a conditional model.
    """

    trajectory: str
    sigmas: list[float]
    x: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Plane:
    """A grid of latents over the plane, its first row the upper one, and the modes that the exact map sends them to.

    Attributes:
        latents: (s * s, 2), sigma_max z for |z_i| < 3.
        sigma_max: their noise level.
        exact: (s, s), uint8.
        modes: of points (..., 2) which mode most likely drew each, uint8; 255 where it is not finite.
    """

    latents: Tensor
    sigma_max: float
    exact: Tensor
    modes: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Film:
    """What a model answers.

    Attributes:
        f: (m, n, *shape), f(x_t, t), or D(x_t, t) of a model that is a denoiser.
        modes: (m, n), uint8, the mode of each; None where the data have none.
        sent_to: (s, s), uint8, the mode that f sends each latent of the plane to; None where there is no plane.
    """

    f: Tensor
    modes: Tensor | None
    sent_to: Tensor | None


class Camera:
    """Asks a model at fixed places, and keeps what never changes.

    Args:
        frames: where.
        plane: of latents, where the data are a mixture in the plane and the model takes no labels.
        mixture: the data's, where they are one.
        sigma_data: their standard deviation.
        is_denoiser: whether the model is asked for D, not for f.
        data: (k, d), what points are to be like.
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
    def take(self, model: Model) -> Film:
        """Ask a model."""
        frames, of_model = self.frames, model.on_edm_path()
        ask = of_model.denoise if self._is_denoiser else of_model
        with evaluating(model):
            m, n = frames.x.shape[:2]
            sigma = torch.tensor(frames.sigmas).to(frames.x).repeat_interleave(n)
            labels = None if frames.labels is None else frames.labels.repeat(m)
            f = ask(frames.x.flatten(0, 1), sigma, labels).view(frames.x.shape)
            sent_to = None
            if self.plane is not None:
                x = self.plane.latents
                sent_to = self.plane.modes(of_model(x, x.new_full((len(x),), self.plane.sigma_max))).view(_SIDE, _SIDE)
        modes = None if self._mixture is None else modes_of(self._mixture, f, frames.sigmas[-1])
        return Film(f, modes, sent_to)

    def write(self, run: RunDir, step: int, film: Film) -> None:
        """Write a film as a snapshot of a step, beside what never changes where that is not there yet.

        Raises:
            OSError: they cannot be written.
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
    """Return where f is asked: along the trajectories of the first of n latents that samples are drawn from.

    Args:
        model: any with the path and range of those to be asked.
        oracle: of the data, where they have one. That of a large set is not asked: it would take minutes.
        teacher: a denoiser D(x, sigma, labels) of the EDM path, where there is one.
        labels: (ROWS,), of the latents, for a conditional model.
        starts: pairs, asked for want of both.
        lowest: the lowest noise level that is trained.
        seed: of the latents.
        n: of the latents.
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
        with suppress(ArithmeticError), torch.no_grad():  # the integrator gave up, as on a teacher that is not finite
            x = flow_through(_typed(denoise, dtype, labels), sigmas[0] * z.double(), sigmas[0], sigmas, rtol)
            return Frames(name, sigmas, x.to(z.dtype), labels)
    x_0, own, generator = starts()
    noise = torch.randn(x_0.shape, generator=generator).to(x_0)
    return Frames(TRAJECTORIES[2], sigmas, torch.stack([x_0 + sigma * noise for sigma in sigmas]), own)


def plane_of(mixture: GaussianMixture, sigma_max: float, sigma_min: float, device: torch.device) -> Plane:
    """Return the latent plane of a mixture, its exact map integrated where this process has not done so yet."""
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
    """Return which mode most likely drew each of some points (..., 2), as uint8; 255 where it is not finite."""
    flat = x.reshape(-1, x.shape[-1])
    found = mixture.component(flat.nan_to_num(), flat.new_full((len(flat),), sigma)).to(torch.uint8)
    return torch.where(flat.isfinite().all(dim=1), found, _NOWHERE).view(x.shape[:-1]).to(torch.uint8)


def has_plane(oracle: object, shape: tuple[int, ...]) -> TypeGuard[GaussianMixture]:
    """Return whether data have modes in a plane of latents."""
    return isinstance(oracle, GaussianMixture) and shape == (2,) and len(oracle.weights) < _NOWHERE


def is_seen(shape: tuple[int, ...]) -> bool:
    """Return whether samples of a shape can be seen in a strip: pictures, or points in the plane or beyond."""
    return (len(shape) == 3 and shape[0] in (1, 3)) or (len(shape) == 1 and shape[0] > 1)


def _is_quick(oracle: object) -> TypeGuard[GaussianMixture | FinitePoints]:
    return isinstance(oracle, GaussianMixture) or (
        isinstance(oracle, FinitePoints) and oracle.points.numel() <= _MOST_NUMBERS
    )


def _typed(denoise: Any, dtype: torch.dtype, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, sigma: denoise(x.to(dtype), sigma.to(dtype), labels).double()


def _seen(x: Tensor) -> Tensor:
    """Return pictures as bytes, and of points the first two coordinates. (m, n, ...)."""
    if is_pictures(x[0]):
        return ((x.detach().nan_to_num().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return x.detach().float()[..., :2]


def _saved(tensors: dict[str, Tensor]) -> bytes:
    return save_safetensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
