"""The shares of bins, against samples counted one by one and against closed forms."""

import math

import numpy as np
import pytest
import torch

from cmbench.contracts import Terms
from cmbench.engine.meters import Profile
from cmbench.rundir.shares import BATCH, DEBT, GRADIENT, debt, history, known, log_normal, newest, shares

RNG = np.random.default_rng(0)


def test_shares_of_a_batch_counted_sample_by_sample():
    edges = torch.linspace(0, 1, 6, dtype=torch.float64)
    t = torch.from_numpy(RNG.beta(2, 5, 4000))
    gradient = torch.from_numpy(RNG.normal(size=(4000, 7))) * (0.1 + 3 * t[:, None] ** 2)
    norm = gradient.norm(dim=1)
    meter = Profile(edges)
    ones = torch.ones_like(t)
    for part in torch.arange(4000).split(500):  # several batches, as a run flushes them
        meter.add(Terms(total=ones.mean(), loss=ones[part], weight=ones[part], t=t[part]), norm[part])
    row = meter.flush()
    found = shares(row["count"], row["F_gradient"], row["F_gradient_variance"])
    bins = np.clip((t.numpy() * 5).astype(int), 0, 4)
    total = gradient.square().sum()
    for i in range(5):
        assert found.batch[i] == pytest.approx((bins == i).mean())
        assert found.gradient[i] == pytest.approx(float(gradient[bins == i].square().sum() / total), rel=1e-6)


def test_the_evening_proposal_evens_it_out():
    count, norm = np.array([10, 40, 30, 20]), np.array([1.0, 0.2, 3.0, 0.5])
    variance = np.array([0.5, 0.01, 2.0, 0.0])
    first = shares(count, norm, variance)
    again = shares(1e6 * first.evening, norm, variance)
    assert again.gradient == pytest.approx([0.25] * 4)
    assert again.evening == pytest.approx(first.evening)
    assert [part.sum() for part in first] == pytest.approx([1, 1, 1])


def test_even_norms_leave_the_proposal_and_want_a_flat_one():
    count = np.array([1, 2, 3, 4])
    found = shares(count, np.ones(4), np.zeros(4))
    assert found.gradient == pytest.approx(found.batch)
    assert found.evening == pytest.approx([0.25] * 4)


def test_bins_that_say_nothing():
    found = shares([0, 2, 2, 4], [np.nan, 1.0, np.inf, 0.0], [np.nan, 0.0, 0.0, 0.0])
    assert found.batch == pytest.approx([np.nan, 0.25, 0.25, 0.5], nan_ok=True)
    assert found.gradient == pytest.approx([np.nan, 1.0, np.nan, 0.0], nan_ok=True)
    assert found.evening == pytest.approx([np.nan, 1.0, np.nan, np.nan], nan_ok=True)
    assert all(np.isnan(part).all() for part in shares([0, 0], [1, 1], [0, 0]))


@pytest.mark.parametrize(("mean", "deviation"), [(-1.1, 1.2), (0.5, 0.4)])
def test_the_log_normal_of_bins_is_the_one_they_were_drawn_from(mean, deviation):
    edges = np.linspace(-8, 8, 41)
    cdf = np.array([0.5 * (1 + math.erf((e - mean) / (math.sqrt(2) * deviation))) for e in edges])
    found = log_normal(np.diff(cdf), np.exp(edges).tolist())
    assert found[0] == pytest.approx(mean, abs=1e-3)
    assert found[1] == pytest.approx(math.sqrt(deviation**2 + 0.4**2 / 6), rel=1e-3)  # even within bins: a little wider
    flat = log_normal(np.full(40, 1 / 40), np.exp(edges).tolist())
    assert flat == pytest.approx((0.0, 16 / math.sqrt(12)))
    assert log_normal([np.nan], [1.0, 2.0]) is None
    assert log_normal([1.0], [1.0, 2.0, 3.0]) is None


def test_debts_sum_to_the_error_and_say_where_it_arises():
    error = np.array([0.0, 0.1, 0.1, np.nan, 0.4, 0.3])
    found = debt(error)
    assert found == pytest.approx([0.0, 0.1, 0.0, np.nan, 0.3, -0.1], nan_ok=True)
    assert np.nansum(found) == pytest.approx(0.3)
    assert np.isnan(debt([np.nan, np.nan])).all()


def test_an_f_that_jumps_in_one_bin_owes_it_there():
    """f is exact below sigma = 1 and off by a constant above: all debt lies in the bin of the jump."""
    middles = np.geomspace(0.01, 50, 20)
    assert np.flatnonzero(debt(np.where(middles > 1, 0.7, 0.0))).tolist() == [int(np.searchsorted(middles, 1))]


def rows_of(**values):
    return {key: [(step, np.array(bins, np.float32)) for step, bins in rows] for key, rows in values.items()}


def test_histories_have_the_steps_whose_rows_tell_them():
    rows = rows_of(
        count=[(1, [1, 1]), (2, [1, 3]), (3, [1, 1])],
        F_gradient=[(1, [1, 1]), (2, [1, 1])],
        F_gradient_variance=[(1, [0, 0]), (2, [0, 0]), (3, [0, 0])],
        true_error=[(2, [0.5, 0.75])],
    )
    assert known(rows) == [GRADIENT, BATCH, DEBT]
    assert [(step, bins.tolist()) for step, bins in history(rows, GRADIENT)] == [(1, [0.5, 0.5]), (2, [0.25, 0.75])]
    assert [step for step, _ in history(rows, BATCH)] == [1, 2, 3]
    assert [(step, bins.tolist()) for step, bins in history(rows, DEBT)] == [(2, [0.5, 0.25])]
    assert newest(rows) is None  # the newest rows are not of one step
    assert newest({**rows, "F_gradient": rows["F_gradient_variance"]})[0] == 3
    assert known({}) == []
    assert newest({}) is None


def test_rows_of_unequal_bins_are_passed_over():
    rows = rows_of(count=[(1, [1, 1, 1])], F_gradient=[(1, [1, 1])], F_gradient_variance=[(1, [0, 0])])
    assert history(rows, GRADIENT) == []
    assert newest(rows) is None
