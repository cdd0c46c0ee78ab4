import copy
import math

import numpy as np
import pytest
import torch

from cmbench.layers.embedding import Fourier, Positional, time_embedding


def test_positional_embedding_is_cos_and_sin_at_geometric_frequencies():
    c = torch.tensor([-1.5, 0.0, 2.0])
    omega = 10_000.0 ** -(np.arange(8) / 7)
    angle = c.numpy()[:, None] * omega
    np.testing.assert_allclose(Positional(16)(c), np.concatenate([np.cos(angle), np.sin(angle)], axis=1), atol=1e-6)


def test_scale_multiplies_the_positional_frequencies():
    c = torch.tensor([0.3, -0.7])
    torch.testing.assert_close(Positional(16, scale=5.0)(c), Positional(16)(5 * c))


def test_smallest_positional_embedding_has_frequency_one():
    torch.testing.assert_close(Positional(2)(torch.tensor([0.5])), torch.tensor([[math.cos(0.5), math.sin(0.5)]]))


def test_fourier_frequencies_are_normal_with_the_scale_as_deviation():
    """Tolerances are four standard errors of 10,000 draws."""
    torch.manual_seed(0)
    frequencies = Fourier(20_000, scale=16.0).frequencies
    assert frequencies.mean().item() == pytest.approx(0, abs=4 * 16 / 100)
    assert frequencies.std().item() == pytest.approx(16, abs=4 * 16 / 100 / math.sqrt(2))


def test_fourier_embedding_turns_by_two_pi_a_frequency():
    embedding = Fourier(4)
    embedding.frequencies.copy_(torch.tensor([1.0, 0.25]))
    got = embedding(torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(got, torch.tensor([[-1.0, 0.5**0.5, 0.0, 0.5**0.5], [1.0, 0.0, 0.0, 1.0]]))


@pytest.mark.parametrize(("embedding", "turn"), [(Positional(16, 3.0), 1.0), (Fourier(16, 0.5), 2 * math.pi)])
def test_derivative_is_frequency_times_the_quarter_turned_embedding(embedding, turn):
    """d cos(w c) / dc = -w sin(w c), d sin(w c) / dc = w cos(w c)."""
    c = torch.tensor([0.4])
    derivative = torch.autograd.functional.jacobian(embedding, c)[0, :, 0]
    cos, sin = embedding(c)[0].chunk(2)
    w = turn * embedding.frequencies
    torch.testing.assert_close(derivative, torch.cat([-w * sin, w * cos]))


def test_fourier_frequencies_are_kept_with_the_weights():
    assert list(Fourier(8).state_dict()) == ["frequencies"]
    assert list(Positional(8).state_dict()) == []


@pytest.mark.parametrize("embedding", [Positional(8), Fourier(8)])
@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32, torch.float64])
def test_embeddings_have_the_dtype_of_their_frequencies(embedding, given):
    assert embedding(torch.ones(3, dtype=given)).dtype == torch.float32
    assert copy.deepcopy(embedding).double()(torch.ones(3, dtype=given)).dtype == torch.float64


def test_angles_of_double_precision_times_are_taken_in_double_precision():
    """At an angle of 1000 a step of 1e-5 is lost in float32."""
    embedding, c = Positional(2, scale=1000.0), torch.tensor([1.0, 1.0 + 1e-8], dtype=torch.float64)
    exact = torch.stack([(1000 * c).cos(), (1000 * c).sin()], dim=1)
    torch.testing.assert_close(embedding(c), exact.float(), rtol=0, atol=6e-8)
    assert not torch.equal(embedding(c)[0], embedding(c)[1])


@pytest.mark.parametrize("embedding", [Positional(16), Positional(16, 3.0), Fourier(16, 0.5), Fourier(6, 16.0)])
@pytest.mark.parametrize("c", [-1.5, 0.0, 0.7])
def test_derivative_norm_is_that_of_central_differences_at_every_time(embedding, c):
    double, step = copy.deepcopy(embedding).double(), 1e-6
    back, ahead = double(torch.tensor([c - step, c + step], dtype=torch.float64))
    assert embedding.derivative_norm() == pytest.approx(((ahead - back) / (2 * step)).norm().item(), rel=1e-7)


@pytest.mark.parametrize(("kind", "expected"), [("positional", Positional), ("fourier", Fourier)])
def test_embeddings_are_found_by_the_names_of_recipes(kind, expected):
    torch.manual_seed(0)
    embedding = time_embedding(kind, 6, 2.0)
    assert type(embedding) is expected
    assert embedding(torch.zeros(3)).shape == (3, 6)
    torch.manual_seed(0)
    assert torch.equal(embedding.frequencies, expected(6, 2.0).frequencies)
