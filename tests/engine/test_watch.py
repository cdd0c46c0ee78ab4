"""The watch on the tangent: it finds a planted spike with its bin, and is silent on noise."""

import numpy as np
import pytest
from fake_runs import read_rows

from cmbench import consent
from cmbench.engine import runner
from cmbench.engine.watch import SpikeWatch

LEVELS = np.array([3.0, 1.0, 0.2, 40.0])


def rows(n: int, seed: int = 0) -> list[dict]:
    """Tangent norms that scatter by a tenth around a level of each bin."""
    noise = np.random.default_rng(seed).normal(1, 0.1, (n, 4))
    return [{"step": i, "count": [8] * 4, "tangent_norm": list(LEVELS * row)} for i, row in enumerate(noise)]


def test_noise_is_no_spike():
    watch = SpikeWatch()
    assert all(watch.look(row) == {} for row in rows(500))


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_planted_spike_is_found_with_its_bin_and_score(place):
    given, watch = rows(30), SpikeWatch()
    given[25]["tangent_norm"][place] *= 10
    found = [watch.look(row) for row in given]
    assert [i for i, jumps in enumerate(found) if jumps] == [25]
    assert list(found[25]) == [place]
    past = np.array([row["tangent_norm"][place] for row in given[5:25]])
    median = np.median(past)
    deviation = np.median(np.abs(past - median)) / 0.6744897501960817  # of a normal law
    expected = (given[25]["tangent_norm"][place] - median) / max(deviation, 0.05 * median)
    assert found[25][place] == pytest.approx(expected, abs=0.06)


def test_two_spikes_at_once_are_both_found():
    given, watch = rows(30), SpikeWatch()
    given[20]["tangent_norm"][0] *= 5
    given[20]["tangent_norm"][3] *= 9
    assert [set(watch.look(row)) for row in given] == [set()] * 20 + [{0, 3}] + [set()] * 9


def test_a_fall_is_no_spike():
    given, watch = rows(30), SpikeWatch()
    given[20]["tangent_norm"][1] = 0.0
    assert [watch.look(row) for row in given] == [{}] * 30


def test_nothing_is_judged_before_there_is_a_past():
    given = rows(12)
    for k in range(1, 5):
        watch = SpikeWatch(given[:k])
        assert watch.look({"tangent_norm": [1e9] * 4}) == {}
    assert set(SpikeWatch(given[:5]).look({"tangent_norm": [1e9] * 4})) == {0, 1, 2, 3}


def test_a_norm_that_never_moved_may_move_a_little():
    watch = SpikeWatch({"tangent_norm": [1.0]} for _ in range(10))
    assert watch.look({"tangent_norm": [1.39]}) == {}
    assert watch.look({"tangent_norm": [1.41]}) == {0: 8.2}


def test_the_distant_past_is_forgotten():
    """After a change of level that stays, the new level is the measure."""
    watch = SpikeWatch(rows(30))
    raised = [{"tangent_norm": [10 * v for v in row["tangent_norm"]]} for row in rows(30, seed=1)]
    found = [bool(watch.look(row)) for row in raised]
    assert found[0]
    assert not any(found[20:])


def test_rows_and_bins_without_a_norm_are_passed_over():
    given = rows(20)
    for i, row in enumerate(given):
        row["tangent_norm"][1] = None if i % 5 else 1.0  # four of twenty are known: too few to judge
    watch = SpikeWatch([{"true_error": [1.0] * 4}, *given])
    assert watch.look({"true_error": [99.0] * 4}) == {}
    assert watch.look({"tangent_norm": [3.0, 1e9, None, 1e9]}) == {3: pytest.approx(1e9 / 4, rel=1)}


def test_a_norm_that_is_not_finite_is_no_past():
    given = rows(20)
    given[10]["tangent_norm"][0] = float("inf")
    watch = SpikeWatch(reversed(given))
    assert watch.look({"tangent_norm": [float("inf"), 1.0, 0.2, 40.0]}) == {}
    assert list(watch.look({"tangent_norm": [60.0, 1.0, 0.2, 40.0]})) == [0]


def test_a_watch_that_is_built_from_rows_goes_on_as_the_one_that_saw_them():
    given = rows(60)
    for i in (15, 31, 33, 50):
        given[i]["tangent_norm"][i % 4] *= 8
    watch = SpikeWatch()
    unbroken = [watch.look(row) for row in given]
    for k in (5, 20, 32, 45):
        rebuilt = SpikeWatch(reversed(given[:k]))
        assert [rebuilt.look(row) for row in given[k:]] == unbroken[k:]


@pytest.mark.parametrize("stop", [0, 10])
def test_a_run_warns_of_a_spike_with_its_times(home, put_back, monkeypatch, stop):
    """Row by row, and after a resume, which knows the rows that went before."""

    def planted(built):
        profile = built.state.profile
        flush = profile.flush

        def spiked():
            flush()
            norms = [1.0, 1.0, 50.0 if built.state.step == 11 else 1.0, 1.0]
            return {"count": [2] * 4, "tangent_norm": norms}

        monkeypatch.setattr(profile, "flush", spiked)

    made = runner.create(
        consent.named(home / "tiny.toml", ["profile.every=1", "evaluate.every=0", "snapshot.every=0"]), None, []
    )
    planted(made.trainer)
    if stop:
        records = made.records()
        while made.trainer.state.step < stop:
            next(records)
        records.close()
        made = runner.resume(made.run)
        planted(made.trainer)
    list(made.records())
    (warning,) = (row for row in read_rows(made.run.events) if row["kind"] == "warning")
    edges = made.trainer.state.profile.edges
    assert (warning["step"], warning["bins"]) == (11, [2])
    assert f"in 1 of 4 time bins, most for t from {edges[2]:.3g} to {edges[3]:.3g}" in warning["text"]
    assert "z-score 980" in warning["text"]  # 49 over a twentieth of the median
