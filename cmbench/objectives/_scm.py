"""The common parts of sCT and sCD: the settings of every stabilisation, and algorithm 1 except for the velocity.

Lu & Song 2024, "Simplifying, stabilizing and scaling continuous-time consistency models", algorithm 1.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench import anatomy
from cmbench.config import LogDeviation, LogMean, Positive
from cmbench.contracts import Anatomy, Terms
from cmbench.equations import tangent, timesteps, weighting
from cmbench.equations.gaussian_path import like
from cmbench.equations.tangent import STEP, Method, Normalisation
from cmbench.equations.weighting import TrigWeighting
from cmbench.errors import UsageError
from cmbench.layers.log_weight import LogWeight
from cmbench.model import Model
from cmbench.randomness import StepRandom
from cmbench.tables import Warmup


class Config(Warmup):
    """[objective] kind = "sct" or "scd"."""

    idle = {"tangent_step": ("tangent_method", ("dual", "jvp"))}  # noqa: RUF012

    P_mean: LogMean = Field(-1.0, description="mean of log(sigma_data tan t) in training")
    P_std: LogDeviation = Field(1.4, description="standard deviation of log(sigma_data tan t) in training")
    tangent: Literal["rearranged", "naive"] = Field(
        "rearranged", description="rearranged: cos t sin t inside the derivative; naive: multiplied afterwards"
    )
    tangent_method: Method = Field("dual", description="of the derivative: dual, jvp or finite_difference")
    tangent_step: Positive = Field(STEP, description="step of finite_difference, in units of the tangent")
    tangent_normalisation: Normalisation = Field("l2", description="of g: l2, rms, clip (to [-1, 1]) or none")
    tangent_c: Positive = Field(0.1, description="c of g / (||g|| + c)")
    form: Literal["residual_square", "inner_product"] = Field(
        "residual_square", description="||F - F_minus - g||^2, or -2 g^T F of equal gradient"
    )
    weighting: TrigWeighting = Field("adaptive", description="adaptive: e^w_phi(t), learned; uniform; cosine: cos t")
    prior: Literal["none", "inverse_tan"] = Field(
        "none", description="inverse_tan: a further factor 1 / (sigma_data tan t), which g holds already"
    )
    reduction: Literal["mean", "sum"] = Field("mean", description="over the elements of a sample: mean or sum")


Point = tuple[Tensor, Tensor, Tensor]  # x_t (B, ...), t (B,) and dx_t/dt (B, ...)

# The stabilisations that `cmbench ablate --drop` knows, with the overrides that switch each off.
SWITCHES = {
    "identity_time": ("path.c_noise=log",),
    "low_frequency": ("network.embedding=fourier", "network.embedding_scale=16.0"),
    "adn": ("network.double_norm=false",),
    "tangent_warmup": ("objective.tangent_warmup=0",),
    "tangent_norm": ("objective.tangent_normalisation=none",),
    "rearranged": ("objective.tangent=naive",),
    "residual_square": ("objective.form=inner_product",),
    "adaptive": ("objective.weighting=uniform",),
}


class Scm(nn.Module):
    """Algorithm 1, with the velocity from `point`. Built as an `Objective`.

    Raises:
        UsageError: F is not TrigFlow's up to its sign: f is not the identity at zero, or the scalings are linear.
    """

    paths = ("trigflow",)
    sampler = "consistency"
    moves_nothing = True
    switches = SWITCHES

    def __init__(self, config: Config, model: Model, teacher: Any, steps: int) -> None:
        super().__init__()
        p, kind = model.parameterisation, type(self).__module__.rpartition(".")[2]
        if p.epsilon:
            raise UsageError(f"path.boundary: found 'sigma_min', allowed for objective '{kind}': zero")
        if p.scalings == "linear":
            raise UsageError(f"path.scalings: found 'linear', allowed for objective '{kind}': trigflow or edm")
        self.config = config
        self.w_phi = LogWeight() if config.weighting == "adaptive" else None
        self.forwards = {"student": 3.0, "tangent": tangent.FORWARDS[config.tangent_method]}
        self.path, self.sigma_min, self.sigma_max = model.path, model.sigma_min, model.sigma_max

    def point(self, model: Model, x_0: Tensor, labels: Tensor | None, random: StepRandom) -> Point:
        """Return x_t (B, ...), t (B,) and the velocity dx_t/dt (B, ...)."""
        raise NotImplementedError

    def time(self, model: Model, x_0: Tensor, random: StepRandom) -> Tensor:
        """Draw t = arctan(e^tau / sigma_data), tau ~ N(P_mean, P_std^2). (B,)."""
        cfg = self.config
        noise_levels = random.draw(
            "time", len(x_0), lambda B, generator: timesteps.log_normal(B, cfg.P_mean, cfg.P_std, generator, x_0.device)
        )
        return model.time(noise_levels)

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        x_t, t, v = self.point(model, x_0, labels, random)
        r = timesteps.warm_up(step, cfg.tangent_warmup)
        with random.dropout():
            F, g = F_and_g(cfg, model, x_t, t, v, labels, r)
        return terms(cfg, self.w_phi, F, g, t, model.sigma_data, r)

    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of df/dt for some samples x_0 (b, ...) of the batch."""
        how = (self.config.tangent_method, self.config.tangent_step)
        return anatomy.of_f(model, *self.point(model, x_0, labels, random), labels, random, *how)

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 times, evenly spaced in log(sigma_data tan t)."""
        return self.path.t_of_noise_level(timesteps.log_edges(bins, self.sigma_min, self.sigma_max))


def F_and_g(  # noqa: N802
    config: Config, model: Model, x_t: Tensor, t: Tensor, dxdt: Tensor, labels: Tensor | None, r: float
) -> tuple[Tensor, Tensor]:
    """Return F_theta(x_t / sigma_data, t) of TrigFlow, recorded, and the tangent g before normalisation.

    For cos sin dF/dt section 5.1 of the paper gives the tangents (cos sin v, cos sin sigma_data), which are too large
    by the factor sigma_data. Here they are (cos sin v / sigma_data, cos sin), as algorithm 1 needs them.
    """
    cos_sin = torch.cos(t) * torch.sin(t)
    inside = config.tangent == "rearranged"
    dt = cos_sin if inside else torch.ones_like(t)
    F, dF = model.F_and_derivative(
        x_t, t, like(dt, x_t) * dxdt, dt, labels, method=config.tangent_method, h=config.tangent_step
    )
    F, dF = -model.parameterisation.sign * F, -model.parameterisation.sign * dF
    cos_sin_dF = dF if inside else like(cos_sin, x_t) * dF
    with torch.no_grad():
        return F, tangent.trigflow(F, cos_sin_dF, x_t, dxdt, t, model.sigma_data, r)


def terms(
    config: Config, w_phi: nn.Module | None, F: Tensor, g: Tensor, t: Tensor, sigma_data: float, r: float
) -> Terms:
    """Return e^w / D ||F - F_minus - g||^2 - w with the tangent normalised. `tangent_norm` is the norm of the raw g.

    With normalisation the loss is nearly constant, as ||g|| / (||g|| + c) is nearly one. Watch the norm instead.
    """
    raw = tangent.norm(g)
    g = tangent.normalised(g, config.tangent_normalisation, config.tangent_c)
    D = F[0].numel() if config.reduction == "mean" else 1
    loss = (F - F.detach() - g).square().flatten(1).sum(dim=1) / D
    if config.form == "inner_product":  # the same gradient in theta; w_phi needs the value
        product = (g * F).flatten(1).sum(dim=1) / D
        loss = loss.detach() - 2 * (product - product.detach())
    prior = torch.ones_like(t)
    if config.prior == "inverse_tan":
        prior = 1 / (sigma_data * torch.tan(t))
    prior = prior.to(loss.dtype)
    if w_phi is not None:
        w = w_phi(t).to(loss.dtype)
        total, weight = weighting.adaptive(prior * loss, w).mean(), prior * w.detach().exp()
    else:
        weight = prior * (torch.cos(t).to(loss.dtype) if config.weighting == "cosine" else 1.0)
        total = (weight * loss).mean()
    return Terms(total, t, loss.detach(), weight, raw, {"r": r})
