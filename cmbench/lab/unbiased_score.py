"""The conditional score as an estimate of the marginal score (Song et al. 2023, lemma 1)."""

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor

from cmbench.equations import gaussian_path, pf_ode
from cmbench.equations.gaussian_path import GaussianPath
from cmbench.lab import _mixture
from cmbench.lab._finding import Chart, Curve, Finding, Measure

SOURCE = "Song et al. 2023, lemma 1"
CLAIM = "grad log p_t(x_t) = -E[(x_t - s x_0) / sigma^2 | x_t]: the conditional score is an unbiased estimate"
SETTING = (
    "a mixture of two Gaussians on the line, four paths, noise levels .05 to 20; quadrature, and draws of (x_0, eps)"
)
LEVELS = (0.05, 0.3, 1.0, 5.0, 20.0)
TESTS = {
    "1": torch.ones_like,
    "x": lambda x: x,
    "tanh 3x": lambda x: torch.tanh(3 * x),
    "cos 2x": lambda x: torch.cos(2 * x),
}


def measure(draws: int = 200_000) -> Finding:
    """Measure with `draws` draws for each path and noise level."""
    gaps, scores = [], []
    for path in _paths():
        for level in LEVELS:
            gaps.append(_quadrature_gap(path, level))
            scores += _z_scores(path, level, draws)
    measures = [
        Measure(
            "largest gap between the oracle's score and the quadrature of the conditional, relative", max(gaps), 0, 1e-8
        ),
        Measure(
            f"largest of {len(scores)} z-scores of E[h(x_t) (conditional - marginal score)]",
            max(scores),
            4.5,
            relation="<=",
        ),
    ]
    return Finding(
        measures, _chart(draws), "Unbiased given x_t, not exact: one draw has the variance Var(s x_0 | x_t) / sigma^4."
    )


def _paths() -> list[GaussianPath]:
    return [gaussian_path.named(kind, _mixture.SIGMA_DATA) for kind in ("edm", "vp", "trigflow", "linear")]


def _marginal(path: GaussianPath, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the package's score on the path, from the oracle's denoiser. (B, 1)."""
    denoised = _mixture.oracle().denoise(x_t / path.s(t)[:, None], path.noise_level(t))
    return pf_ode.score_from_denoised(denoised, x_t, t, path)


def _quadrature_gap(path: GaussianPath, level: float) -> float:
    """Return the largest gap over nine points x_t, relative to the score's root mean square, which is <= 1 / sigma."""
    x = _mixture.quantiles(level, 9)
    t = path.t_of_noise_level(torch.full((9,), level, dtype=torch.float64))
    s = path.s(t)[0].item()
    measured = _marginal(path, s * x, t)[:, 0].numpy()
    expected = np.array([_expected(s, s * level, point.item()) for point in s * x])
    return float(np.abs(measured - expected).max() / np.sqrt((expected**2).mean()))


def _expected(s: float, sigma: float, x_t: float) -> float:
    """Return -E[(x_t - s x_0) / sigma^2 | x_t] by quadrature over x_0 with Bayes' rule."""
    components = [np.asarray(a) for a in (_mixture.WEIGHTS, _mixture.MEANS, _mixture.DEVIATIONS)]

    def joint(x_0: float) -> float:
        w, m, c = components
        return float(
            (w * np.exp(-((x_0 - m) ** 2) / (2 * c**2)) / c).sum() * np.exp(-((x_t - s * x_0) ** 2) / (2 * sigma**2))
        )

    ends, peak = (-3.0, 3.0), min(max(x_t / s, -2.9), 2.9)
    places = sorted({-0.6, 0.4, peak})
    mass = quad(joint, *ends, points=places, limit=400, epsabs=0, epsrel=1e-11)[0]
    moment = quad(lambda x_0: joint(x_0) * (s * x_0 - x_t) / sigma**2, *ends, points=places, limit=400, epsabs=1e-13)[0]
    return moment / mass


def _z_scores(path: GaussianPath, level: float, draws: int) -> list[float]:
    """Return |mean| over standard error of h(x_t) (conditional - marginal score), for several functions h."""
    x_0, eps = _mixture.sample(draws, seed=1)
    t = path.t_of_noise_level(torch.full((draws,), level, dtype=torch.float64))
    x_t = path.x_t(x_0, eps, t)
    gap = pf_ode.score_from_denoised(x_0, x_t, t, path) - _marginal(path, x_t, t)
    x = x_t / path.s(t)[:, None]
    return [abs((h(x) * gap).mean() / (h(x) * gap).std() * draws**0.5).item() for h in TESTS.values()]


def _chart(draws: int, level: float = 0.3) -> Chart:
    """Draw the score at one noise level against the mean of conditional scores in bins of x_t."""
    edm = gaussian_path.EDM()
    x_0, eps = _mixture.sample(draws, seed=2)
    t = torch.full((draws,), level, dtype=torch.float64)
    x_t = edm.x_t(x_0, eps, t)
    conditional = pf_ode.score_from_denoised(x_0, x_t, t, edm)
    edges = torch.linspace(-1.4, 1.4, 29, dtype=torch.float64)
    bins = torch.bucketize(x_t[:, 0], edges)
    inside = [bins == i for i in range(1, 29)]
    x = torch.linspace(-1.4, 1.4, 113, dtype=torch.float64)
    exact = _mixture.score(x, torch.full_like(x, level))
    means = Curve(
        "mean of conditional scores",
        [x_t[i].mean().item() for i in inside],
        [conditional[i].mean().item() for i in inside],
        joined=False,
    )
    return Chart("score at noise level .3", "x_t", "score", [Curve("grad log p_t", x.tolist(), exact.tolist()), means])
