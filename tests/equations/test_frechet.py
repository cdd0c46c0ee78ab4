"""The Fréchet distance of Gaussians: closed forms, published arithmetic, and moments block by block."""

import numpy as np
import pytest
import torch

from cmbench.equations import frechet
from cmbench.equations.frechet import GaussianSums, moments, squared_distance

RNG = np.random.default_rng(0)


def gaussian(d: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    root = RNG.normal(size=(d, d)) * scale
    return RNG.normal(size=d), root @ root.T / d


def tensors(pair: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


def test_gaussians_of_one_set_of_axes_have_a_closed_form():
    """|m_1 - m_2|^2 + sum (s_1 - s_2)^2, where s are the deviations along the common axes."""
    axes, _ = np.linalg.qr(RNG.normal(size=(16, 16)))
    m_1, m_2, s_1, s_2 = (RNG.normal(size=16) for _ in range(4))
    one, two = ((m, axes @ np.diag(s**2) @ axes.T) for m, s in ((m_1, s_1), (m_2, s_2)))
    expected = ((m_1 - m_2) ** 2).sum() + ((np.abs(s_1) - np.abs(s_2)) ** 2).sum()
    assert squared_distance(tensors(one), tensors(two)) == pytest.approx(expected, rel=1e-9)
    assert squared_distance(tensors(one), tensors(one)) == pytest.approx(0, abs=1e-9)


def test_any_gaussians_have_the_distance_of_the_matrix_root():
    from scipy.linalg import sqrtm

    one, two = gaussian(24), gaussian(24, 3.0)
    root = sqrtm(one[1] @ two[1]).real
    expected = ((one[0] - two[0]) ** 2).sum() + np.trace(one[1] + two[1] - 2 * root)
    assert squared_distance(tensors(one), tensors(two)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [400, 40])
def test_it_is_torch_fidelity_s_number(n):
    """Also where there are fewer samples than dimensions."""
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = (torch.from_numpy(RNG.normal(size=(n, 64)) @ RNG.normal(size=(64, 64)) + k) for k in (0, 1))
    theirs = fid.fid_statistics_to_metric(*map(fid.fid_features_to_statistics, (x, y)), False)[fid.KEY_METRIC_FID]
    assert squared_distance(moments(x), moments(y)) == pytest.approx(theirs, rel=1e-6)


def test_samples_of_a_gaussian_come_close_to_its_closed_form():
    one, two = gaussian(4), gaussian(4)
    drawn = [torch.from_numpy(RNG.multivariate_normal(*each, size=200_000)) for each in (one, two)]
    expected = squared_distance(tensors(one), tensors(two))
    assert squared_distance(*map(moments, drawn)) == pytest.approx(expected, rel=0.02)


def test_moments_of_blocks_are_those_of_the_whole(monkeypatch):
    x = RNG.normal(size=(1000, 6)) + 1e6  # far from zero, where sums of squares would cancel
    monkeypatch.setattr(frechet, "_AT_ONCE", 64)
    sums = GaussianSums()
    for part in np.array_split(x, 7):
        sums.add(torch.from_numpy(part))
    mean, covariance = sums.moments()
    np.testing.assert_allclose(mean.numpy(), x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance.numpy(), np.cov(x, rowvar=False), rtol=1e-7, atol=1e-9)
    assert sums.n == 1000
