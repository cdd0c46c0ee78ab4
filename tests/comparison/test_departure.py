"""Where two runs depart: known points found, equal runs left in peace."""

import math

import numpy as np
import pytest

from cmbench.comparison import departure
from cmbench.rundir.columns import Column, Profile

EDGES = np.geomspace(0.01, 80, 33).tolist()


def column(value, step=None) -> Column:
    step = np.arange(1.0, len(value) + 1) if step is None else np.array(step, float)
    return Column(step, step, step, step, np.array(value, float))


def noise(n, seed, size=1.0):
    return size * np.random.default_rng(seed).normal(size=n)


def test_equal_runs_are_hardly_ever_told_apart():
    for n in (10, 12, 30, 200, 3000):
        pairs = [(column(noise(n, 2 * i)), column(noise(n, 2 * i + 1))) for i in range(100)]
        assert sum(departure.of_columns(a, b) is not None for a, b in pairs) <= 2, n  # 0.8% is 0.8 of 100


def test_noise_that_fades_with_the_loss_is_no_difference():
    n = 2000
    loss = 1 / np.sqrt(np.arange(1, n + 1))
    runs = [column(loss * (1 + noise(n, seed, 0.2))) for seed in range(60)]
    assert sum(departure.of_columns(a, b) is not None for a, b in zip(runs[::2], runs[1::2], strict=True)) <= 1


@pytest.mark.parametrize("n", [24, 100, 1000, 10_000])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_known_departure_is_found_where_it_is(n, share):
    at, rows = int(share * n), -(-n // departure.BLOCKS)
    for seed in range(10):
        shift = np.where(np.arange(1, n + 1) > at, 15.0, 0.0)
        found = departure.of_columns(column(50 + noise(n, seed)), column(50 + noise(n, 99 - seed) + shift))
        assert at - rows < found.step <= at + 2 * rows + 1
        assert found.step <= found.until < found.step + 2 * rows
        assert found.size > departure.LIMIT


def test_the_sign_tells_which_is_larger():
    a, b = column(noise(50, 1)), column(noise(50, 2) - 20)
    assert departure.of_columns(a, b).size < 0
    assert departure.of_columns(b, a).size > 0
    assert departure.of_columns(b, a).step == 1


def test_a_small_difference_shows_in_many_rows():
    n = 10_000
    a, b = column(noise(n, 3)), column(noise(n, 4) + np.where(np.arange(n) > 5000, 1.5, 0.0))
    assert abs(departure.of_columns(a, b).step - 5000) <= 4 * n / departure.BLOCKS
    assert departure.of_columns(column(a.value[4900:5008]), column(b.value[4900:5008])) is None


def test_runs_that_log_at_other_steps():
    n, at = 6000, 3000
    loss = np.linspace(3, 1, n)
    shift = np.where(np.arange(1, n + 1) > at, 0.5, 0.0)
    a, b = column((loss + noise(n, 5, 0.05))[9::10], range(10, n + 1, 10)), loss + shift + noise(n, 6, 0.05)
    found = departure.of_columns(a, column(b[6::7], range(7, n + 1, 7)))
    assert at - 60 <= found.step <= at + 120
    assert departure.of_columns(a, column((b - shift)[6::7], range(7, n + 1, 7))) is None


def test_steps_that_both_have_alone_count():
    a, b = column(noise(100, 7)), column(noise(100, 8) + 50, range(1001, 1101))
    assert departure.of_columns(a, b) is None
    assert departure.of_columns(a, column(noise(104, 8) + 50, range(97, 201))) is None  # four rows


@pytest.mark.parametrize("first", range(1001, 1010, 2))
def test_no_departure_before_both_have_begun(first):
    a = column(noise(200, 7), range(10, 2001, 10))
    b = column(noise(2001 - first, 8) + 50, range(first, 2001))
    assert departure.of_columns(a, b).step >= first


def test_a_spike_and_a_pair_of_them_do_not_last():
    value = noise(128, 9)
    value[60:62] += 1e6
    assert departure.of_columns(column(value), column(noise(128, 10))) is None


def test_the_same_numbers_but_for_rounding():
    value = np.linspace(1, 2, 500)
    assert departure.of_columns(column(value), column(value)) is None
    assert departure.of_columns(column(value), column(value * (1 + 1e-9))) is None
    constant = departure.of_columns(column(np.full(50, 0.1)), column(np.full(50, 0.2)))
    assert (constant.step, constant.size) == (1, math.inf)


def test_runs_of_one_seed_depart_where_their_rows_first_differ():
    value = noise(128, 11)
    other = np.where(np.arange(128) < 80, value, value + noise(128, 12) + 3)
    assert departure.of_columns(column(value), column(other)).step == 81


def test_a_value_that_is_not_finite_is_a_departure():
    value = noise(50, 13)
    broken = np.where(np.arange(50) >= 30, math.nan, value)
    found = departure.of_columns(column(value), column(broken))
    assert (found.step, found.until, found.size) == (31, 31, math.inf)
    assert departure.of_columns(column(broken), column(broken)) is None
    assert departure.of_columns(column(value[:20]), column(broken)) is None  # the first ended before
    assert departure.of_columns(column(value), column(np.full(50, math.nan))).step == 1


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_too_few_rows_tell_nothing(n):
    assert departure.of_columns(column(np.zeros(n)), column(np.full(n, 9.0))) is None


def profile_rows(seed, rows, shift=1.0, bins=slice(0, 0), after=0) -> Profile:
    found = np.linspace(1, 5, 32) * np.exp(0.1 * np.random.default_rng(seed).normal(size=(rows, 32)))
    found[after:, bins] *= shift
    return Profile(100 * np.arange(1, rows + 1), found)


def test_equal_profiles_are_hardly_ever_told_apart():
    pairs = [(profile_rows(2 * i, rows), profile_rows(2 * i + 1, rows)) for rows in (4, 12) for i in range(40)]
    assert sum(departure.of_profiles("loss", EDGES, a, b) is not None for a, b in pairs) == 0


@pytest.mark.parametrize("rows", [8, 40])
def test_a_known_band_is_found_where_it_is(rows):
    a, b = profile_rows(1, rows), profile_rows(2, rows, shift=3.0, bins=slice(10, 16), after=rows // 2)
    band = departure.of_profiles("loss", EDGES, a, b)
    assert band.step == 100 * (rows // 2 + 1)
    assert (band.low, band.high) == (EDGES[10], EDGES[16])
    assert band.quantity == "loss"
    assert band.size > departure.LIMIT


def test_profiles_that_cannot_be_compared():
    a, b = profile_rows(1, 8), profile_rows(2, 8, 9.0, slice(0, 32))
    assert departure.of_profiles("loss", EDGES, a, b) is not None
    assert departure.of_profiles("loss", EDGES[:-1], a, b) is None
    assert departure.of_profiles("loss", [], a, b) is None
    assert departure.of_profiles("loss", EDGES, a, Profile(b.step + 1, b.bins)) is None
    assert departure.of_profiles("loss", EDGES, profile_rows(1, 0), b) is None
    one = departure.of_profiles("loss", EDGES, a, profile_rows(2, 8, 9.0, slice(4, 5)))
    assert one is None  # a single bin


def test_empty_bins_are_passed_over():
    a, b = profile_rows(1, 8), profile_rows(2, 8, 9.0, slice(4, 12))
    for run in (a, b):
        run.bins[:, 20:] = math.nan
    band = departure.of_profiles("loss", EDGES, a, b)
    assert (band.low, band.high) == (EDGES[4], EDGES[12])


def test_profiles_are_compared_at_the_steps_that_both_have():
    a, b = profile_rows(1, 40), profile_rows(2, 40, shift=3.0, bins=slice(10, 16), after=20)
    thinned = Profile(b.step[1::2], b.bins[1::2])
    assert departure.of_profiles("loss", EDGES, a, thinned).step == 2200
    assert departure.of_profiles("loss", EDGES, thinned, a).step == 2200


def test_a_slow_drift_is_no_noise():
    """Second differences of a straight line are nothing: few rows are enough."""
    for n in (12, 24, 50, 1000):
        for seed in range(10):
            drift = np.linspace(0, 3, n)
            found = departure.of_columns(column(noise(n, seed, 0.1)), column(noise(n, 99 - seed, 0.1) + drift))
            assert found.step < n / 2


def test_noise_that_grows_with_a_weight_is_no_difference():
    """As of iCT's weight, which doubles with the number of intervals: logarithms have one noise throughout."""
    n = 480
    weight = 2.0 ** (np.arange(n) // 60)
    runs = [column(weight * np.exp(noise(n, seed, 0.3))) for seed in range(60)]
    assert sum(departure.of_columns(a, b) is not None for a, b in zip(runs[::2], runs[1::2], strict=True)) <= 1


def test_what_has_no_noise_departs_at_once():
    """A learning rate by another peak, on the same schedule."""
    rate = 1e-3 * 0.5 * (1 + np.cos(np.linspace(0, 3, 400)))
    assert departure.of_columns(column(rate), column(2 * rate)).step == 1


@pytest.mark.parametrize(("n", "enough"), [(0, False), (9, False), (10, True), (5000, True)])
def test_whether_there_are_rows_enough(n, enough):
    assert departure.can_be_told(column(np.zeros(n)), column(np.zeros(20))) is enough
    assert not departure.can_be_told(column(np.zeros(20)), column(np.zeros(20), range(21, 41)))
    assert not departure.can_be_told(column(np.full(20, math.nan)), column(np.zeros(20)))
