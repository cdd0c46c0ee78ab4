import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from cmbench.layers.norm import ScaleShift, pnorm
from cmbench.networks.unet import Block

A = torch.randn(6, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def scale_shift(double_norm, **settings):
    torch.manual_seed(0)
    return ScaleShift(12, 32, double_norm, **settings).double()


def test_pnorm_has_unit_root_mean_square_over_the_channels():
    rms = pnorm(A).square().mean(dim=1).sqrt()
    torch.testing.assert_close(rms, torch.ones(6, 3, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-2, 5.0, 1e6])
def test_pnorm_keeps_direction_and_forgets_scale(factor):
    torch.testing.assert_close(pnorm(factor * A), pnorm(A), rtol=1e-3, atol=0)
    torch.testing.assert_close(pnorm(-A), -pnorm(A))
    assert nn.functional.cosine_similarity(pnorm(factor * A), A, dim=1).min().item() == pytest.approx(1)


def test_pnorm_is_the_identity_of_ones_and_zero_of_zero():
    torch.testing.assert_close(pnorm(torch.ones(2, 5)), torch.ones(2, 5))
    assert torch.equal(pnorm(torch.zeros(2, 5)), torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("given", "dtype"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_pnorm_is_taken_in_float32_at_least(given, dtype):
    a = A.to(given)
    assert pnorm(a).dtype == dtype
    assert (pnorm(a).square().mean(dim=1) - 1).abs().max() < 1e-6


def test_single_scale_and_shift_are_one_plus_and_a_linear_layer():
    module, emb = scale_shift(False), torch.randn(4, 12, dtype=torch.float64)
    values = emb @ module.weight.T + module.bias
    scale, shift = module.pair(emb)
    torch.testing.assert_close(scale, 1 + values[:, :32])
    torch.testing.assert_close(shift, values[:, 32:])


def test_double_normalises_scale_and_shift_each_for_itself():
    """Weights of any size, unlike for s and for b: both come out with unit root mean square."""
    module, emb = scale_shift(True), torch.randn(4, 12, dtype=torch.float64)
    with torch.no_grad():
        module.weight[:32] *= 1000
        module.weight[32:] *= 7
    values = emb @ module.weight.T + module.bias
    for got, a in zip(module.pair(emb), (1 + values[:, :32], values[:, 32:]), strict=True):
        rms = a.square().mean(dim=1, keepdim=True).sqrt()
        torch.testing.assert_close(got, a / rms, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("double_norm", [False, True])
def test_constant_start_does_not_see_the_embedding(double_norm):
    module = scale_shift(double_norm, constant=True)
    (scale, shift), again = module.pair(torch.ones(1, 12).double()), module.pair(-torch.ones(1, 12).double())
    assert torch.equal(scale, again[0])
    assert torch.equal(shift, again[1])
    torch.testing.assert_close(scale, torch.ones_like(scale), rtol=0, atol=1e-7)
    assert shift.square().mean().item() == pytest.approx(1.0 if double_norm else 0.0, abs=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-3, 1.0])
def test_double_starts_near_one_with_a_derivative_no_larger_than_its_weights(size):
    """The derivative of pnorm(a) is a projection over rms(a), so its norm is at most ||W|| / rms(a)."""
    module, emb = scale_shift(True), torch.full((12,), size, dtype=torch.float64)
    scale, shift = module.pair(emb[None])
    assert (scale - 1).abs().max() < 1e-7 + 2 * size
    assert shift.square().mean().item() == pytest.approx(1, abs=1e-6)
    for part, weight in enumerate(module.weight.detach().chunk(2)):
        derivative = jacobian(lambda e, part=part: module.pair(e[None])[part][0], emb)
        assert 0 < torch.linalg.matrix_norm(derivative, 2) < 2 * torch.linalg.matrix_norm(weight, 2)


def test_without_its_constants_the_shift_would_have_a_derivative_of_ten_thousand():
    """Why b starts at unit size: 1 / sqrt(eps) is what pnorm multiplies by at zero."""
    module = scale_shift(True)
    nn.init.zeros_(module.bias)
    derivative = jacobian(lambda e: module.pair(e[None])[1][0], torch.zeros(12, dtype=torch.float64))
    expected = 1e4 * torch.linalg.matrix_norm(module.weight.detach()[32:], 2)
    torch.testing.assert_close(torch.linalg.matrix_norm(derivative, 2), expected)


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3])
def test_double_block_is_bounded_with_bounded_gradients_at_every_embedding(size):
    """Also beyond the range of training, where the single form grows with the embedding."""
    torch.manual_seed(0)
    block = Block(16, 16, embedded=12, dropout=0.0, heads=0, double_norm=True).double()
    nn.init.normal_(block.conv_1.weight, std=(9 * 16) ** -0.5)
    x, emb = torch.randn(4, 16, 4, 4).double(), (size * torch.randn(4, 12).double()).requires_grad_()
    y = block(x, emb) - x
    assert 0.1 < y.square().mean().sqrt() < 2
    (gradient,) = torch.autograd.grad(y.square().flatten(1).mean(dim=1).sqrt().sum(), emb)
    assert 0 < gradient.norm(dim=1).max() < 1
