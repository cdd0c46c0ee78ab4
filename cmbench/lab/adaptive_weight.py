"""The learned weight of every time, and what it balances (Lu & Song 2024, section 4.2)."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from cmbench.equations import weighting
from cmbench.equations.gaussian_path import TrigFlow
from cmbench.equations.weighting import TrigWeighting
from cmbench.lab import _fit, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.layers.log_weight import LogWeight
from cmbench.model import Model
from cmbench.objectives import sct
from cmbench.randomness import forked_seed

SOURCE = "Lu & Song 2024, section 4.2"
CLAIM = (
    "E[e^w loss - w] is least at e^w = 1 / E[loss | t]; that balances the times and the gradient's variance over them"
)
SETTING = (
    "sCT on two coordinates N(0, .25) where F is zero: E[loss | t] = cos^2 t / 4; w_phi learned by L-BFGS on 50,000 "
    "samples"
)
D = 2
LEVELS = (0.05, 0.15, 0.5, 1.5, 5.0)


def measure(samples: int = 50_000, draws: int = 25_000) -> Finding:
    """Measure with `samples` samples for w_phi and `draws` draws at each noise level."""
    t = TrigFlow(0.5).t_of_noise_level(torch.tensor(LEVELS, dtype=torch.float64))
    loss = 0.25 * torch.cos(t).square()
    losses, gradients = zip(*(_at(level, draws) for level in LEVELS), strict=True)
    z = max(abs(x.mean() - mean).item() / (x.std().item() / draws**0.5) for x, mean in zip(losses, loss, strict=True))
    off = max(abs(_best_weight(x) + x.mean().log().item()) for x in losses)
    w_phi = _learned(samples)
    learned = w_phi(t).detach()
    uniform, adaptive = [_rms(g) for g in gradients], [_rms(_at(level, draws, w_phi)[1]) for level in LEVELS]
    log_loss = torch.stack([x.mean() for x in losses]).log()
    weighted = learned + log_loss
    measures = [
        Measure("largest z-score of E[loss | t] - cos^2 t / 4", z, 4.5, relation="<="),
        Measure("largest gap of the best w of single times to -log mean loss", off, 0, 1e-5),
        Measure("largest gap of w_phi to log 4 - 2 log cos t", (learned + loss.log()).abs().max().item(), 0, 0.15),
        Measure(
            "log of the loss over these times, largest less smallest: without weight",
            (log_loss.max() - log_loss.min()).item(),
            4,
            relation=">=",
        ),
        Measure("the same of the weighted loss", (weighted.max() - weighted.min()).item(), 0.25, relation="<="),
        Measure(
            "power of E[loss | t] that the gradient at F grows with: without weight",
            _fit.order(loss.tolist(), uniform),
            0.5,
            0.02,
        ),
        Measure("the same with the learned weight", _fit.order(loss.tolist(), adaptive), -0.5, 0.05),
    ]
    every = torch.linspace(t[0].item(), t[-1].item(), 60, dtype=torch.float64)
    exact = math.log(4) - 2 * torch.log(torch.cos(every))
    curves = [
        Curve("log 4 - 2 log cos t", every.tolist(), exact.tolist()),
        Curve("w_phi", every.tolist(), w_phi(every).tolist(), joined=False),
    ]
    note = (
        "The loss is balanced. The gradient at the network's output is not: its rms changes from loss^1/2 to "
        "loss^-1/2, as uneven as before but in the other direction. (e^w = loss^-1/2 would make it even; tangent "
        "normalisation makes the loss even.)"
    )
    return Finding(measures, Chart("the learned weight", "t", "w", curves), note, in_part=True)


class _Zero(nn.Module):
    """F_theta = a x + b t with a = b = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weights[0] * x + self.weights[1] * c_noise[:, None]


def _objective(kind: TrigWeighting, P_mean: float = -1.0, P_std: float = 1.4) -> tuple[sct.Objective, Model]:
    model = _toy.model(_Zero(), TrigFlow(0.5), 0.5, scalings="trigflow", noise="identity", D=D)
    config = sct.Config(tangent_warmup=0, tangent_normalisation="none", weighting=kind, P_mean=P_mean, P_std=P_std)
    return sct.Objective(config, model, None, 1), model


def _data(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x, eps = torch.randn(2, n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 0.5 * x, eps


def _at(level: float, draws: int, w_phi: LogWeight | None = None) -> tuple[Tensor, Tensor]:
    """Return the losses of single samples at one noise level, and the gradients of the total at their F."""
    objective, model = _objective("adaptive" if w_phi else "uniform", math.log(level), 1e-30)
    objective.w_phi = w_phi
    x_0, eps = _data(draws, seed=9)
    terms = objective.loss(model, x_0, None, 0, _toy.given(eps))
    terms.total.backward()
    assert model.last_F is not None
    assert model.last_F.grad is not None
    return terms.loss, draws * model.last_F.grad


def _rms(gradient: Tensor) -> float:
    return gradient.square().mean().sqrt().item()


def _best_weight(losses: Tensor) -> float:
    """Return the w that minimises the package's adaptive loss of these samples."""
    return float(
        minimize_scalar(lambda w: weighting.adaptive(losses, torch.full_like(losses, w)).mean().item(), (-5, 10)).x
    )


def _learned(samples: int) -> LogWeight:
    """Return the package's w_phi, learned by gradients of the objective's total on one batch of the proposal."""
    with forked_seed(3):
        objective, model = _objective("adaptive")
    assert objective.w_phi is not None
    w_phi = objective.w_phi.double()
    x_0, eps = _data(samples, seed=10)
    optimiser = torch.optim.LBFGS(
        w_phi.parameters(), max_iter=300, history_size=30, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = objective.loss(model, x_0, None, 0, _toy.given(eps)).total  # the same batch and times every time
        total.backward()
        return total

    optimiser.step(closure)
    return w_phi.requires_grad_(False)
