import numpy as np
import pytest
import torch

from cmbench import quantities
from cmbench.contracts import Anatomy, Terms, weighted
from cmbench.engine.meters import Means, Profile


def test_means_are_means_over_the_steps_since_the_last_flush():
    random = np.random.default_rng(0)
    loss, norm = random.normal(size=7), random.normal(size=7)
    means = Means()
    for a, b in zip(loss, norm, strict=True):
        means.add({"loss": torch.tensor(a), "norm": torch.tensor(b)})
    assert means.flush() == pytest.approx({"loss": loss.mean(), "norm": norm.mean()}, rel=1e-12)
    assert means.flush() == {}
    means.add({"loss": torch.tensor(3.0), "norm": torch.tensor(4.0)})
    assert means.flush() == {"loss": 3.0, "norm": 4.0}


def test_means_do_not_lose_small_numbers_to_float32():
    means = Means()
    means.add({"loss": torch.tensor(1e8)})
    for _ in range(4):
        means.add({"loss": torch.tensor(1.0)})
    assert means.flush() == {"loss": (1e8 + 4) / 5}


def test_means_hold_no_graph():
    means = Means()
    means.add({"loss": torch.ones((), requires_grad=True) * 2})
    assert not means.sums["loss"].requires_grad


def terms(t: np.ndarray, seed: int, tangent: bool) -> Terms:
    random = np.random.default_rng(seed)
    draw = lambda: torch.tensor(random.uniform(0.1, 2, len(t)))  # noqa: E731
    return weighted(draw(), draw(), torch.tensor(t), draw() if tangent else None)


@pytest.mark.parametrize("tangent", [True, False])
def test_a_profile_is_numpys(tangent):
    edges = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    times = [np.random.default_rng(k).uniform(0.5, 20, 40) for k in range(3)]
    times[0] = times[0][(times[0] < 4) | (times[0] >= 8)]
    times[1] = times[1][(times[1] < 4) | (times[1] >= 8)]
    times[2] = times[2][(times[2] < 4) | (times[2] >= 8)]  # the third bin stays empty
    batches = [terms(t, k, tangent) for k, t in enumerate(times)]
    profile = Profile(torch.tensor(edges))
    for batch in batches:
        profile.add(batch)
    found = profile.flush()

    t = np.concatenate([b.t.numpy() for b in batches]).clip(1.0, 15.999)  # what lies outside: the outer bins
    values = {
        "loss": np.concatenate([b.loss.numpy() for b in batches]),
        "weight": np.concatenate([b.weight.numpy() for b in batches]),
    }
    values["weighted_loss"] = values["loss"] * values["weight"]
    if tangent:
        values["tangent_norm"] = np.concatenate([b.tangent_norm.numpy() for b in batches])
    count, _ = np.histogram(t, edges)
    assert set(found) == {"count", *values}
    assert found["count"] == count.tolist()
    assert count[2] == 0
    for name, value in values.items():
        sums, _ = np.histogram(t, edges, weights=value)
        assert found[name][2] is None
        filled = [i for i, n in enumerate(count) if n]
        assert [found[name][i] for i in filled] == pytest.approx([sums[i] / count[i] for i in filled], rel=1e-12)
    assert profile.flush() == {}


def test_an_edge_belongs_to_the_bin_above_it():
    profile = Profile(torch.tensor([1.0, 2.0, 4.0]))
    t = torch.tensor([0.0, 1.0, 1.999, 2.0, 3.9, 4.0, 99.0])
    profile.add(weighted(torch.ones(7), torch.ones(7), t))
    assert profile.flush()["count"] == [3, 4]


EDGES = torch.tensor([1.0, 2.0, 4.0, 8.0])


def test_variance_of_the_gradients_at_the_output_is_numpys():
    """Over the samples of a bin from all batches; 0 for one sample, None for none."""
    random = np.random.default_rng(0)
    t = [np.array([1.5, 1.1, 3.0, 1.9]), np.array([1.2, 1.3])]
    norms = [random.uniform(0.5, 3, 4), random.uniform(0.5, 3, 2)]
    profile = Profile(EDGES)
    for times, own in zip(t, norms, strict=True):
        ones = torch.ones(len(times))
        profile.add(weighted(ones, ones, torch.tensor(times)), torch.tensor(own))
    found = profile.flush()
    first = np.concatenate([norms[0][[0, 1, 3]], norms[1]])
    assert found["count"] == [5, 1, 0]
    assert found["F_gradient"] == [pytest.approx(first.mean()), pytest.approx(norms[0][2]), None]
    assert found["F_gradient_variance"] == [pytest.approx(first.var()), pytest.approx(0, abs=1e-12), None]
    assert "F_gradient_square" not in found


def test_variance_is_not_negative_where_it_is_lost_to_rounding():
    profile = Profile(EDGES)
    for value in (0.1, 1e4 / 3, 7e8 / 9):
        ones = torch.ones(7)
        profile.add(weighted(ones, ones, 1.5 * ones), torch.full((7,), value, dtype=torch.float64))
        assert profile.flush()["F_gradient_variance"][0] >= 0


def test_anatomy_is_counted_by_its_own_samples():
    """Means of the parts are over the samples that a look took, not over the batch."""
    profile = Profile(EDGES)
    ones = torch.ones(4)
    profile.add(weighted(2 * ones, ones, torch.tensor([1.5, 1.5, 3.0, 5.0])))
    profile.add_anatomy(Anatomy(torch.tensor([1.5, 3.0]), {"stable": torch.tensor([4.0, 6.0])}))
    profile.add_anatomy(Anatomy(torch.tensor([3.5]), {"stable": torch.tensor([10.0])}))
    found = profile.flush()
    assert found["count"] == [2, 1, 1]
    assert found["anatomy_count"] == [1, 2, 0]
    assert found["anatomy_stable"] == [4, 8, None]
    assert found["loss"] == [2, 2, 2]
    assert profile.flush() == {}


def test_times_of_another_precision_find_the_same_bins():
    profile = Profile(EDGES.double())
    profile.add(weighted(torch.ones(3), torch.ones(3), torch.tensor([1.0, 2.0, 4.0])))
    profile.add(weighted(torch.ones(3), torch.ones(3), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)))
    assert profile.flush()["count"] == [2, 2, 2]


def test_what_an_objective_tells_of_each_sample_is_profiled_under_its_name(monkeypatch):
    monkeypatch.setitem(quantities.OF_SAMPLES, "curvature", quantities.Quantity("curvature of f"))
    t, told = torch.tensor([1.5, 1.7, 3.0]), torch.tensor([2.0, 4.0, 8.0])
    loss = torch.ones(3, requires_grad=True)
    own = Terms(loss.mean(), t, loss.detach(), torch.ones(3), per_sample={"curvature": told})
    profile = Profile(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    profile.add(own)
    rows = profile.flush()
    assert rows["curvature"] == [3.0, 8.0, None]
    assert rows["count"] == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["count", "loss", "tangent_norm", "anatomy_stable", "gradient_share"])
def test_what_an_objective_tells_takes_no_name_that_means_something(name):
    t = torch.ones(3)
    with pytest.raises(ValueError, match=f"Terms.per_sample: found {name}, which the engine writes itself"):
        Profile(torch.tensor([1.0, 2.0])).add(Terms(t.mean(), t, t, t, per_sample={name: t}))


@pytest.mark.parametrize("rows", [lambda x: x[:1].expand(8), lambda x: x[:8], lambda x: x[::2][:8]])
def test_a_profile_is_of_the_values_of_each_step_where_an_objective_moves_its_own(rows):
    """Such as one weight for all samples, kept in the objective, and moved after each step."""
    kept, profile = torch.full((16,), 1.0), Profile(torch.tensor([0.0, 1.0, 2.0]))
    for _ in range(3):
        profile.add(Terms(torch.ones(()), rows(kept) * 0 + 0.5, torch.ones(8), rows(kept)))
        kept += 1
    assert profile.flush()["weight"] == [2.0, None]
