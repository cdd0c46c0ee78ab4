"""`cmbench recipe show --schedules`: the numbers against closed forms, and what is drawn of them."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats
from tiny import set_options

from cmbench.cli import _plots
from cmbench.cli._plots import Series

ECT = ["objective={kind='ect', P_mean=-1.1, P_std=2.0, q=2.0, stages=8}", "train.steps=800"]
ICT = ["name=ict", "objective={kind='ict'}", "train.steps=400000"]


@pytest.fixture
def schedules(cmbench):
    def call(*overrides: str) -> dict:
        outcome = cmbench("recipe", "show", "tiny.toml", "--schedules", "--json", *set_options(overrides))
        assert (outcome.code, outcome.err) == (0, "")
        (found,) = json.loads(outcome.out)["schedules"]
        return found

    return call


def log_edges(look: dict) -> np.ndarray:
    return np.log(look["edges"])


def masses(look: dict, key: str) -> np.ndarray:
    return np.array(look[key]) * np.diff(log_edges(look))


def test_published_curricula(schedules):
    """N at steps, from the papers' formulas: methods.md, section 6."""
    ct = schedules("objective={kind='ct', s_0=2, s_1=150, mu_0=0.9}", "train.steps=800001")
    N = dict(zip(ct["steps"], ct["scalars"]["N"], strict=True))
    assert (N[0], N[200_000], N[400_000], N[600_000], N[800_000]) == (2, 76, 107, 131, 151)
    mu = dict(zip(ct["steps"], ct["scalars"]["mu"], strict=True))
    assert mu[0] == pytest.approx(0.9)
    assert all(mu[k] == pytest.approx(math.exp(2 * math.log(0.9) / N[k])) for k in N)
    ict = schedules(*ICT)
    at = {21: (50_000, 100_000), 41: (100_000, 150_000), 1281: (350_000, 400_000)}
    for step, value in zip(ict["steps"], ict["scalars"]["N"], strict=True):
        for wanted, (begin, end) in at.items():
            assert (value == wanted) == (begin <= step < end)
    assert [look["step"] for look in ict["noise"]] == [0, 199_999, 399_999]


def test_the_learning_rate(schedules):
    found = schedules("optimizer={lr=0.01, warmup=10, decay='cosine'}", "train.steps=1000")
    for step, lr in zip(found["steps"], found["scalars"]["lr"], strict=True):
        assert lr == pytest.approx(0.01 * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / 1000)))


def test_a_weight_that_is_not_finite_is_said_to_be(cmbench):
    sets = set_options(["objective={kind='denoise', P_mean=-21.0, P_std=10.0}"])
    outcome = cmbench("recipe", "show", "tiny.toml", "--schedules", *sets)
    assert outcome.code == 0
    assert "nan" not in outcome.out
    assert "the weight is not finite at step 0, 5, 11: such a run diverges" in outcome.out


@pytest.mark.parametrize(
    ("overrides", "P_mean", "P_std"),
    [
        (ECT, -1.1, 2.0),
        (["objective={kind='denoise'}"], -1.2, 1.2),
        (["path.kind=trigflow", "objective={kind='sct', P_mean=-1.0, P_std=1.4}"], -1.0, 1.4),
        (["path.kind=vp", "objective={kind='continuous'}"], -1.1, 2.0),
        (["path.kind=trigflow", "objective={kind='scd'}", "teacher.kind=oracle"], -1.0, 1.4),
    ],
)
def test_log_normal_proposals(schedules, overrides, P_mean, P_std):
    """The mass of every bin is that of the normal law of log sigma, by quadrature, to five standard errors."""
    for look in schedules(*overrides)["noise"]:
        edges = log_edges(look)
        law = stats.norm(P_mean, P_std)
        wanted = np.array([integrate.quad(law.pdf, a, b)[0] for a, b in pairwise(edges)])
        if overrides is ECT:  # times below 2 sigma_min are raised to it, which lies in one bin
            wanted[np.searchsorted(edges, math.log(0.004)) - 1] += law.cdf(math.log(0.004))
            wanted[: np.searchsorted(edges, math.log(0.004)) - 1] = 0
        found = masses(look, "proposal")
        n = 2**16
        error = 5 * np.sqrt(wanted / n) + 5 / n
        keep = np.abs(edges[:-1] - math.log(0.004)) > np.diff(edges)[0] if overrides is ECT else np.full(48, True)
        assert (np.abs(found - wanted) < error)[keep].all()
        assert found.sum() + look["outside"][0] == pytest.approx(1, abs=1e-9)


def test_the_effective_weight_of_a_closed_form(schedules):
    """denoise: lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, times the density, of area 1."""

    def weighted(u):
        return (math.exp(2 * u) + 0.25) / (0.25 * math.exp(2 * u)) * math.exp(-(((u + 1.2) / 1.2) ** 2) / 2)

    looks = schedules("objective={kind='denoise'}")["noise"]
    total = integrate.quad(weighted, -12, 12, points=[-4, -1])[0]
    wanted = np.array([integrate.quad(weighted, a, b)[0] for a, b in pairwise(log_edges(looks[0]))]) / total
    for look in looks:
        many = np.array(look["proposal"]) > 0.05  # where samples are many
        assert masses(look, "weight")[many] == pytest.approx(wanted[many], rel=0.1)


def test_the_interval_of_ect(schedules):
    """(t - r) / t = min(n(t) / 2^(stage + 1), 1 - sigma_min / t), n(t) = 1 + 8 sigmoid(-t), at stages 0, 3 and 7."""
    looks = schedules(*ECT)["noise"]
    assert [look["step"] for look in looks] == [0, 399, 799]
    for look, stage in zip(looks, (0, 3, 7), strict=True):
        edges = np.array(look["edges"])
        for low, high, found in zip(edges, edges[1:], look["interval"], strict=False):
            if found is None or low < 0.0045:
                continue
            ends = [min((1 + 8 / (1 + math.exp(t))) / 2 ** (stage + 1), 1 - 0.002 / t) for t in (low, high)]
            assert min(ends) - 1e-3 <= found <= max(ends) + 1e-3


def test_the_grid_of_ct_and_its_pairs(schedules):
    """N = 2: one time, 80, whose interval reaches down to sigma_min."""
    found = schedules("objective={kind='ct', s_0=2, s_1=150}")
    look = found["noise"][0]
    assert found["scalars"]["N"][0] == 2
    assert [mass for mass in masses(look, "proposal") if mass] == pytest.approx([1.0])
    assert look["interval"][-1] == pytest.approx(1 - 0.002 / 80)
    assert look["outside"] == [0, 0]


def test_of_which_weights_it_is_said_that_they_depend(schedules):
    assert schedules(*ECT)["notes"] == []
    trig = schedules("path.kind=trigflow", "objective={kind='sct'}")
    assert [note.split(":")[0] for note in trig["notes"]] == ["the weight is learned"]
    assert trig["noise"][0]["weight"] == trig["noise"][0]["proposal"]  # e^0
    assert schedules("path.kind=trigflow", "objective={kind='sct', weighting='cosine'}")["notes"] == []
    flow = schedules("path.kind=linear", "objective={kind='meanflow'}")
    assert [note.split(":")[0] for note in flow["notes"]] == ["the weight depends on the loss"]
    apart = np.array([x for x in flow["noise"][0]["interval"] if x is not None])
    assert 0 < apart.mean() < 0.25  # a quarter of the batch has r < t


def test_without_data_teacher_or_perceptual_weights(schedules, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "__init__", lambda *a, **k: pytest.fail("looked for the pictures"))
    found = schedules(
        "data={kind='images', name='cifar10'}", "network={kind='unet'}", "objective={kind='ct', distance='lpips'}"
    )
    assert found["scalars"]["N"][0] == 2
    assert schedules("objective={kind='tcm'}", "teacher={kind='run', run='nobody'}")["noise"]


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_what_is_drawn_fits(cmbench, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    outcome = cmbench("recipe", "show", "tiny.toml", "--schedules", *set_options(ECT))
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) == min(columns, 100)
    assert "\x1b" not in outcome.out
    text = outcome.out
    assert "stage over the steps: 0 to 7" in text
    assert "the same at every step" in text  # the proposal
    assert "1 step 0   2 step 399   3 step 799" in text  # the interval
    assert "nan" not in text


def test_two_recipes_against_each_other(cmbench, home):
    (home / "other.toml").write_text(
        'extends = "tiny.toml"\nname = "other"\n[objective]\nkind = "ict"\n[train]\nsteps = 400\n'
    )
    outcome = cmbench("recipe", "show", "tiny.toml", "other.toml", "--schedules")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("o tiny   x other\n")
    assert "N over the share of the run: 2 to 145; 11 to 1281" in outcome.out
    chart = outcome.out.split("N over")[1].split("over the noise")[0]
    assert "o" in chart
    assert "x" in chart
    both = json.loads(cmbench("recipe", "show", "tiny.toml", "other.toml", "--schedules", "--json").out)["schedules"]
    assert [s["name"] for s in both] == ["tiny", "other"]


def test_another_recipe_wants_the_option(cmbench, home):
    outcome = cmbench("recipe", "show", "tiny.toml", "tiny.toml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--schedules" in outcome.err


def test_charts_survive_what_is_not_finite(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    gaps = Series([0, 1, 2, 3, math.inf], [math.nan, 1.0, None, math.inf, 2.0], "o", joined=True)
    text = _plots.chart([gaps], {0.0: "0", 3.0: "3"}, 8).plain
    assert sum(line.count("o") for line in text.splitlines()) == 1
    assert "nothing" in _plots.chart([Series([0], [None], "o", joined=False)], {})
    flat = _plots.chart([Series([0, 1], [0.0, 0.0], "o", joined=False)], {0.0: "0", 1.0: "1"}, 8).plain
    assert max(map(len, flat.splitlines())) == 60
    many = _plots._finite(Series(range(100_000), [float(i) for i in range(100_000)], "o", joined=True))
    assert len(many.x) <= 4 * 60
    assert (many.x[0], many.y[-1]) == pytest.approx((many.y[0], many.x[-1]))


def test_ticks_of_a_log_axis():
    assert list(_plots.log_ticks(0.002, 80.0).values()) == ["0.002", "80", "0.01", "0.1", "1", "10"]
    assert list(_plots.log_ticks(0.09, 1.2).values()) == ["0.09", "1.2"]
