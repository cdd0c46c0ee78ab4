import numpy as np
import pytest
import torch
from scipy.stats import kstest, uniform

from cmbench.data.points import Config, Data, _moons, _spirals
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")


def data(name, **settings):
    return Data(Config(name=name, **settings), CPU)


@pytest.mark.parametrize("name", ["spirals", "moons"])
def test_coordinates_have_mean_zero_and_deviation_one_half(name):
    d = data(name, size=300)
    x = torch.cat([d.train, d.test]).double()
    assert d.train.shape == d.test.shape == (300, 2)
    assert x.mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert x.std(dim=0, correction=0).tolist() == pytest.approx([0.5, 0.5], rel=1e-6)


@pytest.mark.parametrize("name", ["spirals", "moons"])
def test_held_out_points_are_other_points_of_the_same_law(name):
    d = data(name)
    train, test = ({tuple(p) for p in part.tolist()} for part in (d.train, d.test))
    assert len(train) == len(test) == 2000
    assert not train & test
    assert d.test.mean(dim=0).tolist() == pytest.approx(d.train.mean(dim=0).tolist(), abs=0.06)
    assert (d.train_labels == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["spirals", "moons"])
def test_points_never_change(name):
    assert torch.equal(data(name).train, data(name).train)


def test_spirals_without_noise_are_two_opposite_arms_evenly_filled():
    """(theta cos theta, theta sin theta) up to one and a half turns; length along the arm grows as theta^2."""
    x, labels = _spirals(2000, 0.0)
    theta = 3 * np.pi * np.linalg.norm(x, axis=1)
    sign = np.where(labels == 0, 1, -1)[:, None]
    arm = np.stack([theta * np.cos(theta), theta * np.sin(theta)], axis=1) / (3 * np.pi)
    np.testing.assert_allclose(x, sign * arm, atol=1e-12)
    assert kstest((theta / (3 * np.pi)) ** 2, uniform(0.01, 0.99).cdf).pvalue > 1e-3
    assert labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2000))


@pytest.mark.parametrize("name", ["spirals", "moons"])
def test_labels_are_the_two_arms(name):
    """Without noise the nearest neighbour of a point lies on its own arm."""
    d = data(name, noise=0.0)
    distance = torch.cdist(d.train, d.train).fill_diagonal_(torch.inf)
    nearest = d.train_labels[distance.argmin(dim=1)]
    far = d.train.norm(dim=1) > 0.25
    assert (nearest == d.train_labels)[far].float().mean() > 0.99
    x, labels = d.batch(100, StepRandom(CPU, 0, 3))
    assert torch.equal(labels, d.train_labels[(x[:, None] == d.train).all(dim=2).int().argmax(dim=1)])


def test_noise_is_what_the_recipe_says():
    """Of both sets the generator draws the noise after the arms, so the same arms lie beneath."""
    for make in (_spirals, _moons):
        noise = make(2000, 0.1)[0] - make(2000, 0.0)[0]
        assert noise.std() == pytest.approx(0.1, rel=4 / np.sqrt(8000))
