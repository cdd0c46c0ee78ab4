"""Samplers as the engine calls them: noise levels, latents of the seed, and the average velocity."""

import pytest
import torch

from cmbench.engine import trainer
from cmbench.engine.sample import default_sigmas, draw
from cmbench.equations.timesteps import karras_grid


@pytest.fixture
def meanflow(home):
    """A model of two times on the straight path, its weights moved."""
    built = trainer.from_file(home / "tiny.toml", ["path.kind=linear", "objective={kind='meanflow'}"])
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in built.state.model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return built.state.model


def test_one_step_of_the_average_velocity_is_the_consistency_function(meanflow):
    """z - t u(z, 0, t) from one latent, whichever sampler asks."""
    one, other = (draw(meanflow, sampler, 16, [80.0], seed=2) for sampler in ("average_velocity", "consistency"))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_two_steps_of_the_average_velocity_are_the_published_ones(meanflow):
    """z_r = z_t - (t - r) u(z_t, r, t), then from r to 0 (Geng et al. 2025, algorithm 2)."""
    t, r = 80 / 81, 3 / 4
    eps = draw(meanflow, "consistency", 16, [80.0], seed=2)  # for its shape alone
    got = draw(meanflow, "average_velocity", 16, [80.0, 3.0], seed=2)
    asked = []
    u = meanflow.F
    meanflow.F = lambda z, t, labels, r: asked.append((z, t, r)) or u(z, t, labels, r)
    again = draw(meanflow, "average_velocity", 16, [80.0, 3.0], seed=2)
    assert torch.equal(got, again)
    (z_t, t_1, r_1), (z_r, t_2, r_2) = asked
    assert [t_1[0].item(), r_1[0].item(), t_2[0].item(), r_2[0].item()] == pytest.approx([t, r, r, 0])
    with torch.no_grad():
        torch.testing.assert_close(z_r, z_t - (t - r) * u(z_t, t_1, None, r_1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got, z_r - r * u(z_r, t_2, None, r_2), rtol=1e-5, atol=1e-6)
    assert z_t.shape == eps.shape
    assert (z_t.std() / t).item() == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_noise_levels_of_a_sampler_end_above_the_lowest_that_was_trained(meanflow, steps):
    levels = default_sigmas(meanflow, "consistency", steps, lowest=0.5)
    assert levels == pytest.approx(karras_grid(steps + 1, 0.5, 80.0).flip(0)[:-1].tolist())
    assert default_sigmas(meanflow, "consistency", steps)[-1] > 0.002
    if steps > 1:
        assert default_sigmas(meanflow, "ode", steps, lowest=0.5)[-1] == pytest.approx(0.5)
    times = torch.tensor(default_sigmas(meanflow, "average_velocity", steps), dtype=torch.float64)
    expected = 80 / 81 * torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    torch.testing.assert_close(times / (1 + times), expected, rtol=1e-9, atol=0)


def test_two_steps_go_by_the_middle_of_the_recipe_and_other_numbers_by_the_grid(meanflow):
    assert default_sigmas(meanflow, "consistency", 2, mid=0.8) == [meanflow.sigma_max, 0.8]
    assert default_sigmas(meanflow, "consistency", 2, lowest=1.0, mid=0.8) == [meanflow.sigma_max, 1.0]  # trained there
    for sampler, steps in [("consistency", 1), ("consistency", 3), ("ode", 2), ("average_velocity", 2)]:
        assert default_sigmas(meanflow, sampler, steps, mid=0.8) == default_sigmas(meanflow, sampler, steps)


@pytest.mark.parametrize("sampler", ["consistency", "ode", "average_velocity"])
def test_samples_follow_from_the_seed_and_not_from_how_many_are_drawn_at_once(meanflow, monkeypatch, sampler):
    from cmbench.engine import sample

    levels = default_sigmas(meanflow, sampler, 2)
    whole = draw(meanflow, sampler, 6, levels, seed=1)
    assert torch.equal(whole, draw(meanflow, sampler, 6, levels, seed=1))
    assert not torch.equal(whole, draw(meanflow, sampler, 6, levels, seed=2))
    if sampler != "consistency":  # which draws fresh noise between its steps
        monkeypatch.setattr(sample, "_AT_ONCE", 4)
        torch.testing.assert_close(draw(meanflow, sampler, 6, levels, seed=1), whole, rtol=1e-4, atol=1e-5)
