import pytest
import torch

from cmbench.equations import boundary, weighting

SIGMA = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
R = torch.tensor([0.001, 0.25, 2.5, 60.0], dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 0.7])
def test_edm_weight_is_one_over_the_variance_of_noise_plus_that_of_data(sigma_data):
    expected = 1 / SIGMA.square() + 1 / sigma_data**2
    torch.testing.assert_close(weighting.edm(SIGMA, sigma_data), expected, rtol=1e-13, atol=0)


def test_edm_weight_is_unit_weight_on_the_network():
    weight = weighting.edm(SIGMA, 0.5) * boundary.denoiser_scalings(SIGMA, 0.5).c_out.square()
    torch.testing.assert_close(weight, torch.ones(4, dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", [1, 1, 1, 1]),
        ("edm", [250004, 8, 4 + 1 / 9, 4 + 1 / 6400]),
        ("inverse_interval", [1000, 4, 2, 0.05]),
    ],
)
def test_weight_of_a_pair_is_what_the_recipe_names(kind, expected):
    assert weighting.of_pair(kind, SIGMA, R, 0.5).tolist() == pytest.approx(expected)
