"""Editing without training: the published algorithm by numbers, its transforms, and what it gives on finite sets."""

import math

import pytest
import torch

from cmbench.equations import editing, oracle, sampling
from cmbench.equations.gaussian_path import EDM, like
from cmbench.equations.timesteps import karras_grid

MEAN, DEVIATION, SIGMA_MIN = 0.3, 0.4, 0.002


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def exact_f(x, sigma):
    """Consistency function of N(.3, .4^2) down to sigma_min, of each number of (B, ...)."""
    scale = math.sqrt(DEVIATION**2 + SIGMA_MIN**2) / torch.sqrt(DEVIATION**2 + sigma.square())
    return MEAN + (x - MEAN) * like(scale, x)


def on(path, f):
    """Take a function of the EDM path to another."""
    return lambda x_t, t: f(x_t / like(path.s(t), x_t), path.noise_level(t))


def times_of(path, sigmas):
    return [path.t_of_noise_level(double([sigma])) for sigma in sigmas]


def drawing(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, dtype=torch.float64, generator=generator)


def pictures(n=2, channels=3, height=8, width=8, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, channels, height, width, dtype=torch.float64, generator=generator) - 1


@pytest.mark.parametrize("sigmas", [[80.0], [80.0, 0.8], [80.0, 5.0, 0.8, 0.1]])
def test_editing_is_the_published_algorithm(sigmas):
    """Song et al. 2023, algorithm 4 with A = identity, for one number at a time."""
    y, omega = [[0.7, -0.2, 0.1], [0.0, 0.9, -1.0]], [0, 1, 1]
    got = editing.edited(
        exact_f,
        double(y),
        editing.inpainting(torch.tensor([omega]).bool()),
        [double([sigma]) for sigma in sigmas],
        EDM(),
        SIGMA_MIN,
        drawing((2, 3), seed=7),
    )

    def f(x, tau):
        top, bottom = math.sqrt(DEVIATION**2 + SIGMA_MIN**2), math.sqrt(DEVIATION**2 + tau**2)
        return MEAN + (x - MEAN) * top / bottom

    def merged(known, other):
        return [
            [a * (1 - o) + b * o for a, b, o in zip(*rows, omega, strict=True)]
            for rows in zip(known, other, strict=True)
        ]

    draw = drawing((2, 3), seed=7)
    y = x = merged(y, [[0.0] * 3] * 2)
    for i, tau in enumerate(sigmas):
        spread = math.sqrt(tau**2 - (SIGMA_MIN**2 if i else 0))
        noisy = [[a + spread * z for a, z in zip(*rows, strict=True)] for rows in zip(x, draw().tolist(), strict=True)]
        x = merged(y, [[f(a, tau) for a in row] for row in noisy])
    torch.testing.assert_close(got, double(x), rtol=1e-12, atol=1e-12)


SIGMAS = [40.0, 3.0, 0.5, 0.05]


@pytest.mark.parametrize("task", ["inpaint", "colourise", "upscale", "stroke", "interpolate"])
def test_every_path_gives_the_results_of_the_edm_path(path, task):
    """Noise is that of the path, so that equal draws at equal noise levels give equal results."""
    y = pictures()
    transforms = {
        "inpaint": editing.inpainting(torch.arange(8) > 3),
        "colourise": editing.colourisation(),
        "upscale": editing.superresolution(2),
    }

    def result(own):
        f, times, draw = on(own, exact_f), times_of(own, SIGMAS), drawing(y.shape)
        if task == "stroke":
            return editing.painted(f, y, times[1:], own, SIGMA_MIN, draw)
        if task == "interpolate":
            z = draw()
            latents = [editing.latents_by_noise(x, z, times[2], own) for x in (y, y.flip(0))]
            return editing.interpolated(f, *latents, [0.0, 0.3, 1.0], times[2])
        return editing.edited(f, y, transforms[task], times, own, SIGMA_MIN, draw)

    torch.testing.assert_close(result(path), result(EDM()), rtol=1e-9, atol=1e-9)


def test_with_nothing_known_it_samples_as_the_multistep_sampler(path):
    """Algorithm 4 is then algorithm 1."""
    nothing = editing.inpainting(torch.ones(1, dtype=torch.bool))
    times, generator = times_of(path, SIGMAS), torch.Generator().manual_seed(3)
    got = editing.edited(on(path, exact_f), pictures(), nothing, times, path, SIGMA_MIN, drawing((2, 3, 8, 8), seed=3))
    noise = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)
    expected = sampling.multistep_consistency(exact_f, noise, SIGMAS, SIGMA_MIN, generator)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_noise_of_a_path_has_the_path_s_deviation(path, t):
    """A picture at level epsilon and what is added make sigma(t) together."""
    t = t[path.noise_level(t) > SIGMA_MIN]
    x, z = torch.zeros(len(t), 1, dtype=torch.float64), torch.ones(len(t), 1, dtype=torch.float64)
    added = editing.noised(x, z, t, path, SIGMA_MIN)[:, 0]
    total = added.square() + (path.s(t) * SIGMA_MIN).square()
    torch.testing.assert_close(total, path.sigma(t).square(), rtol=1e-12, atol=0)
    torch.testing.assert_close(editing.noised(z, 0 * z, t, path)[:, 0], path.s(t), rtol=1e-12, atol=0)


def test_the_colours_matrix_is_the_paper_s():
    """As printed in appendix D, whose digits are cut rather than rounded."""
    printed = double([[0.4471, -0.8204, 0.3563], [0.8780, 0.4785, 0.0], [0.1705, -0.3129, -0.9343]])
    torch.testing.assert_close(editing.orthogonal(double(editing.LUMINANCE)), printed, rtol=0, atol=1e-4)


@pytest.mark.parametrize("first", [[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [-0.2, 0.1, 3.0, 0.5], [0.25] * 16])
def test_any_first_column_is_completed(first):
    Q, unit = editing.orthogonal(double(first)), double(first) / double(first).norm()
    torch.testing.assert_close(Q.T @ Q, torch.eye(len(first), dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(Q[:, 0].abs(), unit.abs(), rtol=0, atol=1e-14)
    if first[0]:
        torch.testing.assert_close(Q[:, 0], unit, rtol=0, atol=1e-14)


TRANSFORMS = [
    (editing.colourisation(), 3),
    *((editing.superresolution(p), channels) for p in (2, 4) for channels in (1, 3)),
]


@pytest.mark.parametrize(("transform", "channels"), TRANSFORMS)
def test_transforms_are_orthogonal(transform, channels):
    x, y = pictures(3, channels, 8, 12), pictures(3, channels, 8, 12, seed=6)
    torch.testing.assert_close(transform.inverse(transform.A(x)), x, rtol=0, atol=1e-14)
    torch.testing.assert_close((transform.A(x) * transform.A(y)).sum(), (x * y).sum(), rtol=1e-12, atol=0)


def test_a_patch_s_first_number_is_its_mean_times_its_side():
    x = pictures(1, 3, 8, 12)
    got = editing.superresolution(4).A(x)
    assert got.shape == (1, 3, 16, 2, 3)
    assert got[0, 1, 0, 1, 2].item() == pytest.approx(4 * x[0, 1, 4:8, 8:12].mean().item(), rel=1e-12)


def edited(transform, y, n=4):
    times = times_of(EDM(), [80.0, 3.0, 0.5, 0.05][:n])
    return editing.edited(exact_f, y, transform, times, EDM(), SIGMA_MIN, drawing(y.shape))


def luminance(x):
    return (x * double([0.2989, 0.5870, 0.1140])[:, None, None]).sum(dim=1)


@pytest.mark.parametrize("n", [1, 4])
def test_what_is_known_stays(n):
    y, missing = pictures().float(), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    missing[..., 2:6, 3:7] = True
    got = editing.edited(
        exact_f, y, editing.inpainting(missing), times_of(EDM(), [80.0, 1.0][:n]), EDM(), 0.0, drawing(y.shape)
    )
    assert torch.equal(got[~missing.expand_as(y)], y[~missing.expand_as(y)])
    assert (got != y)[missing.expand_as(y)].all()
    y = y.double()
    coloured = edited(editing.colourisation(), editing.grey(y), n)
    torch.testing.assert_close(luminance(coloured), luminance(y), rtol=0, atol=1e-13)
    assert (coloured.std(dim=1) > 1e-3).all()
    large = edited(editing.superresolution(4), y, n)
    means = [torch.nn.functional.avg_pool2d(x, 4) for x in (large, y)]
    torch.testing.assert_close(*means, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("transform", "other"),
    [
        (editing.inpainting(torch.arange(8) > 3), lambda y: torch.where(torch.arange(8) > 3, 9.0, y)),
        (editing.colourisation(), editing.grey),
        (editing.superresolution(2), lambda y: editing.superresolution(2).merged(y, 0.0)),
    ],
)
def test_what_is_missing_is_not_looked_at(transform, other):
    y = pictures()
    assert (other(y) - y).abs().max() > 0.1
    torch.testing.assert_close(edited(transform, other(y)), edited(transform, y), rtol=0, atol=1e-12)


def test_a_hole_does_not_hold_what_is_not_finite():
    y = pictures()
    y[..., 4:] = float("nan")
    assert edited(editing.inpainting(torch.arange(8) > 3), y).isfinite().all()


def test_grey_keeps_white_and_the_luminance():
    y = pictures()
    got = editing.grey(y)
    assert (got[:, 0] == got[:, 1]).all()
    torch.testing.assert_close(got[:, 0], luminance(y) / 0.9999, rtol=1e-12, atol=0)
    torch.testing.assert_close(editing.grey(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1))


def test_a_coarse_picture_holds_the_means():
    y = pictures(2, 3, 8, 12)
    means = torch.nn.functional.avg_pool2d(y, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(editing.superresolution(4).merged(y, 0.0), means, rtol=0, atol=1e-13)


def test_a_painting_shows_in_the_first_point_alone():
    """SDEdit: f of the painting with noise; then each step forgets it a little more."""
    y, draw = pictures(), drawing((2, 3, 8, 8))
    got = editing.painted(exact_f, y, [double([0.7])], EDM(), SIGMA_MIN, drawing(y.shape))
    torch.testing.assert_close(got, exact_f(y + 0.7 * draw(), double([0.7, 0.7])))
    near = editing.painted(exact_f, y, [double([1e-3])], EDM(), 0.0, drawing(y.shape))
    assert (near - y).abs().max() < 0.01


@pytest.mark.parametrize("angle", [0.0, 1e-8, 0.3, math.pi / 2, 3.0])
def test_the_way_between_latents_is_a_great_circle(angle):
    first, second = double([[2.0, 0.0]]), 2 * double([[math.cos(angle), math.sin(angle)]])
    for share in (0.0, 0.25, 0.8, 1.0):
        expected = 2 * double([[math.cos(share * angle), math.sin(share * angle)]])
        torch.testing.assert_close(editing.slerp(first, second, share), expected, rtol=0, atol=1e-7)


def test_latents_by_the_ode_lead_back_to_the_ends(path):
    """With the exact denoiser and the exact f, to the error of Heun's steps."""

    def denoiser(x, sigma):
        return MEAN + (x - MEAN) * like(DEVIATION**2 / (DEVIATION**2 + sigma.square()), x)

    ends = pictures(4)
    up = karras_grid(80, SIGMA_MIN, 80.0).tolist()
    z_1, z_2 = (editing.latents_by_ode(denoiser, x, up, path) for x in (ends[:2], ends[2:]))
    (t,) = times_of(path, [80.0])
    got = editing.interpolated(on(path, exact_f), z_1, z_2, [0.0, 0.5, 1.0], t)
    torch.testing.assert_close(got[0], ends[:2], rtol=0, atol=3e-3)
    torch.testing.assert_close(got[2], ends[2:], rtol=0, atol=3e-3)
    assert got.shape == (3, 2, 3, 8, 8)
    assert (got[1] - ends[:2]).abs().max() > 0.1


def test_edits_carry_no_gradient():
    y = pictures().requires_grad_()
    assert not edited(editing.colourisation(), y).requires_grad


# Four times (-a, 1) and (-a, -1), three to one; and (a, 1) and (a, -1), one to three.
POINTS = [[-1, 1]] * 3 + [[-1, -1]] + [[1, 1]] + [[1, -1]] * 3
TRUE = 0.75  # p(second = 1 | first = -a)


def share_up(points, y, steps, n=1000):
    """The share of results with the second number near 1, where the first is known; f is the flow in 24 Heun steps."""
    denoiser = oracle.FinitePoints(double(points)).denoise

    def f(x, t):
        return sampling.heun_ode(denoiser, x / t[0], karras_grid(24, 0.01, t[0].item()).flip(0).tolist())

    x = editing.edited(
        f,
        double([y]).expand(n, 2),
        editing.inpainting(torch.tensor([[False, True]])),
        times_of(EDM(), sampling.consistency_sigmas(steps, 0.01, 80.0)),
        EDM(),
        0.01,
        drawing((n, 2)),
    )
    assert (x[:, 0] == y[0]).all()
    assert ((x[:, 1].abs() - 1).abs() < 0.1).double().mean() > 0.99
    return (x[:, 1] > 0.5).double().mean().item()


def test_the_f_of_these_tests_is_the_flow():
    points = double(POINTS)
    denoiser = oracle.FinitePoints(points).denoise
    x = 5 * drawing((50, 2))()
    exact = oracle.flow(denoiser, x, 5.0, 0.01, rtol=1e-3)
    got = sampling.heun_ode(denoiser, x / 5, karras_grid(24, 0.01, 5.0).flip(0).tolist())
    assert (torch.cdist(exact, points).argmin(dim=1) == torch.cdist(got, points).argmin(dim=1)).double().mean() > 0.97


def test_results_on_well_separated_points_are_draws_from_the_conditional():
    """The first number decides at noise at which the second is still open; four standard errors."""
    points = [[4 * a, b] for a, b in POINTS]
    assert share_up(points, [-4.0, 0.0], 20) == pytest.approx(TRUE, abs=4 * math.sqrt(TRUE * (1 - TRUE) / 1000))
    assert share_up([[-1, 1], [1, -1]], [-1.0, 0.0], 20) > 0.99  # where the known number leaves one point


@pytest.mark.parametrize(("half_gap", "low", "high"), [(1.0, 0.57, 0.65), (0.5, 0.50, 0.60)])
def test_results_on_close_points_are_not(half_gap, low, high):
    """Both numbers are decided at the same noise, where the known one has not told all: a mix with the prior, .5."""
    points = [[half_gap * a, b] for a, b in POINTS]
    assert low < share_up(points, [-half_gap, 0.0], 20) < high


def test_one_step_from_much_noise_knows_nothing_of_what_is_known():
    points = [[4 * a, b] for a, b in POINTS]
    assert share_up(points, [-4.0, 0.0], 1) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 1000))
