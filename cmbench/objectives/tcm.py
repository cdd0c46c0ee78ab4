"""Truncated consistency training, second stage: all capacity for t >= t' (Lee et al. 2024).

f_theta is trained only for t >= t'. Below t' a frozen consistency model, the first stage, replaces it.
L = w_b E[ w d( f_theta(x_t', t'),  f_stage1(x_t', t') ) ]  on a share of the batch at the boundary t'
  +     E[ w d( f_theta(x_t, t),  sg (f_theta(x_r, r) if r >= t' else f_stage1(x_r, r)) ) ]
log t = scale T_nu truncated to [log t', log sigma_max],  r = t (1 - (1 - ratio) (1 + k sigmoid(-b t)))
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.config import Fraction, NonNegative, Positive
from cmbench.contracts import Terms
from cmbench.equations import distance, tangent, timesteps, weighting
from cmbench.errors import UsageError
from cmbench.model import Model, OnEDMPath
from cmbench.objectives._pair import Distance, Pair, Weighting
from cmbench.randomness import StepRandom

_QUANTILES = 2**14 + 1  # points of the proposal's inverse distribution function


class Config(Pair):
    """[objective] kind = "tcm"."""

    t_prime: Positive = Field(1.0, description="noise level below which the first stage stands in")
    ratio: Fraction = Field(0.999, description="r / t for large t")
    k: NonNegative = Field(8.0, description="k of 1 + k sigmoid(-b t), which widens the interval at small t")
    b: Positive = Field(1.0, description="b of it")
    nu: Positive = Field(0.01, description="degrees of freedom of the proposal")
    scale: Positive = Field(0.2, description="scale of the proposal in log t")
    boundary_share: Fraction = Field(0.25, description="share of the batch at t'")
    boundary_weight: Positive = Field(0.1, description="w_b, weight of its loss")
    distance: Distance = "norm"
    weighting: Weighting = "inverse_interval"


class Objective(nn.Module):
    """Truncated consistency training on the EDM path; the teacher is the first stage, a consistency model.

    Only the student draws samples, so the sampler must not ask for noise levels below t'.
    """

    proposal: Tensor

    paths = ("edm",)
    teacher = "consistency"
    sampler = "consistency"
    moves_nothing = True
    forwards = {"student": 3.0, "target": 1.0, "teacher": 1.0}  # noqa: RUF012

    def __init__(self, config: Config, model: Model, teacher: OnEDMPath, steps: int) -> None:
        super().__init__()
        if not 2 * model.sigma_min < config.t_prime < model.sigma_max:
            raise UsageError(
                f"objective.t_prime: found {config.t_prime}, allowed: between 2 path.sigma_min and path.sigma_max"
            )
        least = timesteps.shortest_interval(model.time_dtype)
        if 1 - config.ratio < least:
            raise UsageError(
                f"objective.ratio: found {config.ratio!r}, allowed: up to 1 - {least:.2g}, where "
                f"{str(model.time_dtype).removeprefix('torch.')} still tells t from r (path.time_precision)"
            )
        self.config = config
        self.stage_1 = lambda x, sigma, labels: teacher(x, sigma, labels)  # not part of this module's state
        self.sigma_max = model.sigma_max
        self.distance = distance.named(config.distance, model.shape, config.huber_c)
        proposal = timesteps.truncated_student_t(_QUANTILES, config.nu, config.scale, config.t_prime, model.sigma_max)
        self.register_buffer("proposal", proposal.float(), persistent=False)

    @staticmethod
    def sigma_lowest(config: Config) -> float:
        """The lowest noise level that is trained, t'."""
        return config.t_prime

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        t, in_batch = self._times(x_0, random)
        t, at_boundary = model.time(t), random.rows(in_batch)
        below = timesteps.ect_r(t, 0, 1 / (1 - cfg.ratio), cfg.k, cfg.b, "sigmoid").clamp_min(model.sigma_min)
        r = torch.where(at_boundary, t, below)
        eps = random.noise(x_0)
        x_t, x_r = model.path.x_t(x_0, eps, t), model.path.x_t(x_0, eps, r)

        with torch.no_grad():
            with random.dropout():
                f_r = model(x_r, r, labels)
            by_stage_1 = at_boundary | (r < cfg.t_prime)
            f_r = torch.where(by_stage_1.view(-1, *[1] * (x_r.ndim - 1)), self.stage_1(x_r, r, labels), f_r)
        with random.dropout():
            f_t = model(x_t, t, labels)

        loss = self.distance(f_t, f_r)
        share, B = in_batch.to(loss).mean(), len(in_batch)
        rest = (1 - share).clamp_min(1 / B)  # rounding may make share 0 or 1
        w = weighting.of_pair(cfg.weighting, t, below, model.sigma_data)  # at the boundary too, or it would not count
        weight = w * torch.where(at_boundary, cfg.boundary_weight / share.clamp_min(1 / B), 1 / rest)
        slope = torch.where(at_boundary, 0, tangent.norm(tangent.finite_difference(f_t, f_r, t, below)))
        return Terms((weight * loss).mean(), t, loss.detach(), weight, slope.detach(), r=r)

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 noise levels, evenly spaced in log t from t'."""
        return timesteps.log_edges(bins, self.config.t_prime, self.sigma_max)

    def _times(self, x_0: Tensor, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return t, and a mask over the whole batch of the boundary's samples, which are its first."""
        n, device = len(x_0), x_0.device
        u = random.draw("time", n, lambda B, generator: torch.rand(B, generator=generator, device=device))
        B = random.whole(n)
        in_batch = torch.arange(B, device=device) < round(self.config.boundary_share * B)
        t = timesteps.of_quantiles(self.proposal, u)
        return torch.where(random.rows(in_batch), self.config.t_prime, t).to(x_0.dtype), in_batch
