import math
import sys
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from cmbench.equations import distance
from cmbench.errors import UsageError


def test_l2_is_the_mean_square_of_each_sample():
    x, y = np.random.default_rng(0).standard_normal((2, 3, 1, 4, 4))
    expected = ((x - y) ** 2).reshape(3, 16).sum(axis=1) / 16
    np.testing.assert_allclose(distance.l2(torch.from_numpy(x), torch.from_numpy(y)), expected, rtol=1e-14)


def test_norm_is_that_of_the_whole_vector_and_the_limit_of_pseudo_huber():
    x, y = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.sqrt(((x - y).reshape(5, 48).numpy() ** 2).sum(axis=1))
    np.testing.assert_allclose(distance.norm(x, y), expected, rtol=1e-14)
    np.testing.assert_allclose(distance.pseudo_huber(x, y, 1e-9), expected, rtol=1e-8)


def test_norm_of_no_difference_has_no_gradient_that_is_not_finite():
    x = torch.zeros(2, 3, requires_grad=True)
    distance.norm(x, torch.zeros(2, 3)).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))


def test_pseudo_huber_is_taken_over_the_whole_vector():
    """Of the difference (3, 4) with c = 1 it is sqrt(26) - 1; element by element it would be another number."""
    x, y = torch.tensor([[3.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, -4.0]], dtype=torch.float64)
    got = distance.pseudo_huber(x, y, 1.0).item()
    assert got == pytest.approx(math.sqrt(26) - 1, rel=1e-14)
    element_wise = math.sqrt(10) - 1, math.sqrt(17) - 1
    assert abs(got - sum(element_wise)) > 0.1
    assert abs(got - sum(element_wise) / 2) > 0.1


def test_pseudo_huber_of_pictures_is_that_of_the_flat_vectors():
    x, y = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = (x - y).reshape(5, 48).numpy()
    expected = np.sqrt((flat**2).sum(axis=1) + 0.3**2) - 0.3
    np.testing.assert_allclose(distance.pseudo_huber(x, y, 0.3), expected, rtol=1e-13)


def test_pseudo_huber_near_zero_is_accurate_and_has_a_gradient():
    """d = u^2 / (2 c) to first order; sqrt(u^2 + c^2) - c is zero in float32."""
    x = torch.tensor([[1e-6, 0.0], [0.0, 0.0]], requires_grad=True)
    d = distance.pseudo_huber(x, torch.zeros(2, 2), 0.03)
    assert d[0].item() == pytest.approx(1e-12 / 0.06, rel=1e-5)
    d.sum().backward()
    assert x.grad.tolist() == [[pytest.approx(1e-6 / 0.03, rel=1e-5), 0], [0, 0]]


def test_pseudo_huber_far_away_is_the_norm():
    x = torch.tensor([[3e4, 4e4]], dtype=torch.float64)
    assert distance.pseudo_huber(x, torch.zeros_like(x), 0.03).item() == pytest.approx(5e4 - 0.03, rel=1e-12)


@pytest.mark.parametrize(("dimensions", "c"), [(3072, 0.02992983795), (12288, 0.05985967591)])
def test_c_of_pseudo_huber_is_the_published_one(dimensions, c):
    assert distance.pseudo_huber_c(dimensions) == pytest.approx(c, rel=5e-10)


def test_named_distances_are_those_of_the_recipe():
    x, y = torch.randn(2, 3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shape = (3, 8, 8)
    assert torch.equal(distance.named("l2", shape, 0.0)(x, y), distance.l2(x, y))
    assert torch.equal(distance.named("norm", shape, 0.0)(x, y), distance.norm(x, y))
    c = 0.00054 * math.sqrt(192)
    assert torch.equal(distance.named("pseudo_huber", shape, 0.0)(x, y), distance.pseudo_huber(x, y, c))
    assert torch.equal(distance.named("pseudo_huber", shape, 0.2)(x, y), distance.pseudo_huber(x, y, 0.2))


@pytest.mark.parametrize("shape", [(2,), (2, 8, 8), (4, 8, 8)])
def test_lpips_is_refused_for_what_is_no_picture(shape):
    with pytest.raises(UsageError, match=r"objective\.distance: found 'lpips' .* 'l2', 'norm' or 'pseudo_huber'"):
        distance.named("lpips", shape, 0.0)


def install_torchmetrics(monkeypatch, metric):
    package, image = ModuleType("torchmetrics"), ModuleType("torchmetrics.image")
    package.image, image.LearnedPerceptualImagePatchSimilarity = image, metric
    monkeypatch.setitem(sys.modules, "torchmetrics", package)
    monkeypatch.setitem(sys.modules, "torchmetrics.image", image)


def test_lpips_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image", None)
    with pytest.raises(UsageError, match=r"objective\.distance: .*pip install 'cmbench\[lpips\]'"):
        distance.named("lpips", (1, 8, 8), 0.0)


@pytest.mark.parametrize("error", [URLError("no route to host"), PermissionError("no route to host")])
def test_lpips_without_its_weights_says_where_to_put_them(monkeypatch, tmp_path, error):
    def metric(net_type):
        raise error

    install_torchmetrics(monkeypatch, metric)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"no route to host.*vgg16-397923af\.pth") as caught:
        distance.named("lpips", (3, 8, 8), 0.0)
    assert str(tmp_path / "hub") + "/checkpoints" in str(caught.value)


class Recorder(nn.Module):
    """Stands in for the VGG distance: the mean square at the size that it is given."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, x, y):
        self.seen.append((x, y))
        return self.weight * (x - y).square().mean(dim=(1, 2, 3), keepdim=True)


class Metric:
    def __init__(self, net_type):
        assert net_type == "vgg"
        self.net = Recorder()


@pytest.fixture
def lpips(monkeypatch):
    install_torchmetrics(monkeypatch, Metric)
    return distance.LPIPS()


@pytest.mark.parametrize(("colours", "size", "seen"), [(1, 8, 224), (3, 28, 224), (3, 224, 224), (1, 256, 256)])
def test_lpips_sees_three_colours_of_at_least_224_pixels(lpips, colours, size, seen):
    x, y = torch.full((2, colours, size, size), 0.5), torch.zeros(2, colours, size, size)
    torch.testing.assert_close(lpips.distance(x, y), torch.full((2,), 0.25))
    assert [tuple(z.shape) for z in lpips.net.seen[0]] == [(2, 3, seen, seen)] * 2


def test_lpips_enlarges_smoothly(lpips):
    """A horizontal ramp stays a ramp: bilinear, symmetric about the middle."""
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 8, 8)
    lpips.distance(ramp, ramp)
    row = lpips.net.seen[0][0][0, 0, 100]
    assert (row.diff() >= -1e-6).all()
    assert len(row.unique()) > 100
    torch.testing.assert_close(row, -row.flip(0))


def test_lpips_gives_a_gradient_to_the_prediction_and_none_to_its_net(lpips):
    x = torch.ones(2, 1, 8, 8, requires_grad=True)
    lpips.distance(x, torch.zeros(2, 1, 8, 8)).sum().backward()
    assert (x.grad != 0).all()
    assert lpips.net.weight.grad is None
