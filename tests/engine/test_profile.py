"""What a run measures of itself beside its loss: gradients at the output, the tangent's parts, the true error."""

import math
from itertools import pairwise

import pytest
import torch

from cmbench.engine import loop, trainer
from cmbench.engine.trainer import Trainer
from cmbench.equations.oracle import flow
from cmbench.model import Model

SCT = ["path.kind=trigflow", "objective={kind='sct', tangent_method='jvp'}"]


def build(home, *overrides: str) -> Trainer:
    return trainer.from_file(home / "tiny.toml", overrides)


def events(built: Trainer, kind: type) -> list:
    return [event for event in loop.train(built) if isinstance(event, kind)]


@pytest.mark.parametrize("micro", [0, 3])
@pytest.mark.parametrize("path", ["edm", "trigflow"])
def test_gradient_at_the_output_is_that_of_each_samples_own_loss(home, monkeypatch, path, micro):
    """With unit weight on F_theta the loss is ||F - F*||^2 / D, so that its gradient is 2 sqrt(loss / D)."""
    built = build(home, "objective={kind='denoise'}", f"path.kind={path}", f"train.micro_batch_size={micro}")
    seen, add = [], built.state.profile.add
    monkeypatch.setattr(built.state.profile, "add", lambda *given: seen.append(given) or add(*given))
    list(loop.train(built))
    assert len(seen) == 12
    for terms, F_gradient in seen:
        torch.testing.assert_close(F_gradient, 2 * (terms.weight * terms.loss / 2).sqrt(), rtol=1e-4, atol=1e-6)


def test_profile_rows_hold_the_gradients_and_their_variance(home):
    for event in events(build(home), loop.Profiled):
        row = event.values
        assert sum(row["count"]) == 32
        for key in ("F_gradient", "F_gradient_variance"):
            assert [v is None for v in row[key]] == [n == 0 for n in row["count"]]


@pytest.mark.parametrize(("every", "n", "looks"), [(4, 5, 1), (2, 3, 2), (5, 100, 1)])
def test_anatomy_takes_some_samples_now_and_then(home, every, n, looks):
    """Steps count from 0, rows come every four steps, a batch has eight samples."""
    built = build(home, *SCT, f"profile.anatomy_every={every}", f"profile.anatomy_n={n}")
    rows = [event.values for event in events(built, loop.Profiled)]
    assert [sum(row["anatomy_count"]) for row in rows] == [looks * min(n, 8)] * 3
    assert [sum(row["count"]) for row in rows] == [32] * 3
    for row in rows:
        assert {"anatomy_stable", "anatomy_spatial", "anatomy_temporal"} <= set(row)


@pytest.mark.parametrize("overrides", [[*SCT, "profile.anatomy_every=0"], []])
def test_anatomy_is_left_out_where_it_is_not_wanted_or_there_is_none(home, overrides):
    for event in events(build(home, *overrides), loop.Profiled):
        assert not [key for key in event.values if key.startswith("anatomy")]


def test_looking_does_not_change_the_training(home):
    """Nor do the dropout masks of a look depend on what was drawn before."""
    overrides = [*SCT, "network.dropout=0.3", "snapshot.every=0", "evaluate.every=0"]
    quiet = build(home, *overrides, "profile.anatomy_every=0", "profile.every=0")
    list(loop.train(quiet))
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        busy = build(home, *overrides, "profile.anatomy_every=1")
        rows.append([event.values for event in events(busy, loop.Profiled)])
        for name, tensor in quiet.state.model.state_dict().items():
            assert torch.equal(busy.state.model.state_dict()[name], tensor)
    assert rows[0] == rows[1]


def exactly(built: Trainer, monkeypatch, shift=None, rtol: float = 1e-8) -> None:
    """Put the exact flow of the oracle in the place of the model, plus shift(sigma) in the first coordinate."""
    oracle, epsilon = built.data.oracle(), built.state.model.parameterisation.epsilon or 1e-6
    ends: dict[bytes, torch.Tensor] = {}  # every evaluation asks for those of the same points

    def f(x, sigma, labels=None):
        key = x.numpy().tobytes() + sigma.numpy().tobytes()
        if key not in ends:
            ends[key] = flow(lambda y, s: oracle.denoise(y, s, labels), x, sigma[0].item(), epsilon, rtol=rtol)
        end = ends[key].clone()
        if shift is not None:
            end[:, 0] += shift(sigma[0].item())
        return end

    monkeypatch.setattr(Model, "on_edm_path", lambda model: f)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["network.class_conditional=true"],
        ["path.boundary=zero"],
        [*SCT],
    ],
    ids=["edm", "labels", "boundary zero", "trigflow"],
)
def test_the_exact_flow_has_no_true_error(home, monkeypatch, overrides):
    built = build(home, *overrides, "evaluate.true_error_n=12")
    trained = built.true_error()
    assert len(trained.bins) == 4
    assert min(*trained.bins, trained.mean, trained.at_sigma_max) > 1e-4
    exactly(built, monkeypatch)
    exact = built.true_error()
    assert max(*exact.bins, exact.mean, exact.at_sigma_max) < 2e-5


def test_true_errors_are_of_the_middles_of_the_bins_and_of_sigma_max_at_last(home, monkeypatch):
    built = build(home, "evaluate.true_error_n=6")
    exactly(built, monkeypatch, shift=math.log10)
    edges = built.state.profile.edges.tolist()
    sigmas = [math.sqrt(a * b) for a, b in pairwise(edges)]
    errors = built.true_error()
    assert errors.bins == pytest.approx([abs(math.log10(sigma)) for sigma in sigmas], abs=1e-4)
    assert errors.at_sigma_max == pytest.approx(math.log10(80), abs=1e-4)


@pytest.mark.parametrize("overrides", [[], ["objective.kind=ict"], [*SCT]], ids=["karras", "log", "trigflow"])
def test_the_mean_true_error_is_over_the_same_noise_levels_whatever_the_bins(home, monkeypatch, overrides):
    """An error of log10 sigma + 3 from .02 to 5: its mean over the log is 3 + (log10 .02 + log10 5) / 2."""
    built = build(home, *overrides, "profile.bins=64", "evaluate.true_error_n=3")
    exactly(built, monkeypatch, shift=lambda sigma: 3 + math.log10(sigma), rtol=1e-5)
    assert built.true_error().mean == pytest.approx(3 + (math.log10(0.02) + math.log10(5)) / 2, abs=3e-3)


@pytest.mark.parametrize(
    ("overrides", "lowest", "over"),
    [
        (["path.sigma_max=2"], None, (0.02, 2)),
        (["objective.kind=ict"], 1.0, (1, 5)),
        (["path.sigma_min=0.3"], None, (0.3, 5)),
    ],
)
def test_a_mean_over_fewer_noise_levels_is_of_those_that_are_trained_and_says_so(
    home, monkeypatch, overrides, lowest, over
):
    """An error of log10 sigma + 3 on them: not what it is at their ends, spread over the others."""
    built = build(home, *overrides, "profile.bins=64", "evaluate.true_error_n=3", "train.steps=1")
    if lowest:  # as an objective that has one says
        monkeypatch.setattr(type(built.objective), "sigma_lowest", staticmethod(lambda config: lowest), raising=False)
    exactly(built, monkeypatch, shift=lambda sigma: 3 + math.log10(sigma), rtol=1e-5)
    errors = built.true_error()
    assert errors.is_partial
    assert errors.mean == pytest.approx(3 + sum(map(math.log10, over)) / 2, abs=5e-3)
    (found,) = events(built, loop.Evaluated)[-1:]
    assert found.values["true_error_trained"] == pytest.approx(errors.mean, rel=1e-3)
    assert "true_error" not in found.values


def test_true_error_is_written_beside_the_distance_of_samples(home):
    for event in events(build(home, "evaluate.true_error_n=6"), loop.Evaluated):
        bins = event.profile["true_error"]
        assert len(bins) == 4
        assert min(bins) < event.values["true_error"] < max(bins)
        assert event.values["true_error_1step"] > 0
        assert event.values["sw_1step"] > 0


@pytest.mark.parametrize("overrides", [["evaluate.true_error_n=0"], ["objective={kind='denoise'}"]])
def test_there_is_no_true_error_where_it_is_not_wanted_or_means_nothing(home, overrides):
    built = build(home, *overrides)
    assert built.true_error() is None
    for event in events(built, loop.Evaluated):
        assert event.profile == {}
        assert set(event.values) == {"sw_1step", "sw_2step", "forwards", "forwards_per_image"}


def test_true_error_leaves_the_model_as_it_was(home):
    built = build(home, "ema.lengths=[]", "network.dropout=0.5", "evaluate.true_error_n=6")
    built.state.model.train()
    state = torch.random.get_rng_state()
    first = built.true_error()
    assert built.state.model.training
    assert first == built.true_error()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("overrides", "lowest"),
    [([], 0.002), (["objective={kind='tcm', t_prime=0.5}"], 0.5), (["objective={kind='denoise'}"], 0.002)],
)
def test_lowest_noise_level_that_is_trained(home, overrides, lowest):
    from cmbench.engine import build as builds
    from cmbench.recipe import load

    given = load(home / "tiny.toml", overrides + (["teacher.kind=run", "teacher.run=x"] if lowest == 0.5 else []))
    assert builds.sigma_lowest(builds.complete(given, "x")) == lowest


@pytest.mark.parametrize("overrides", [["objective={kind='denoise'}"], SCT], ids=["denoise", "sct"])
def test_double_times_are_given_to_the_objective_and_change_little(home, monkeypatch, overrides):
    seen, rows = [], []
    for precision in ("float32", "float64"):
        built = build(home, *overrides, f"path.time_precision={precision}", "log.every=1", "evaluate.every=0")
        add = built.state.profile.add
        monkeypatch.setattr(
            built.state.profile, "add", lambda terms, *rest, add=add: seen.append(terms.t.dtype) or add(terms, *rest)
        )
        rows.append([event.values["unweighted_loss"] for event in events(built, loop.Metrics)])
        assert {p.dtype for p in built.state.model.parameters()} == {torch.float32}
        assert built.sample(4).dtype == torch.float32
    assert seen == [torch.float32] * 12 + [torch.float64] * 12
    assert rows[0] == pytest.approx(rows[1], rel=1e-3)
    assert rows[0] != rows[1]
