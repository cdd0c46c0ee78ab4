"""Edits as the engine makes them: on every path, by every kind of model, at the noise levels of their task."""

import itertools

import pytest
import torch

from cmbench.engine import edit, trainer
from cmbench.engine.weights import Trained
from cmbench.equations import editing

KINDS = {
    "edm": (["objective={kind='ct'}"], "consistency"),
    "vp": (["path.kind=vp", "objective={kind='denoise'}"], "ode"),
    "trigflow": (["path.kind=trigflow", "path.scalings=trigflow", "objective={kind='sct'}"], "consistency"),
    "linear": (["path.kind=linear", "objective={kind='meanflow'}"], "average_velocity"),
    "edm diffusion": (["objective={kind='denoise'}"], "ode"),
}


@pytest.fixture(params=KINDS)
def trained(request, home):
    """A model whose weights are moved, since a new one's output is zero."""
    overrides, sampler = KINDS[request.param]
    built = trainer.from_file(home / "tiny.toml", overrides)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.state.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model = built.state.model.eval()
    return Trained(model, built.recipe, sampler, 8, 0, "none")


def points(n):
    return 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))


def test_what_is_known_stays_on_every_path(trained):
    x = points(6)
    levels = edit.default_levels(trained, "inpaint", 4, trained.model.sigma_min)
    edited = edit.edit(trained, x, edit.Wanted("inpaint", levels, 3))
    assert (len(levels), edited.results.shape) == (4, (6, 3, 2))
    assert edited.results.isfinite().all()
    assert torch.equal(edited.results[..., 0], x[:, None, 0].expand(6, 3))
    assert torch.equal(edited.given, torch.stack([x[:, 0], torch.zeros(6)], dim=1))
    assert (edited.results[:, 0, 1] != edited.results[:, 1, 1]).all()


def test_one_evaluation_takes_out_noise_of_its_level(trained):
    """f(x + sigma z, sigma) as on the EDM path, whatever the model's own."""
    x = points(6)
    edited = edit.edit(trained, x, edit.Wanted("denoise", [0.7], 1))
    given = edit.edit(trained, edited.given, edit.Wanted("denoise", [0.7], 1, is_given=True))
    torch.testing.assert_close(given.results, edited.results)
    assert 0.4 < (edited.given - x).std() < 1
    if trained.sampler != "ode":
        expected = trained.model.on_edm_path()(edited.given, torch.full((6,), 0.7)).detach()
        torch.testing.assert_close(edited.results[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_interpolation_begins_and_ends_with_its_pairs(trained):
    x = points(6)
    level = 0.1 if trained.sampler == "consistency" else 3.0
    edited = edit.edit(trained, x, edit.Wanted("interpolate", [level], 5))
    assert torch.equal(edited.path()[:, 0], x[::2])
    assert torch.equal(edited.path()[:, -1], x[1::2])
    if trained.sampler == "ode":  # up by D and down by D: Heun's errors remain
        torch.testing.assert_close(edited.results[:, 0], x[::2], rtol=0, atol=0.05)
        torch.testing.assert_close(edited.results[:, -1], x[1::2], rtol=0, atol=0.05)


def test_levels_descend_from_the_task_s_first_above_the_lowest_trained(trained):
    tasks = {"inpaint": 40, "colourise": 40, "upscale": 40, "stroke": 2, "interpolate": 1, "denoise": 1}
    for (task, steps), lowest in itertools.product(tasks.items(), (0.002, 1.0, 70.0)):
        levels = edit.default_levels(trained, task, None, lowest)
        assert levels == sorted(set(levels), reverse=True)
        assert lowest < levels[-1] <= levels[0] <= trained.model.sigma_max
        assert len(levels) == steps


def test_many_pictures_are_edited_in_parts(trained, monkeypatch):
    monkeypatch.setattr(edit, "_AT_ONCE", 2)
    edited = edit.edit(trained, points(5), edit.Wanted("inpaint", [80.0, 1.0], 2))
    assert edited.results.shape == (5, 2, 2)
    assert torch.equal(edited.original, points(5))
    assert len(edited.results[..., 1].flatten().unique()) == 10
    pairs = edit.edit(trained, points(10), edit.Wanted("interpolate", [1.0], 2))
    assert torch.equal(pairs.original, points(10)[::2])


def test_a_painting_has_few_colours_and_the_picture_s_means():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = editing.superresolution(8).merged(x, 0.0)
    painted = edit.painting(x)
    assert painted.shape == x.shape
    assert all(len({*map(tuple, picture.flatten(1).T.tolist())}) <= 6 for picture in painted)
    assert (painted.mean(dim=(2, 3)) - x.mean(dim=(2, 3))).abs().max() < 0.2
    grey = edit.painting(x[:, :1])
    assert (grey.shape, len(grey[0].unique()) <= 6) == ((2, 1, 32, 32), True)


def test_pictures_are_bytes_and_back():
    every = torch.arange(256).reshape(1, 1, 16, 16)
    x = edit.of_bytes(every.byte().numpy())
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(torch.from_numpy(edit.as_bytes(x)).flatten(), every.flatten().byte())
