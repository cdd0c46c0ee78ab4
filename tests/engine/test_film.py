"""What f makes of fixed latents: against closed forms, in its files, and without a trace in the training."""

import math

import pytest
import torch
from fake_runs import read_rows
from torch import nn

from cmbench import consent
from cmbench.data import mixtures
from cmbench.engine import film, loop, runner, trainer
from cmbench.engine.consistency import Starts
from cmbench.equations.oracle import FinitePoints, GaussianMixture, flow
from cmbench.rundir.layout import RunDir
from cmbench.rundir.snapshots import AlbumReader
from cmbench.tui.widgets.film import load_film, load_plane

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
MEAN, DEVIATION = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([0.5, 0.1], dtype=torch.float64)


class Exact(nn.Module):
    """The true consistency function, by the closed form and not by a network."""

    shape, sigma_max = (2,), SIGMA_MAX

    def __init__(self, mixture):
        super().__init__()
        self.mixture, self.unused = mixture, nn.Parameter(torch.zeros(1))

    def on_edm_path(self):
        def f(x, sigma, labels=None):
            ends = torch.empty_like(x)
            for level in sigma.unique().tolist():
                own = sigma == level
                at_end = math.isclose(level, SIGMA_MIN, rel_tol=1e-4)
                ends[own] = (
                    x[own] if at_end else flow(self.mixture.denoise, x[own].double(), level, SIGMA_MIN, 1e-7).float()
                )
            return ends

        return f


def gaussian():
    return GaussianMixture(torch.ones(1), MEAN[None], torch.diag(DEVIATION.square())[None])


def on_gaussian_path(x_T, sigma):
    """The PF-ODE of one Gaussian scales each axis by its deviation (closed form)."""
    ratio = ((DEVIATION.square() + sigma**2) / (DEVIATION.square() + SIGMA_MAX**2)).sqrt()
    return MEAN + (x_T.double() - MEAN) * ratio


def starts():
    return Starts(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), None, torch.Generator().manual_seed(0))


def frames(oracle=None, teacher=None):
    model = Exact(oracle)
    return film.frames_along(model, oracle, teacher, None, starts, SIGMA_MIN, seed=3, n=16)


@pytest.fixture
def ring(home):
    return trainer.from_file(home / "tiny.toml", [])


@pytest.mark.parametrize(("known", "rtol"), [("exact", 1e-4), ("teacher", 1e-2)])
def test_places_lie_on_the_trajectories_of_one_gaussian(known, rtol):
    mixture = gaussian()
    found = frames(oracle=mixture) if known == "exact" else frames(teacher=mixture.denoise)
    assert found.trajectory == known
    assert found.sigmas[0] == pytest.approx(SIGMA_MAX)
    assert found.sigmas[-1] == pytest.approx(SIGMA_MIN)
    assert found.sigmas == sorted(found.sigmas, reverse=True)
    for sigma, x in zip(found.sigmas, found.x, strict=True):
        torch.testing.assert_close(x.double(), on_gaussian_path(found.x[0], sigma), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("teacher", [None, lambda x, sigma, labels: x * math.nan])
def test_without_trajectories_pairs_are_noised(teacher):
    large = FinitePoints(torch.zeros(film._MOST_NUMBERS, 2))
    found = frames(oracle=large, teacher=teacher)
    assert found.trajectory == "noised"
    x_0 = starts().x_0
    z = [(x - x_0) / sigma for sigma, x in zip(found.sigmas, found.x, strict=True)]
    for each in z:
        torch.testing.assert_close(each, z[0], rtol=1e-3, atol=1e-3)


def test_of_a_ring_the_exact_map_sends_each_eighth_to_its_mode(ring):
    """By symmetry a latent stays within its eighth of the plane."""
    plane = ring.camera.plane
    assert plane.latents.abs().max() < 3 * SIGMA_MAX
    angle = torch.atan2(plane.latents[:, 1], plane.latents[:, 0])
    wanted = (angle / (math.pi / 4)).round().long() % 8
    assert torch.equal(plane.exact.flatten().long(), wanted)
    first = plane.exact[0].long()  # the upper row, from left to right
    assert first[0] == 3
    assert first[-1] == 1


def test_the_true_function_is_constant_along_its_trajectories_and_nowhere_wrong(ring):
    exact = Exact(ring.data.oracle())
    found = ring.camera.take(exact)
    assert torch.equal(found.sent_to, ring.camera.plane.exact)
    assert (found.f - found.f[-1]).norm(dim=2).max() < 2e-3
    assert (found.modes == found.modes[-1]).all()
    nearest = (found.f[-1][:, None] - exact.mixture.means).norm(dim=2).argmin(dim=1)
    assert torch.equal(found.modes[-1].long(), nearest)


def test_what_goes_astray_is_wrong(ring):
    class Astray(Exact):
        def on_edm_path(self):
            right = super().on_edm_path()
            return lambda x, sigma, labels=None: torch.where(x[:, :1] > 0, right(x, sigma), math.nan)

    plane, found = ring.camera.plane, ring.camera.take(Astray(ring.data.oracle()))
    half = plane.latents[:, 0].view_as(plane.exact) > 0
    assert torch.equal(found.sent_to[half], plane.exact[half])
    assert (found.sent_to[~half] == 255).all()


def test_a_labelled_model_and_a_denoiser_have_no_plane_and_a_line_has_no_film(home):
    labelled = trainer.from_file(home / "tiny.toml", ["network.class_conditional=true"])
    assert labelled.camera.plane is None
    assert labelled.camera.frames.labels.tolist() == [0, 1, 2, 3]
    assert labelled.film().modes.shape == (10, 4)
    denoiser = trainer.from_file(home / "tiny.toml", ["objective.kind=denoise"])
    found, x = denoiser.film(), denoiser.camera.frames.x
    assert found.sent_to is None
    of_model = denoiser.sampling_model.on_edm_path()
    torch.testing.assert_close(
        found.f[0], of_model.denoise(x[0], x.new_full((4,), denoiser.camera.frames.sigmas[0])).detach()
    )
    assert not film.is_seen((1,))


def test_the_first_column_is_the_first_of_the_one_step_samples(ring):
    torch.testing.assert_close(ring.film().f[0], ring.snapshot()[1][:4])


def test_films_lie_beside_the_snapshots_and_what_never_changes_is_written_once(home):
    made = runner.create(consent.named(home / "tiny.toml", []), None, ["cmbench"])
    list(made.records())
    run = made.run
    album = AlbumReader(run).read()
    assert sorted(album.films) == sorted(album.planes) == album.steps == [6, 12]
    fixed = run.snapshots / "fixed.safetensors"
    before = fixed.stat().st_ino
    camera = made.trainer.camera
    camera.write(run, 18, made.trainer.film())
    assert fixed.stat().st_ino == before
    fixed.write_bytes(b"damaged")
    camera.write(run, 18, made.trainer.film())
    album = AlbumReader(run).read()
    seen, plane = load_film(album.films[12]), load_plane(album.planes[12], False)
    assert seen.trajectory == "exact"
    assert seen.x.shape == seen.f.shape == (10, 4, 2)
    scale = 0.5 / (torch.tensor(camera.frames.sigmas).square() + 0.25).sqrt()
    torch.testing.assert_close(torch.from_numpy(seen.x).float(), scale[:, None, None] * camera.frames.x)
    assert seen.data.shape == (4, 2)
    assert plane.wrong.mean() == (made.trainer.film().sent_to != camera.plane.exact).float().mean()
    assert not load_plane(album.planes[12], True).wrong.any()


def test_pictures_are_kept_as_bytes(home):
    built = trainer.from_file(
        home / "tiny.toml", ["data.kind=digits", "network={kind='unet', width=8, multipliers=[1], depth=1}"]
    )
    run = RunDir(home / "of_digits")
    run.path.mkdir()
    taken = built.film()
    built.camera.write(run, 5, taken)
    seen = load_film(AlbumReader(run).read().films[5])
    assert seen.trajectory == "exact"
    assert seen.f.shape == (10, 4, 8, 8, 3)
    wanted = taken.f.clamp(-1, 1).movedim(2, -1).expand(-1, -1, -1, -1, 3) * 127.5 + 127.5
    assert (torch.from_numpy(seen.f).float() - wanted).abs().max() <= 0.5 + 1e-3
    assert seen.modes is None
    assert not AlbumReader(run).read().planes


def test_training_is_the_same_with_and_without_films(home):
    quiet, busy = (trainer.from_file(home / "tiny.toml", ["train.steps=3", f"snapshot.every={n}"]) for n in (0, 1))
    for built in (quiet, busy):
        films = [event.film for event in loop.train(built) if isinstance(event, loop.Snapshotted)]
    assert len(films) == 3
    mine, other = quiet.state.groups()["model"], busy.state.groups()["model"]
    assert all(torch.equal(mine[name], value) for name, value in other.items())


def test_what_an_oracle_raises_costs_the_film_alone(home, monkeypatch):
    def no_closed_form(self):
        raise NotImplementedError("no closed form")

    monkeypatch.setattr(mixtures.Data, "oracle", no_closed_form)
    made = runner.create(
        consent.named(home / "tiny.toml", ["train.steps=4", "snapshot.every=2", "evaluate.every=0"]), home / "runs", []
    )
    list(made.records())
    told = [row["text"] for row in read_rows(made.run.events) if row["kind"] == "warning"]
    assert told == ["snapshots have no film strips: NotImplementedError: no closed form"]
    assert made.exit_code == 0
    assert not list(made.run.snapshots.glob("*film*"))
