"""A generator: trained weights with their sampler and its noise levels, as a function of tensors alone.

All that a sampler computes of its noise levels are numbers here, taken from the model once. So neither paths nor clocks
are part of what is exported. With x_t = s x and the network F of one evaluation,

    f or D (x)        = c_skip x_t + c_out F(c_in x_t, c_noise, labels)
    consistency       x = sigma_0 latents; x = f_0(x); for each later evaluation k: x = f_k(x + renoise_k noise_k)
    ode               x = sigma_0 latents; Heun steps with slopes (x - D(x)) / sigma; at last D
    average_velocity  x = sigma(t_0) latents; for each evaluation: x = x - interval F(c_in x, c_noise, labels)

(Song et al. 2023, algorithm 1; Karras et al. 2022, algorithm 1; Geng et al. 2025, algorithm 2.) `equations.sampling`
has the same samplers for functions of any time; a test compares the two.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cmbench.engine.weights import Trained
from cmbench.equations.boundary import Scalings
from cmbench.errors import UsageError
from cmbench.model import Model

SAMPLERS = ("consistency", "ode", "average_velocity")


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one network evaluation.

    Attributes:
        sigma: the noise level on the EDM path.
        s: the scale of the data on the model's own path.
        c_skip, c_out, c_in: as in `equations.boundary`; of an average velocity only c_in is used.
        c_noise: the time input of the network, one number a time.
        renoise: factor on the noise that is added before it, for a later step of a consistency function.
        interval: t - r, for an average velocity.
    """

    sigma: float
    s: float
    c_skip: float
    c_out: float
    c_in: float
    c_noise: tuple[float, ...]
    renoise: float = 0.0
    interval: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All numbers of a generator.

    Attributes:
        sampler: one of SAMPLERS.
        start: factor on the latents.
        evaluations: in their order; `ode` comes back to each but the first, for the second slope of a step.
        precise: whether c_noise is in float64, not float32.
    """

    sampler: str
    start: float
    evaluations: tuple[Evaluation, ...]
    precise: bool

    @property
    def noises(self) -> int:
        """How many draws of noise the generator takes beside its latents."""
        return len(self.evaluations) - 1 if self.sampler == "consistency" else 0

    @property
    def passes(self) -> int:
        """Network evaluations of a sample."""
        return 2 * len(self.evaluations) - 1 if self.sampler == "ode" else len(self.evaluations)

    def about(self) -> dict[str, Any]:
        """Return it as JSON."""
        own = asdict(self)
        del own["precise"]
        return {**own, "time_precision": "float64" if self.precise else "float32"}


def plan(trained: Trained, sigmas: Sequence[float]) -> Plan:
    """Return the numbers of a sampler for descending noise levels.

    Raises:
        UsageError: the objective has a sampler of its own.
    """
    model, sampler = trained.model, trained.sampler
    if sampler not in SAMPLERS:
        raise UsageError(
            f"objective.kind: found '{trained.recipe.objective['kind']}', which samples by '{sampler}' and cannot be "
            f"exported; allowed: objectives that sample by {', '.join(SAMPLERS)}"
        )
    times = [model.time(torch.tensor([sigma])) for sigma in sigmas]
    if sampler == "average_velocity":
        each = [
            _evaluation(model, sigma, t, r, "F")
            for sigma, (t, r) in zip(sigmas, pairwise([*times, torch.zeros_like(times[0])]), strict=True)
        ]
        start = model.path.sigma(times[0]).item()
    else:
        function = "D" if sampler == "ode" else "f"
        each = [
            _evaluation(model, sigma, t, None, function, later=k > 0)
            for k, (sigma, t) in enumerate(zip(sigmas, times, strict=True))
        ]
        start = float(sigmas[0])
    return Plan(sampler, start, tuple(each), times[0].dtype == torch.float64)


def _evaluation(
    model: Model, sigma: float, t: Tensor, r: Tensor | None, function: str, later: bool = False
) -> Evaluation:
    p = model.parameterisation
    one = torch.ones_like(t)
    scalings = {"f": p.of_f, "D": p.of_D, "F": lambda t: Scalings(0 * one, one, p.c_in(t))}[function](t)
    # a denoiser of two times uses r = t: the velocity at t itself, as `Model.denoise` does
    c_noise = model.c_noise(t, t if function == "D" and model.times == 2 else r)
    c_skip, c_out, c_in = (own.item() for own in scalings)
    return Evaluation(
        sigma=float(sigma),
        s=(one if function == "F" else model.path.s(t)).item(),
        c_skip=c_skip,
        c_out=c_out,
        c_in=c_in,
        c_noise=tuple(c_noise.flatten().tolist()),
        renoise=math.sqrt(sigma**2 - p.epsilon**2) if later else 0.0,
        interval=0.0 if r is None else (t - r).item(),
    )


class Generator(nn.Module):
    """Samples (B, *shape) as a function of latents (B, *shape) ~ N(0, I), and of what else the plan and network take.

    Args:
        F_theta: the raw network, which runs in float32.
        plan: its numbers.
    """

    def __init__(self, F_theta: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.F_theta, self.plan = F_theta, plan
        dtype = torch.float64 if plan.precise else torch.float32
        for k, own in enumerate(plan.evaluations):
            self.register_buffer(f"c_noise_{k}", torch.tensor([own.c_noise], dtype=dtype), persistent=False)

    def forward(self, latents: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Return samples.

        Args:
            latents: (B, *shape).
            labels: (B,) int64, of a conditional network.
            noise: (B, steps - 1, *shape), the noise of each later step of a consistency function.
        """
        x = self.plan.start * latents
        if self.plan.sampler == "average_velocity":
            for k, own in enumerate(self.plan.evaluations):
                x = x - own.interval * self._F(k, own.c_in * x, labels)
            return x
        if self.plan.sampler == "ode":
            return self._ode(x, labels)
        for k, own in enumerate(self.plan.evaluations):
            if k and noise is not None:
                x = x + own.renoise * noise[:, k - 1]
            x = self._combined(k, x, labels)
        return x

    def _ode(self, x: Tensor, labels: Tensor | None) -> Tensor:
        sigmas = [own.sigma for own in self.plan.evaluations]
        for k, (sigma, lower) in enumerate(pairwise(sigmas)):
            slope = (x - self._combined(k, x, labels)) / sigma
            below = x + (lower - sigma) * slope
            after = (below - self._combined(k + 1, below, labels)) / lower
            x = x + (lower - sigma) * 0.5 * (slope + after)
        return self._combined(len(sigmas) - 1, x, labels)

    def _combined(self, k: int, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return c_skip x_t + c_out F, with x_t = s x, by the numbers of evaluation k."""
        own = self.plan.evaluations[k]
        x_t = own.s * x
        return own.c_skip * x_t + own.c_out * self._F(k, own.c_in * x_t, labels)

    def _F(self, k: int, x: Tensor, labels: Tensor | None) -> Tensor:  # noqa: N802
        c_noise = getattr(self, f"c_noise_{k}").expand(x.shape[0], -1)  # len() would fix it
        return self.F_theta(x, c_noise[:, 0] if c_noise.shape[1] == 1 else c_noise, labels)


def of(trained: Trained, sigmas: Sequence[float]) -> Generator:
    """Return the generator of trained weights for descending noise levels, in float32 whatever the run's precision.

    Raises:
        UsageError: as `plan`.
    """
    F_theta = copy.deepcopy(trained.model.F_theta).eval().requires_grad_(False)
    return Generator(F_theta, plan(trained, sigmas)).eval()


def in_float32(model: Model) -> Model:
    """Return the model with F_theta in float32: what a generator is compared with. It shares the weights."""
    alike = copy.copy(model)
    alike.autocast = None
    return alike
