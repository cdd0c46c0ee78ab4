"""Layers that keep sizes, against the formulas of Karras et al. 2024 and against integrals."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from cmbench.layers.magnitude import (
    MPFourier,
    MPLayer,
    MPPositional,
    force_norms,
    mp_cat,
    mp_silu,
    mp_sum,
    normalised,
    pixel_norm,
)

SIZES = [1e-3, 1.0, 30.0]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def size_of(x, dims=None):
    return x.square().mean(dims).sqrt()


@pytest.mark.parametrize("size", SIZES)
def test_normalised_is_divided_by_its_size_and_a_little(size):
    x = size * draw(3, 4, 5)
    expected = x / (size_of(x, (1, 2)) + 1e-4)[:, None, None]
    torch.testing.assert_close(normalised(x, (1, 2)), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(pixel_norm(x), x / (size_of(x, 1) + 1e-4)[:, None], rtol=1e-12, atol=0)


def test_pixels_of_zeros_stay_zero_and_have_a_gradient():
    x = torch.zeros(2, 3, 2, 2, requires_grad=True)
    y = pixel_norm(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert x.grad.isfinite().all()


def test_sizes_of_half_precision_are_taken_in_single():
    """300 squared, and summed, is more than float16 holds."""
    x = torch.full((1, 64, 1, 1), 300.0, dtype=torch.float16)
    assert pixel_norm(x).dtype == torch.float16
    torch.testing.assert_close(pixel_norm(x), torch.ones_like(x))


def test_silu_of_normal_numbers_has_unit_size():
    second, _ = quad(lambda z: mp_silu(torch.tensor(z, dtype=torch.float64)).item() ** 2 * norm.pdf(z), -12, 12)
    assert second == pytest.approx(1, abs=2e-3)  # the paper rounds to three digits


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_sum_has_unit_size_and_the_shares_that_are_asked_for(share):
    a, b = torch.eye(2, dtype=torch.float64)
    found = mp_sum(a, b, share)  # the factors of a and b
    assert found.square().sum().item() == pytest.approx(1)
    assert (found[1] * (1 - share)).item() == pytest.approx((found[0] * share).item())


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize(("M", "N"), [(4, 4), (6, 2)])
def test_concatenation_has_unit_size_and_shares_whatever_the_channels(M, N, share):
    found = mp_cat(torch.ones(1, M, 2), torch.ones(1, N, 2), share)
    assert found.shape == (1, M + N, 2)
    assert size_of(found).item() == pytest.approx(1, rel=1e-6)
    of_a, of_b = found[0, :M, 0].norm().item(), found[0, M:, 0].norm().item()  # what a layer gets from each
    assert of_b / of_a == pytest.approx(share / (1 - share), rel=1e-6)


@pytest.mark.parametrize(("kernel", "shape"), [(0, (40_000,)), (1, (40_000, 1, 1)), (3, (400, 10, 10))])
def test_layer_keeps_the_size_of_what_passes_through(kernel, shape):
    torch.manual_seed(0)
    layer = MPLayer(16, 8, kernel).double()
    x = draw(shape[0], 16, *shape[1:])
    y = layer(x)
    inside = y[..., 1:-1, 1:-1] if kernel == 3 else y  # zeros around the picture make its edge smaller
    assert size_of(inside).item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(layer(x, torch.tensor(0.3)), 0.3 * y)


@pytest.mark.parametrize("kernel", [0, 3])
def test_layer_does_not_see_the_size_of_its_weights(kernel):
    torch.manual_seed(0)
    layer, x = MPLayer(16, 8, kernel).double(), draw(5, 16, *(4, 4)[: 2 * bool(kernel)])
    y = layer(x)
    y.square().sum().backward()
    products = (layer.weight * layer.weight.grad).flatten(1).sum(dim=1)
    assert products.abs().max() < 1e-3 * layer.weight.grad.norm()  # orthogonal, but for the little that is added
    with torch.no_grad():
        layer.weight *= torch.logspace(-1, 1, 8).double().view(-1, *[1] * (layer.weight.ndim - 1))
    torch.testing.assert_close(layer(x), y, rtol=2e-3, atol=1e-6)


def test_forced_norms_change_weights_but_not_the_function():
    torch.manual_seed(0)
    net, x = nn.Sequential(MPLayer(6, 5), nn.SiLU(), MPLayer(5, 4)).double(), draw(3, 6)
    before = net(x)
    for layer in (net[0], net[2]):
        layer.weight.data *= 3.7
    force_norms(net)
    torch.testing.assert_close(net(x), before, rtol=1e-3, atol=1e-5)
    for layer in (net[0], net[2]):
        torch.testing.assert_close(size_of(layer.weight, 1), torch.ones(len(layer.weight)).double(), rtol=1e-3, atol=0)
        assert layer.weight.requires_grad


def test_without_forced_norms_weights_grow_with_each_step():
    """Steps are orthogonal to weights: n steps of length h lengthen weights of length R to sqrt(R^2 + n h^2)."""
    lengths = []
    for forced in (False, True):
        torch.manual_seed(0)
        layer, x = MPLayer(8, 1).double(), draw(32, 8)
        start = layer.weight.norm().item()
        for _ in range(100):
            if forced:
                force_norms(layer)
            layer.zero_grad()
            (layer(x) - x[:, :1]).square().mean().backward()
            with torch.no_grad():
                layer.weight -= 0.3 * layer.weight.grad / layer.weight.grad.norm()
        lengths.append((start, layer.weight.norm().item()))
    (start, grown), (_, kept) = lengths
    assert grown == pytest.approx(math.sqrt(start**2 + 100 * 0.3**2), rel=1e-2)
    assert kept == pytest.approx(math.sqrt(8 + 0.3**2), rel=1e-2)


def test_fourier_features_are_the_formula_s_and_have_unit_size():
    torch.manual_seed(0)
    embedding = MPFourier(20_000, scale=0.5)
    assert set(embedding.state_dict()) == {"freqs", "phases"}
    assert embedding.freqs.std().item() == pytest.approx(math.pi, rel=0.03)
    assert embedding.phases.mean().item() == pytest.approx(math.pi, rel=0.03)
    c = torch.tensor([-1.2, 0.0, 0.7])
    expected = math.sqrt(2) * torch.cos(c[:, None] * embedding.freqs + embedding.phases)
    torch.testing.assert_close(embedding(c), expected)
    torch.testing.assert_close(size_of(embedding(c), 1), torch.ones(3), rtol=0, atol=0.02)


def test_positional_features_have_unit_size_at_every_time():
    torch.testing.assert_close(size_of(MPPositional(32)(torch.linspace(-2, 2, 9)), 1), torch.ones(9))


@pytest.mark.parametrize("embedding", [MPFourier, MPPositional])
def test_steepness_of_features_is_that_of_their_differences(embedding):
    torch.manual_seed(0)
    made = embedding(4096, 0.3).double()
    c = torch.tensor([-0.4, 0.9], dtype=torch.float64)
    found = ((made(c + 1e-6) - made(c - 1e-6)) / 2e-6).norm(dim=1)
    torch.testing.assert_close(found, torch.full_like(found, made.derivative_norm()), rtol=0.03, atol=0)
