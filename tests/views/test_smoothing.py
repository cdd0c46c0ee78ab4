import numpy as np
import pytest

from cmbench.views.smoothing import SMOOTHINGS, average, width_in_rows

RNG = np.random.default_rng(0)
SHARES = [share for share in SMOOTHINGS if share]


def evenly(values, share):
    return average(np.arange(len(values), dtype=float), values, np.ones(len(values)), share)


def plainly(x, values, count, share):
    """As defined, row by row: a weighted least-squares line for each window, by numpy's own solver."""
    place, found = np.cumsum(count) - count / 2, []
    for i in range(len(x)):
        reach = min(3 * share * count.sum(), place[i] - place[0], place[-1] - place[i])
        near = np.abs(place - place[i]) <= reach * (1 + 1e-9)
        weight = count[near] * np.exp(-0.5 * (3 * (place[near] - place[i]) / max(reach, 1e-9)) ** 2)
        if near.sum() == 1:
            found.append(values[i])
            continue
        design = np.stack([np.ones(near.sum()), x[near] - x[i]], axis=1) * np.sqrt(weight)[:, None]
        line = np.linalg.lstsq(design, values[near] * np.sqrt(weight), rcond=None)[0][0]
        found.append(np.clip(line, values[near].min(), values[near].max()))
    return np.array(found)


def uneven(n):
    """Places of rows whose spacing changes by ten in the middle, and by chance."""
    return np.cumsum(np.where(np.arange(n) < n // 2, 50.0, 500.0) * RNG.uniform(0.1, 2, n))


@pytest.mark.parametrize("n", [1, 2, 3, 21, 100])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.06])
def test_as_defined(n, share):
    """Of so few rows none are taken together."""
    x, values, count = uneven(n), RNG.normal(size=n), RNG.integers(1, 4, n).astype(float)
    assert average(x, values, count, share) == pytest.approx(plainly(x, values, count, share), abs=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.08])
def test_rows_taken_together_change_little(share):
    n = 800
    x, values = np.arange(n, dtype=float), np.sin(np.arange(n) / 60) + RNG.normal(size=n)
    inner = slice(int(3 * share * n), n - int(3 * share * n))
    exact = plainly(x, values, np.ones(n), share)
    assert np.abs(average(x, values, np.ones(n), share) - exact)[inner].max() < 0.1 / np.sqrt(share * n)


@pytest.mark.parametrize("share", [*SHARES, 0.3])
@pytest.mark.parametrize("n", [1, 2, 22, 399, 5000])
@pytest.mark.parametrize("spacing", [lambda n: np.arange(n, dtype=float), uneven, lambda n: 1.7e9 + uneven(n)])
def test_a_straight_line_and_a_constant_are_returned_to_their_ends(spacing, n, share):
    x = spacing(n)
    line = 3.0 - 2.0 * (x - x[0]) / (x[-1] - x[0] + 1)
    assert average(x, line, np.ones(n), share) == pytest.approx(line, abs=1e-7)
    assert average(x, np.full(n, 7.0), np.ones(n), share) == pytest.approx(np.full(n, 7.0), rel=1e-12)


@pytest.mark.parametrize("share", SHARES)
def test_it_does_not_lag(share):
    """An impulse answers around its place, a step crosses its middle at its place, forwards as backwards."""
    n = 2001
    impulse = np.zeros(n)
    impulse[n // 2] = 1.0
    answer = evenly(impulse, share)
    assert (np.arange(n) * answer).sum() / answer.sum() == pytest.approx(n // 2, abs=0.1 * share * n)
    assert answer == pytest.approx(answer[::-1], abs=0.1 * answer.max())  # rows are taken together from the left
    step = (np.arange(n) > n // 2) + 0.5 * (np.arange(n) == n // 2)
    crossing = np.interp(0.5, evenly(step, share), np.arange(n))
    assert crossing == pytest.approx(n // 2, abs=0.1 * share * n)
    noise = RNG.normal(size=n)
    assert evenly(noise[::-1], share)[::-1] == pytest.approx(evenly(noise, share), abs=0.2 / np.sqrt(share * n))


@pytest.mark.parametrize("share", SHARES)
def test_of_a_falling_curve_half_of_the_rows_lie_above(share):
    n = 4000
    steps = np.arange(n)
    rows = np.exp(-steps / (20 * share * n)) + 0.2 * RNG.normal(size=n)
    found = evenly(rows, share)
    assert found.min() >= rows.min()
    assert found.max() <= rows.max()
    for part in np.array_split(steps, 8):  # all along the curve: one that lags is above everywhere
        above = (rows > found)[part].mean()
        assert abs(above - 0.5) < 4 * 0.5 / np.sqrt(len(part))


def test_it_never_leaves_the_rows_of_its_window():
    x = uneven(60)
    values = 10.0 ** RNG.uniform(-3, 3, 60)
    found = average(x, values, np.ones(60), 0.02)
    reach = int(3 * 0.02 * 60)
    for i, mean in enumerate(found):
        near = values[max(0, i - reach) : i + reach + 1]
        assert near.min() <= mean <= near.max()


def test_the_width_is_a_share_of_the_rows():
    """The spread of an impulse's answer is the standard deviation that is told."""
    for n in (400, 1600, 6400):
        for share in (0.02, 0.05):
            impulse = np.zeros(n + 1)
            impulse[n // 2] = 1.0
            answer, apart = evenly(impulse, share), np.arange(n + 1) - n // 2
            spread = np.sqrt((answer * apart**2).sum() / answer.sum())
            assert spread == pytest.approx(share * n, rel=0.05)
            assert width_in_rows(np.ones(n), share) == round(share * n)
    assert width_in_rows(np.full(50, 8.0), 0.02) == 8
    assert width_in_rows(np.ones(20), 0.08) == width_in_rows(np.ones(99), 0.005) == width_in_rows(np.ones(99), 0) == 0


def test_a_mean_of_eight_rows_weighs_and_spans_as_eight():
    values = np.cumsum(RNG.normal(size=200))
    x = np.arange(200.0)
    rows = average(np.arange(1600.0) // 8, np.repeat(values, 8), np.ones(1600), 0.05)[4::8]
    inner = slice(30, -30)
    assert average(x, values, np.full(200, 8.0), 0.05)[inner] == pytest.approx(rows[inner], abs=0.2)


def test_what_is_not_finite_is_passed_over():
    x, values = np.arange(300.0), 2.0 - np.arange(300.0) / 300
    values[[0, 7, 299]], values[100:150] = np.nan, np.inf
    found = average(x, values, np.ones(300), 0.05)
    there = np.isfinite(values)
    assert np.isnan(found[~there]).all()
    assert found[there] == pytest.approx(values[there], abs=1e-12)
    assert np.isnan(evenly(np.full(5, np.nan), 0.1)).all()
    assert not len(evenly(np.empty(0), 0.1))


@pytest.mark.parametrize("size", [1e-300, 1e38, 1e300, 1.7e308])
def test_of_any_size(size):
    values = RNG.uniform(-1, 1, 2000)
    with np.errstate(all="raise", under="ignore"):
        assert evenly(size * values, 0.02) / size == pytest.approx(evenly(values, 0.02), abs=1e-9)


def test_rows_at_one_place_have_a_mean():
    found = average(np.zeros(50), np.tile([1.0, 3.0], 25), np.ones(50), 0.08)
    assert found[20:30] == pytest.approx(np.full(10, 2.0), abs=0.1)
