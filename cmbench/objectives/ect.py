"""Easy consistency tuning: continuous times with an interval that shrinks in stages (Geng et al. 2024).

L = E[ w d( f_theta(x_0 + t eps, t),  sg f_theta(x_0 + r eps, r) ) ],   log t ~ N(P_mean, P_std^2)
r = max(0, t (1 - n(t) / q^(stage + 1))); at r = 0 the target is x_0, which is diffusion training
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.config import LogDeviation, LogMean, NonNegative, Positive, PositiveInt
from cmbench.contracts import Terms
from cmbench.equations import distance, timesteps
from cmbench.equations.timesteps import Adjustment
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.objectives import _pair
from cmbench.objectives._pair import Distance, Pair, Weighting
from cmbench.randomness import StepRandom


class Config(Pair):
    """[objective] kind = "ect"."""

    idle = {**Pair.idle, "k": ("adjustment", ("constant",)), "b": ("adjustment", ("constant",))}  # noqa: RUF012

    P_mean: LogMean = Field(-1.1, description="mean of log sigma in training")
    P_std: LogDeviation = Field(2.0, description="standard deviation of log sigma in training")
    q: float = Field(2.0, gt=1, description="factor by which t - r shrinks from stage to stage")
    stages: PositiveInt = Field(8, description="stages, of equal length")
    adjustment: Adjustment = Field("sigmoid", description="n(t): sigmoid, 1 + k sigmoid(-b t), or constant, 1")
    k: NonNegative = Field(8.0, description="k of the sigmoid adjustment")
    b: Positive = Field(1.0, description="b of the sigmoid adjustment")
    distance: Distance = "norm"
    weighting: Weighting = "inverse_interval"


class Objective(nn.Module):
    """Easy consistency tuning on the EDM path.

    With path.boundary = "zero" f is the identity at 0, as in the paper. With "sigma_min" r is at least epsilon, where
    the target is x_r itself by the boundary condition. Times below 2 epsilon are raised to 2 epsilon.
    The authors' code trains with "zero" but samples with the scalings of "sigma_min"; here both use the same scalings.
    """

    paths = ("edm",)
    teacher = "none"
    sampler = "consistency"
    moves_nothing = True
    forwards = {"student": 3.0, "target": 1.0}  # noqa: RUF012

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        self.config, self.K = config, steps
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.distance = distance.named(config.distance, model.shape, config.huber_c)
        self._check_interval(model.time_dtype)

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg, epsilon = self.config, model.parameterisation.epsilon
        t = random.draw(
            "time", len(x_0), lambda B, generator: timesteps.log_normal(B, cfg.P_mean, cfg.P_std, generator, x_0.device)
        )
        t = model.time(t.to(x_0.dtype)).clamp_min(2 * epsilon)
        r = self.r(t, step).clamp_min(epsilon)
        eps = random.noise(x_0)
        x_t, x_r = model.path.x_t(x_0, eps, t), model.path.x_t(x_0, eps, r)

        with random.dropout(), torch.no_grad():
            inside = r > epsilon
            f_r = torch.where(
                inside.view(-1, *[1] * (x_r.ndim - 1)), model(x_r, torch.where(inside, r, t), labels), x_r
            )
        with random.dropout():
            f_t = model(x_t, t, labels)
        return _pair.terms(cfg, self.distance, (f_t, f_r), (t, r), model.sigma_data, {"stage": self.stage(step)})

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 noise levels, evenly spaced in log sigma."""
        return timesteps.log_edges(bins, self.sigma_min, self.sigma_max)

    def stage(self, step: int) -> int:
        """Return the stage of a step, counted from 0."""
        return timesteps.ect_stage(step, self.K, self.config.stages)

    def r(self, t: Tensor, step: int) -> Tensor:
        """Return the other end of the interval at a step. (B,) -> (B,)."""
        cfg = self.config
        return timesteps.ect_r(t, self.stage(step), cfg.q, cfg.k, cfg.b, cfg.adjustment)

    def _check_interval(self, dtype: torch.dtype) -> None:
        """Refuse a last stage whose interval at large t, t / q^(stage + 1), is below the resolution of a dtype."""
        cfg, powers, most = self.config, self.stage(self.K - 1) + 1, 1 / timesteps.shortest_interval(dtype)
        if powers * math.log(cfg.q) > math.log(most):
            raise UsageError(
                f"objective.q: found {cfg.q:g}, allowed: up to {most ** (1 / powers):.4g} for {powers} stages, where "
                f"{str(dtype).removeprefix('torch.')} still tells t from r (path.time_precision, objective.stages)"
            )
