"""A network of five numbers, the paths, and derivatives in time: formulas written apart from the package."""

import numpy as np
import torch
from torch import nn

WEIGHTS = (2.7, 1.3, 0.4, 0.3, -0.2)  # a, b, c, d, e; with a = 2.7 outputs go far beyond the data's range


def leaf(weights=WEIGHTS):
    return torch.tensor(weights, dtype=torch.float64, requires_grad=True)


def F(weights, x, c_noise, labels=None):  # noqa: N802
    """a tanh(b x + c c_noise + d label); for two times c_noise (B, 2), c of the first and e of the second."""
    a, b, c, d, e = weights
    shift = c * c_noise if c_noise.ndim == 1 else c * c_noise[:, 0] + e * c_noise[:, 1]
    if labels is not None:
        shift = shift + d * labels
    return a * torch.tanh(b * x + shift.view(-1, *[1] * (x.ndim - 1)))


class Tiny(nn.Module):
    """F_theta(x, c_noise, labels) = F in double precision."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([*weights, *WEIGHTS[len(weights) :]], dtype=torch.float64))

    def forward(self, x, c_noise, labels):
        return F(self.weights, x, c_noise, labels)


def vp_exponent(t):
    """Integral of beta from .1 to 20."""
    return 0.1 * t + 9.95 * t.square()


# s(t) and sigma(t); sigma_data is one half.
PATHS = {
    "edm": (lambda t: 1 + 0 * t, lambda t: t),
    "vp": (lambda t: torch.exp(-vp_exponent(t) / 2), lambda t: torch.sqrt(-torch.expm1(-vp_exponent(t)))),
    "trigflow": (torch.cos, lambda t: 0.5 * torch.sin(t)),
    "linear": (lambda t: 1 - t, lambda t: t),
}


def column(t):
    return t[:, None]


def plain(recorded):
    """Return an argument that a hook saw as an ordinary tensor: within a dual pass it carries its derivative."""
    return getattr(recorded, "primal", recorded)


def network_input(path, scalings, noise, x, t):
    """Return c_in x and c_noise."""
    s, sigma = (value(t) for value in PATHS[path])
    size = s + sigma if scalings == "linear" else torch.sqrt(sigma**2 + 0.25 * s**2)
    c_noise = {"identity": t, "angle": torch.atan(2 * sigma / s), "log": torch.log(sigma / s) / 4}[noise]
    return x / column(size), c_noise


def combine(path, scalings, epsilon, x, t, output):
    """Return the consistency function of an output of the network: that of x_t / s and sigma / s on the EDM path."""
    s, sigma = (column(value(t)) for value in PATHS[path])
    x, n = x / s, sigma / s
    if scalings == "linear":
        return (x - n * output) / (1 + n)
    sign = 1 if scalings == "edm" else -1
    return 0.25 / ((n - epsilon) ** 2 + 0.25) * x + sign * 0.5 * (n - epsilon) / torch.sqrt(n**2 + 0.25) * output


def f(weights, path, scalings, noise, epsilon, x, t, labels=None):
    """Return the consistency function around F."""
    output = F(weights, *network_input(path, scalings, noise, x, t), labels)
    return combine(path, scalings, epsilon, x, t, output)


def derivative(function, t):
    """Return the derivative of function(t), (B,) -> (B, ...), sample by sample."""
    with torch.enable_grad():
        t = t.detach().clone().requires_grad_(True)
        out = function(t)
        rows = [torch.autograd.grad(part.sum(), t, retain_graph=True)[0] for part in out.reshape(len(t), -1).unbind(1)]
    return torch.stack(rows, dim=1).view_as(out)


def karras(N, rho=7.0, low=0.002, high=80.0):
    low, high = low ** (1 / rho), high ** (1 / rho)
    return np.array([(low + i / (N - 1) * (high - low)) ** rho for i in range(N)])


def neighbours(t, grid):
    """Return the level below each t on a grid, having checked that t is on it."""
    index = np.searchsorted(grid * (1 + 1e-9), t.numpy())
    np.testing.assert_allclose(t, grid[index], rtol=1e-12)
    return torch.from_numpy(grid[index - 1])


def distance(kind, x, y, c=0.05):
    square = (x - y).square()
    if kind == "l2":
        return square.mean(dim=1)
    return torch.sqrt(square.sum(dim=1) + c**2) - c if kind == "pseudo_huber" else torch.sqrt(square.sum(dim=1))


def pair_weight(kind, t, r):
    return {"uniform": torch.ones_like(t), "edm": 1 / t**2 + 4, "inverse_interval": 1 / (t - r)}[kind]


def assert_terms(terms, model, weights, total, **parts):
    """Terms, and the gradient of their total in the toy's weights, are those of a formula in `weights`."""
    (expected,) = torch.autograd.grad(total, weights)
    torch.testing.assert_close(terms.total, total, rtol=1e-9, atol=0)
    for name, value in parts.items():
        torch.testing.assert_close(getattr(terms, name), value.detach(), rtol=1e-9, atol=1e-12)
    model.zero_grad()
    terms.total.backward()
    torch.testing.assert_close(model.F_theta.weights.grad, expected, rtol=1e-9, atol=1e-12)


class Gaussian:
    """The exact denoiser of N(.2 + .1 label, .4^2), which keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def denoise(self, x, sigma, labels=None):
        self.asked.append((x, sigma, labels))
        mean = 0.2 if labels is None else 0.2 + 0.1 * labels[:, None].to(x)
        return mean + (x - mean) * (0.16 / (0.16 + sigma.square()))[:, None]
