"""The gain and the cost of a target that follows the weights slowly (Song et al. 2023, section 4)."""

import torch
from torch import Tensor, nn

from cmbench.equations import ema
from cmbench.lab._finding import Chart, Curve, Finding, Measure

SOURCE = "Song et al. 2023, section 4"
CLAIM = "an EMA of the weights filters the noise of stochastic gradients out of the target"
SETTING = "theta_k+1 = theta_k - .2 (theta_k - k drift + noise), 20,000 chains side by side, mu = 0 (no EMA) to .99"
RATE, DRIFT = 0.2, 0.01
MUS = (0.0, 0.5, 0.9, 0.95, 0.99)


def measure(chains: int = 20_000, steps: int = 1500) -> Finding:
    """Measure variance and lag of `chains` chains after `steps` steps."""
    theta, targets = _run(chains, steps)
    variances, lags = (
        [function(target) for target in targets]
        for function in (lambda x: x.var().item(), lambda x: (theta - x).mean().item())
    )
    expected, lag = [_variance(mu) for mu in MUS], [DRIFT * mu / (1 - mu) for mu in MUS]
    z_variance = max(abs(a / b - 1) * (chains / 2) ** 0.5 for a, b in zip(variances, expected, strict=True))
    spread = [(theta - target).std().item() / chains**0.5 + 1e-12 for target in targets]
    z_lag = max(abs(a - b) / s for a, b, s in zip(lags, lag, spread, strict=True))
    measures = [
        Measure("largest z-score of the target's variance against its closed form", z_variance, 4.5, relation="<="),
        Measure("largest z-score of its lag behind theta against drift mu / (1 - mu)", z_lag, 4.5, relation="<="),
        Measure(
            "mu = .99: variance over that of theta", variances[-1] / variances[0], expected[-1] / expected[0], 0.005
        ),
        Measure("mu = .99: lag in steps of drift", lags[-1] / DRIFT, 99, 1),
    ]
    memory = [1 / (1 - mu) for mu in MUS]
    curves = [
        Curve("variance, measured", memory, variances, joined=False),
        Curve("variance, closed form", memory, expected),
        Curve("squared lag, measured", memory[1:], [value**2 for value in lags[1:]], joined=False),
        Curve("squared lag, closed form", memory[1:], [value**2 for value in lag[1:]]),
    ]
    chart = Chart(
        "noise against lag", "memory 1 / (1 - mu), steps", "variance; squared lag", curves, log_x=True, log_y=True
    )
    note = (
        "The noise falls as stated. The price is a lag: while theta moves, the target is mu / (1 - mu) steps old, "
        "and beyond some mu its squared lag outweighs the variance saved."
    )
    return Finding(measures, chart, note, in_part=True)


def _run(chains: int, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Return theta and the target of every mu, (chains,) each, averaged by the package."""
    generator = torch.Generator().manual_seed(11)
    theta = nn.ParameterList([torch.zeros(chains, dtype=torch.float64)])
    targets = [nn.ParameterList([torch.zeros(chains, dtype=torch.float64)]) for _ in MUS]
    followers = [ema.Follower(target, theta) for target in targets]
    for k in range(steps):
        noise = torch.randn(chains, dtype=torch.float64, generator=generator)
        theta[0].data -= RATE * (theta[0].data - DRIFT * k + noise)
        for follower, mu in zip(followers, MUS, strict=True):
            follower.update(mu)
    return theta[0].data, [target[0].data for target in targets]


def _variance(mu: float) -> float:
    """Return the stationary variance of the EMA of an AR(1) process with coefficient rho = 1 - rate.

    Var theta = rate^2 / (1 - rho^2); Var theta_minus = Var theta (1 - mu) / (1 + mu) (1 + mu rho) / (1 - mu rho).
    """
    rho = 1 - RATE
    return RATE**2 / (1 - rho**2) * (1 - mu) / (1 + mu) * (1 + mu * rho) / (1 - mu * rho)
