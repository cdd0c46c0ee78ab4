import math

import numpy as np
import pytest
import torch

from cmbench.equations import oracle
from cmbench.equations.oracle import FinitePoints, GaussianMixture


def double(values):
    return torch.tensor(values, dtype=torch.float64)


WEIGHTS_1D, MEANS_1D, DEVIATIONS_1D = double([0.3, 0.7]), double([[-0.6], [0.4]]), double([0.15, 0.25])
WEIGHTS_2D = double([0.5, 0.3, 0.2])
MEANS_2D = double([[0.0, 0.2], [-1.0, 0.6], [0.8, -0.5]])
COVARIANCES_2D = double([[[0.25, 0.1], [0.1, 0.09]], [[0.04, -0.03], [-0.03, 0.06]], [[0.5, 0.3], [0.3, 0.4]]])


@pytest.fixture
def line():
    return GaussianMixture(WEIGHTS_1D, MEANS_1D, DEVIATIONS_1D.square()[:, None, None])


@pytest.fixture
def plane():
    return GaussianMixture(WEIGHTS_2D, MEANS_2D, COVARIANCES_2D)


def normal(x, mean, covariance):
    """Density of N(mean, covariance) at x (..., d)."""
    y = x - mean
    exponent = -0.5 * np.einsum("...d,de,...e->...", y, np.linalg.inv(covariance), y)
    return np.exp(exponent) / math.sqrt(np.linalg.det(2 * math.pi * np.atleast_2d(covariance)))


def prior(x, weights, means, covariances):
    return sum(w * normal(x, m, c) for w, m, c in zip(weights, means, covariances, strict=True))


def denoised_on_line(x, sigma):
    """E[x_0 | x] by quadrature; the integrand is smooth and vanishes at the ends, so the trapezoid is exact."""
    x_0 = np.linspace(-5, 5, 20_001)[:, None]
    p = prior(x_0, WEIGHTS_1D.numpy(), MEANS_1D.numpy(), DEVIATIONS_1D.numpy()[:, None, None] ** 2)
    p = p * np.exp(-((x - x_0[:, 0]) ** 2) / (2 * sigma**2))
    return (p @ x_0[:, 0]) / p.sum()


def denoised_in_plane(x, sigma, components=(0, 1, 2)):
    axis = np.linspace(-5, 5, 801)
    x_0 = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    mixture = (part.numpy()[list(components)] for part in (WEIGHTS_2D, MEANS_2D, COVARIANCES_2D))
    p = prior(x_0, *mixture) * np.exp(-((x - x_0) ** 2).sum(axis=-1) / (2 * sigma**2))
    return np.einsum("ij,ijd->d", p, x_0) / p.sum()


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0, 40.0])
def test_mixture_on_the_line_is_denoised_as_by_quadrature(line, sigma):
    x = [-1.1, -0.2, 0.05, 0.6, 3.0]
    got = line.denoise(double(x)[:, None], torch.full((5,), sigma, dtype=torch.float64))
    np.testing.assert_allclose(got[:, 0], [denoised_on_line(u, sigma) for u in x], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 6.0])
def test_mixture_with_full_covariances_is_denoised_as_by_quadrature(plane, sigma):
    x = [[0.3, -0.4], [-1.5, 1.0], [2.0, 2.0]]
    got = plane.denoise(double(x), torch.full((3,), sigma, dtype=torch.float64))
    np.testing.assert_allclose(got, [denoised_in_plane(np.array(u), sigma) for u in x], rtol=0, atol=1e-8)


def test_labels_pick_one_component(plane):
    x, sigma = double([[0.3, -0.4], [-1.5, 1.0], [2.0, 2.0]]), double([0.4, 0.4, 0.4])
    got = plane.denoise(x, sigma, torch.tensor([2, 0, 1]))
    expected = [denoised_in_plane(u, 0.4, [k]) for u, k in zip(x.numpy(), (2, 0, 1), strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


def test_each_sample_has_its_own_noise_level(plane):
    x, sigma = double([[0.3, -0.4], [0.3, -0.4]]), double([0.2, 5.0])
    together = plane.denoise(x, sigma)
    apart = torch.cat([plane.denoise(x[i : i + 1], sigma[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-15)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_denoised_is_data_without_noise_and_the_mean_under_much_noise(plane):
    x = double([[0.3, -0.4], [-1.5, 1.0]])
    torch.testing.assert_close(plane.denoise(x, double([1e-6, 1e-6])), x, rtol=0, atol=1e-9)
    mean = (WEIGHTS_2D @ MEANS_2D).expand(2, 2)
    torch.testing.assert_close(plane.denoise(x, double([1e5, 1e5])), mean, rtol=0, atol=1e-8)


def test_denoised_is_the_gradient_of_the_log_density(plane):
    """Tweedie: (D - x) / sigma^2, by central differences of the mixture convolved with the noise."""
    h = 1e-5 * np.eye(2)
    for x, sigma in (([0.3, -0.4], 0.2), ([-1.5, 1.0], 0.7), ([2.0, 2.0], 3.0)):
        densities = WEIGHTS_2D.numpy(), MEANS_2D.numpy(), COVARIANCES_2D.numpy() + sigma**2 * np.eye(2)
        gradient = [(math.log(prior(x + e, *densities)) - math.log(prior(x - e, *densities))) / 2e-5 for e in h]
        score = (plane.denoise(double([x]), double([sigma]))[0] - double(x)) / sigma**2
        assert score.tolist() == pytest.approx(gradient, rel=1e-7, abs=1e-7)


def test_draws_of_a_mixture_have_its_moments(plane):
    """Tolerances are five standard errors of 200,000 draws."""
    n = 200_000
    x, k = plane.sample(n, torch.Generator().manual_seed(0))
    for component in range(3):
        own = x[k == component]
        w = WEIGHTS_2D[component].item()
        assert len(own) / n == pytest.approx(w, abs=5 * math.sqrt(w * (1 - w) / n))
        covariance = COVARIANCES_2D[component]
        spread = covariance.diagonal().sqrt() / math.sqrt(len(own))
        assert ((own.mean(dim=0) - MEANS_2D[component]).abs() < 5 * spread).all()
        diagonal = covariance.diagonal()
        error = torch.sqrt((diagonal[:, None] * diagonal + covariance.square()) / len(own))
        assert ((own.T.cov() - covariance).abs() < 5 * error).all()


@pytest.fixture
def space():
    """Two components in three dimensions, whose axes are no reflections."""
    root = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return double([0.4, 0.6]), double([[0.5, 0.0, -1.0], [0.0, 1.0, 0.3]]), root @ root.mT + 0.05 * torch.eye(3)


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_mixture_in_space_is_denoised_by_the_rule_of_conditional_gaussians(space, sigma):
    """sum_k p(k | x) (m_k + C_k (C_k + sigma^2)^-1 (x - m_k)), by inverse matrices."""
    weights, means, covariances = (part.numpy() for part in space)
    x = np.array([0.4, 0.9, -0.2])
    noisy = covariances + sigma**2 * np.eye(3)
    p = weights * [normal(x, m, c) for m, c in zip(means, noisy, strict=True)]
    posterior = means + np.einsum("kde,kef,kf->kd", covariances, np.linalg.inv(noisy), x - means)
    got = GaussianMixture(*space).denoise(torch.from_numpy(x)[None], double([sigma]))
    np.testing.assert_allclose(got[0], p @ posterior / p.sum(), rtol=1e-11)


def test_draws_in_space_have_the_covariance_of_their_component(space):
    """Tolerances are five standard errors."""
    x, k = GaussianMixture(*space).sample(100_000, torch.Generator().manual_seed(0))
    for component, covariance in enumerate(space[2]):
        own, diagonal = x[k == component], covariance.diagonal()
        error = torch.sqrt((diagonal[:, None] * diagonal + covariance.square()) / len(own))
        assert ((own.T.cov() - covariance).abs() < 5 * error).all()


def test_draws_depend_on_the_generator_alone(plane):
    one, two, three = (plane.sample(20, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], three[0])


@pytest.fixture
def points():
    """Twenty points (1, 2, 2) with three labels."""
    x = torch.randn(20, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return FinitePoints(x, torch.arange(20) % 3)


def brute_force(points, x, sigma, keep=None):
    """The softmax over the points, one sample at a time, by its definition."""
    flat = points.points.flatten(1).numpy()
    flat = flat if keep is None else flat[keep]
    out = []
    for row, s in zip(x.flatten(1).numpy(), sigma.tolist(), strict=True):
        logits = -((row - flat) ** 2).sum(axis=1) / (2 * s**2)
        p = np.exp(logits - logits.max())
        out.append(p @ flat / p.sum())
    return np.array(out).reshape(x.shape)


NOISY = torch.randn(6, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SIGMA = double([0.05, 0.2, 0.5, 1.0, 5.0, 80.0])


@pytest.mark.parametrize("at_once", [2**24, 40, 1], ids=["one chunk", "six a chunk", "one a chunk"])
def test_points_are_denoised_by_the_softmax_whatever_the_chunks(monkeypatch, points, at_once):
    monkeypatch.setattr(oracle, "_LOGITS_AT_ONCE", at_once)
    got = points.denoise(NOISY, SIGMA)
    np.testing.assert_allclose(got, brute_force(points, NOISY, SIGMA), rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [2**24, 40, 1], ids=["one chunk", "six a chunk", "one a chunk"])
def test_labels_pick_their_points_whatever_the_chunks(monkeypatch, points, at_once):
    """With one point a chunk, most chunks hold no point of the label."""
    monkeypatch.setattr(oracle, "_LOGITS_AT_ONCE", at_once)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    got = points.denoise(NOISY, SIGMA, labels)
    for i, label in enumerate(labels.tolist()):
        expected = brute_force(points, NOISY[i : i + 1], SIGMA[i : i + 1], points.labels.numpy() == label)
        np.testing.assert_allclose(got[i : i + 1], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [2**24, 40])
def test_points_that_are_too_many_to_keep_give_the_same_bits(monkeypatch, points, at_once):
    monkeypatch.setattr(oracle, "_LOGITS_AT_ONCE", at_once)
    kept = [points.denoise(NOISY, SIGMA) for _ in range(2)]
    monkeypatch.setattr(oracle, "_FLOAT64_KEPT", 0)
    for each in kept:
        assert torch.equal(each, points.denoise(NOISY, SIGMA))


def test_points_that_are_moved_are_kept_where_they_are(points):
    points.denoise(NOISY, SIGMA)
    there = points.to(torch.device("meta"))
    assert there.denoise(NOISY.to("meta"), SIGMA.to("meta")).device.type == "meta"


def test_labels_of_points_without_labels_are_refused(points):
    with pytest.raises(ValueError, match="no labels"):
        FinitePoints(points.points).denoise(NOISY, SIGMA, torch.zeros(6, dtype=torch.long))


def test_small_noise_leads_to_the_nearest_point(points):
    """Also where every weight underflows before the largest is taken out."""
    x = (points.points[[3, 17]] + 0.1).float()
    got = FinitePoints(points.points.float()).denoise(x, torch.full((2,), 0.002))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, points.points[[3, 17]].float(), rtol=0, atol=0)


def test_points_are_a_mixture_of_tiny_covariances(points):
    flat = points.points.flatten(1)
    mixture = GaussianMixture(torch.ones(20) / 20, flat, 1e-14 * torch.eye(4).expand(20, 4, 4))
    sigma = SIGMA.clamp_min(0.2)
    got = mixture.denoise(NOISY.flatten(1), sigma)
    torch.testing.assert_close(got, points.denoise(NOISY, sigma).flatten(1), rtol=0, atol=1e-10)


def test_float32_is_denoised_in_double_precision(plane):
    x, sigma = double([[0.3, -0.4], [-1.5, 1.0]]), double([0.5, 0.25])
    got = plane.denoise(x.float(), sigma.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, plane.denoise(x.float().double(), sigma).float(), rtol=0, atol=0)
