import math

import numpy as np
import pytest
import torch

from cmbench.data.mixtures import Config, Data
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")
NAMES = ["ring", "grid", "unequal"]


def data(name):
    return Data(Config(name=name), CPU)


def covariances(mixture):
    return torch.einsum("kde,ke,kfe->kdf", mixture.axes, mixture.variances, mixture.axes)


def test_ring_is_eight_modes_of_deviation_a_fifth_on_a_circle_of_radius_four_scaled_to_one_half():
    mixture, scale = data("ring").mixture, 0.5 / math.sqrt(8.04)
    angle = np.arange(8) * math.pi / 4
    expected = 4 * scale * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_allclose(mixture.means, expected, atol=1e-14)
    np.testing.assert_allclose(covariances(mixture), np.tile((0.2 * scale) ** 2 * np.eye(2), (8, 1, 1)), atol=1e-15)
    np.testing.assert_allclose(mixture.weights, np.full(8, 1 / 8), rtol=1e-14)


def test_grid_is_five_by_five_modes_ten_deviations_apart():
    mixture = data("grid").mixture
    distances = torch.cdist(mixture.means, mixture.means) + torch.eye(25) * 9
    deviation = mixture.variances.sqrt()
    assert len(mixture.means) == 25
    torch.testing.assert_close(distances.min(dim=1).values / deviation[:, 0], torch.full((25,), 10.0).double())
    torch.testing.assert_close(deviation[:, 0], deviation[:, 1])
    torch.testing.assert_close(mixture.weights, torch.full((25,), 0.04).double())


def test_unequal_mixture_spans_a_factor_of_twenty_in_width_and_ten_in_weight():
    mixture = data("unequal").mixture
    deviation = mixture.variances.sqrt()
    assert (deviation.max() / deviation.min()).item() == pytest.approx(20, rel=0.2)
    assert (mixture.weights.max() / mixture.weights.min()).item() == pytest.approx(10)
    slanted = deviation.max(dim=1).values / deviation.min(dim=1).values
    assert (slanted > 5).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_mean_is_zero_and_the_variance_of_a_coordinate_a_quarter(name):
    mixture = data(name).mixture
    weights = mixture.weights
    torch.testing.assert_close(weights.sum().item(), 1.0)
    torch.testing.assert_close(weights @ mixture.means, torch.zeros(2).double(), rtol=0, atol=1e-14)
    second = covariances(mixture) + mixture.means[:, :, None] * mixture.means[:, None, :]
    variance = torch.einsum("k,kdd->", weights, second) / 2
    assert variance.item() == pytest.approx(0.25, rel=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_batches_have_those_moments_and_name_their_component(name):
    """Tolerances are five standard errors of 50,000 draws, of fourth moments below 3/16."""
    d = data(name)
    x, labels = d.batch(50_000, StepRandom(CPU, 0, 0))
    assert x.shape == (50_000, 2)
    assert x.dtype == torch.float32
    assert x.mean(dim=0).abs().max().item() < 5 * 0.7 / math.sqrt(50_000)
    assert x.square().mean().item() == pytest.approx(0.25, abs=5 * 0.44 / math.sqrt(50_000))
    own = d.mixture.means[labels].float()
    z = torch.einsum("bde,bd->be", d.mixture.axes[labels].float(), x - own) / d.mixture.variances[labels].sqrt()
    assert z.mean().item() == pytest.approx(0, abs=5 / math.sqrt(100_000))
    assert z.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / 100_000))
    assert set(labels.tolist()) == set(range(d.classes))


def test_batch_is_a_function_of_seed_and_step_alone():
    one, two = (data("ring").batch(8, StepRandom(CPU, 5, 6)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    others = [data("ring").batch(8, StepRandom(CPU, *at))[0] for at in ((5, 7), (6, 6))]
    assert not any(torch.equal(one[0], other) for other in others)


def test_held_out_and_train_sample_are_two_fixed_draws():
    d = data("ring")
    assert d.held_out(100).shape == (100, 2)
    assert torch.equal(d.held_out(100), data("ring").held_out(100))
    assert torch.equal(d.train_sample(100), data("ring").train_sample(100))
    assert not torch.isclose(d.held_out(100), d.train_sample(100)).any()


@pytest.mark.parametrize("name", NAMES)
def test_oracle_is_the_denoiser_of_the_drawn_data(name):
    """The mean square error of the denoised is below that of every scaled copy: it is the conditional mean."""
    d = data(name)
    x_0, _ = d.batch(20_000, StepRandom(CPU, 1, 0))
    sigma = torch.full((20_000,), 0.3)
    noisy = x_0 + 0.3 * StepRandom(CPU, 1, 0).noise(x_0)
    denoised = d.oracle().denoise(noisy, sigma)
    residual = x_0 - denoised
    for direction in (denoised, noisy, noisy.tanh()):
        product = (residual * direction).sum(dim=1)
        assert product.mean().item() == pytest.approx(0, abs=5 * product.std().item() / math.sqrt(20_000))
