import numpy as np
import pytest

from cmbench.tui.smoothing import ema

RNG = np.random.default_rng(0)


def loop(values, count, decay):
    """Row by row, as Adam keeps its averages: Kingma & Ba 2015, algorithm 1."""
    out, m, weight = [], 0.0, 0.0
    for value, rows in zip(values, count, strict=True):
        if np.isfinite(value) and rows > 0:
            for _ in range(int(rows)):
                m = decay * m + (1 - decay) * value
                weight = decay * weight + (1 - decay)
        out.append(m / weight if weight else np.nan)
    return np.array(out)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.98, 0.998])
@pytest.mark.parametrize("n", [0, 1, 7, 3000])
def test_as_a_plain_loop(n, decay):
    values, count = 3 + RNG.normal(size=n), RNG.integers(0, 5, n).astype(float)
    values[RNG.random(n) < 0.1] = np.nan
    values[n // 3 : n // 3 + n // 50] = np.inf
    assert ema(values, count, decay) == pytest.approx(loop(values, count, decay), rel=1e-9, nan_ok=True)


def test_as_defined():
    values, decay = RNG.normal(size=400), 0.98
    weights = decay ** np.arange(400)[::-1]
    average = ema(values, np.ones(400), decay)
    assert average[-1] == pytest.approx((weights * values).sum() / weights.sum())
    assert average[0] == pytest.approx(values[0])
    assert ema(np.full(50, 7.0), np.ones(50), decay) == pytest.approx(np.full(50, 7.0))


def test_a_mean_of_eight_rows_weighs_and_ages_as_eight():
    values = RNG.normal(size=50)
    rows = ema(np.repeat(values, 8), np.ones(400), 0.9)[7::8]
    assert ema(values, np.full(50, 8.0), 0.9) == pytest.approx(rows)


@pytest.mark.parametrize("size", [1e-300, 1e38, 1e300, 1.7e308])
def test_of_any_size(size):
    values = RNG.uniform(-1, 1, 20_000)
    assert ema(size * values, np.ones(20_000), 0.9) / size == pytest.approx(
        loop(values, np.ones(20_000), 0.9), abs=1e-9
    )


def test_long_runs_and_whole_buckets_keep_their_precision():
    values = 5 + RNG.normal(size=8192)
    for count in (1.0, 1024.0):
        average = ema(values, np.full(8192, count), 0.98)
        assert average == pytest.approx(values if count > 1 else loop(values, np.ones(8192), 0.98), rel=1e-8)


def test_without_a_value_there_is_no_average():
    assert np.isnan(ema(np.full(5, np.nan), np.ones(5), 0.9)).all()
    assert np.isnan(ema(np.array([np.nan, 2.0]), np.ones(2), 0.9)).tolist() == [True, False]
