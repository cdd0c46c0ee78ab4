"""EDM's augmentation against formulas written apart: what changes, by how much, where colours go, and what is told."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from cmbench import augmentation, consent
from cmbench.augmentation import LABELS, Augmentation, Augmented, Change, changed
from cmbench.engine import loop, runner, trainer
from cmbench.errors import UsageError
from cmbench.randomness import Part, StepRandom

CPU = torch.device("cpu")
SIX = ("flip_x", "scale", "stretch", "shift")  # those of the MeanFlow recipes
H, W = 24, 32


def change(**numbers):
    zero = torch.zeros(1, dtype=torch.float64)
    return Change(**{name: zero + numbers.get(name, 0.0) for name in Change._fields})


def places():
    """Right and down of the centre, of every pixel."""
    down, right = torch.meshgrid(torch.arange(H) - (H - 1) / 2, torch.arange(W) - (W - 1) / 2, indexing="ij")
    return right.double(), down.double()


def picture(right, down):
    """A smooth picture, as a function of the place."""
    return torch.sin(0.3 * right + 0.2 * down) + 0.5 * torch.cos(0.25 * down - 0.1 * right)


def origin(c, right, down):
    """Where a place's colour comes from: the changes undone one by one, the last first."""
    right, down = right - c.shift_x * W / 8, down - c.shift_y * H / 8
    z = torch.complex(right, -down)  # counter-clockwise turns are positive
    turn = torch.polar(torch.ones_like(c.axis), c.axis)
    z = z / turn  # the axis now points to the right
    z = torch.complex(z.real / 2 ** (0.2 * c.stretch), z.imag * 2 ** (0.2 * c.stretch)) * turn
    z = z / torch.polar(torch.ones_like(c.angle), c.angle) / 2 ** (0.2 * c.scale)
    return z.real, -z.imag


@pytest.mark.parametrize(
    "numbers",
    [
        {"scale": 1.5},
        {"scale": -1.0},
        {"angle": 0.4},
        {"angle": -2.0},
        {"stretch": 1.2},
        {"stretch": 1.2, "axis": 0.7},
        {"shift_x": 0.3, "shift_y": -0.2},
        {"scale": 0.5, "angle": -0.3, "stretch": 0.8, "axis": 1.0, "shift_x": 0.2},
    ],
    ids=str,
)
def test_colours_come_from_where_the_changes_say(numbers):
    c, (right, down) = change(**numbers), places()
    from_right, from_down = origin(c, right, down)
    found = changed(picture(right, down)[None, None], c)[0, 0]
    inside = (from_right.abs() < W / 2 - 2) & (from_down.abs() < H / 2 - 2)
    assert inside.sum() > 100
    error = (found - picture(from_right, from_down))[inside].abs()
    assert error.max() < 0.03  # of a picture whose colours go from -1.5 to 1.5
    assert error.mean() < 0.01


def test_mirrors_are_mirrors():
    x = torch.randn(1, 3, 5, 7, dtype=torch.float64)
    assert torch.equal(changed(x, change(flip_x=1)), x.flip(3))
    assert torch.equal(changed(x, change(flip_y=1)), x.flip(2))
    assert torch.equal(changed(x, change()), x)


def test_shifts_by_whole_pixels_are_exact():
    """The filter is orthonormal to its shifts by two places of the doubled picture, so pixels come back unchanged."""
    x = torch.randn(1, 2, H, W, dtype=torch.float64)
    found = changed(x, change(shift_x=3 * 8 / W, shift_y=-2 * 8 / H))
    torch.testing.assert_close(found[..., :-2, 3:], x[..., 2:, :-3], rtol=1e-9, atol=1e-9)
    mirrored = x[..., 2:, :].index_select(-1, torch.tensor([3, 2, 1]))  # what comes in is the picture, mirrored
    torch.testing.assert_close(found[..., :-2, :3], mirrored, rtol=1e-9, atol=1e-9)


def test_the_filter_is_the_wavelet_of_six_vanishing_moments():
    """What defines sym6 (Daubechies 1992, section 8.1): orthonormality, and moments 0 to 5 of its high pass vanish."""
    taps = torch.tensor(augmentation._SYM6, dtype=torch.float64)
    for shift in range(0, 12, 2):
        assert (taps[shift:] @ taps[: 12 - shift]).item() == pytest.approx(float(shift == 0), abs=1e-11)
    high = taps * (-1.0) ** torch.arange(12, dtype=torch.float64)
    for moment in range(6):
        assert (high * torch.arange(12, dtype=torch.float64) ** moment).sum().abs() < 1e-8
    centre = (taps * torch.arange(12)).sum() / taps.sum()
    assert centre.item() == pytest.approx(5.5, abs=0.6)  # the least asymmetric of them


def test_labels_and_their_shares():
    """Karras et al. 2022, appendix F.2: each change with p, mirrors from side to side in half of all pictures."""
    n, p = 200_000, 0.12
    random = StepRandom(CPU, 0, 0)
    c = Augmentation(Augmented(augment=p)).change(n, random)
    for value, share in (
        (c.flip_x, 0.5),
        (c.flip_y, p / 2),
        (c.scale, p),
        (c.angle, p),
        (c.stretch, p),
        (c.shift_x, p),
        (c.shift_y, p),
    ):
        assert (value != 0).double().mean().item() == pytest.approx(share, abs=0.005)
    assert torch.equal(c.shift_x != 0, c.shift_y != 0)
    for value in (c.scale, c.stretch, c.shift_x, c.shift_y):
        drawn = value[value != 0]
        assert drawn.mean().item() == pytest.approx(0, abs=0.04)
        assert drawn.std().item() == pytest.approx(1, abs=0.03)
    for angle in (c.angle, c.axis):
        drawn = angle[angle != 0]
        assert drawn.abs().max() <= math.pi
        assert drawn.std().item() == pytest.approx(math.pi / 3**0.5, abs=0.03)
    assert (c.axis == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    changes = torch.stack([v != 0 for v in (c.flip_x, c.flip_y, c.scale, c.angle, c.stretch, c.shift_x)]).double()
    assert (torch.corrcoef(changes) - torch.eye(6, dtype=torch.float64)).abs().max() < 0.02  # drawn apart


def test_the_network_is_told_what_happened():
    made, random = Augmentation(Augmented(augment=0.5)), StepRandom(CPU, 3, 7)
    x_0 = torch.rand(64, 3, 8, 6)
    found, told = made(x_0, random)
    c = made.change(64, random)
    assert made.size == told.shape[1] == 9
    expected = [c.flip_x, c.flip_y, c.scale, c.angle.cos() - 1, c.angle.sin()]
    expected += [c.stretch * c.axis.cos(), c.stretch * c.axis.sin(), c.shift_x, c.shift_y]
    assert torch.equal(told, torch.stack(expected, 1))
    assert torch.equal(found, changed(x_0, c))
    still = (told == 0).all(1)
    assert torch.equal(found[still], x_0[still])
    assert ((found != x_0).flatten(1).any(1) == ~still).all()


def test_fewer_changes_have_fewer_labels_and_the_same_numbers():
    random, x_0 = StepRandom(CPU, 3, 7), torch.rand(64, 3, 8, 8)
    nine, six = (Augmentation(Augmented(augment=0.5, augment_by=by)) for by in (tuple(LABELS), SIX[::-1]))
    _, all_told = nine(x_0, random)
    _, told = six(x_0, random)
    assert six.size == 6
    assert torch.equal(told, all_told[:, [0, 2, 5, 6, 7, 8]])
    assert not six.change(64, random).angle.any()


def test_a_picture_s_change_depends_on_its_place_in_the_whole_batch():
    made, whole = Augmentation(Augmented(augment=0.5)), StepRandom(CPU, 1, 2)
    x_0 = torch.rand(16, 1, 8, 8, dtype=torch.float64)
    found, told = made(x_0, whole)
    for part in (Part(0, 5, 16), Part(5, 16, 16)):
        own, own_told = made(x_0[part.rows], replace(whole, part=part))
        assert torch.equal(own_told, told[part.rows])
        torch.testing.assert_close(own, found[part.rows], rtol=1e-12, atol=1e-12)
    for other in (StepRandom(CPU, 1, 3), StepRandom(CPU, 2, 2)):
        assert not torch.equal(made(x_0, other)[1], told)


def test_many_pictures_are_the_same_as_few():
    made, random = Augmentation(Augmented(augment=1.0)), StepRandom(CPU, 1, 2)
    x_0 = torch.rand(150, 1, 6, 6)
    found, _ = made(x_0, random)
    c = Change(*(value[140:] for value in made.change(150, random)))
    torch.testing.assert_close(found[140:], changed(x_0[140:], c))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_tiny_pictures_can_be_changed(size):
    x = torch.rand(8, 1, *size)
    found, _ = Augmentation(Augmented(augment=1.0))(x, StepRandom(CPU, 0, 0))
    assert found.shape == x.shape
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"augment_by": ("flip_x", "flipy")}, "augment_by: found 'flipy', allowed: flip_x, .* did you mean 'flip_y'"),
        ({"augment_by": ()}, "augment_by: found .*one or more different changes"),
        ({"augment_by": ("scale", "scale")}, "augment_by: found .*one or more different changes"),
        ({"augment": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_make_no_augmentation_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        Augmented(**settings)


NETWORK = "network={{kind='{}', width=8, multipliers=[1], depth=1, attention=[]{}}}"


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (NETWORK.format("unet", ""), r"data\.augment: found 0\.12, allowed for network 'unet'.*: 0"),
        (NETWORK.format("adm", ""), r"network\.augment_labels: found 0, allowed for data\.augment_by = .*: 9"),
        (NETWORK.format("ncsnpp", ", augment_labels=6"), r"network\.augment_labels: found 6, allowed.*: 9"),
    ],
)
def test_an_augmentation_of_which_the_network_is_not_told_is_refused(home, network, says):
    with pytest.raises(UsageError, match=rf"tiny\.toml: {says}"):
        trainer.from_file(home / "tiny.toml", ["data={kind='digits', augment=0.12}", network])


def test_changes_of_a_recipe_without_an_augmentation_do_nothing(home):
    with pytest.raises(
        UsageError, match=r"found \['scale'\], which does nothing where data\.augment = 0\.0; .*: \['flip_x', 'fl"
    ):
        trainer.from_file(
            home / "tiny.toml", ["data={kind='digits', augment_by=['scale']}", NETWORK.format("unet", "")]
        )


@pytest.fixture
def told_teacher(home):
    """A trained denoiser that takes nine labels."""
    augmented = "data={kind='digits', augment=0.5}"
    network = NETWORK.format("adm", ", augment_labels=9")
    teach = [augmented, network, "objective={kind='denoise'}", "train.steps=2", "evaluate.every=0", "snapshot.every=0"]
    made = runner.create(consent.named(home / "tiny.toml", teach), None, ["cmbench"])
    list(made.records())
    return [augmented, network, "objective={kind='cd'}", f"teacher={{kind='run', run='{made.run.path}'}}"]


def test_a_teacher_is_told_of_the_changes(home, told_teacher):
    built = trainer.from_file(home / "tiny.toml", told_teacher)
    told = []
    built.teacher.trained.model.F_theta.register_forward_pre_hook(lambda net, args: told.append(args[3:]))
    next(iter(loop.train(built)))
    assert told
    assert all(len(labels) == 1 and labels[0].shape[1:] == (9,) for labels in told)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("run", r"allowed with this teacher, which takes 9 labels of it in place of 6: 0"),
        ("oracle", r"allowed with teacher\.kind = 'oracle', which knows none: 0"),
    ],
)
def test_a_teacher_that_cannot_be_told_is_refused(home, told_teacher, kind, says):
    fewer = [
        "data={kind='digits', augment=0.5, augment_by=['flip_x', 'scale', 'stretch', 'shift']}",
        NETWORK.format("adm", ", augment_labels=6"),
        *told_teacher[2:],
        *(["teacher={kind='oracle'}"] if kind == "oracle" else []),
    ]
    with pytest.raises(UsageError, match=rf"data\.augment: found 0\.5, {says}"):
        trainer.from_file(home / "tiny.toml", fewer)
