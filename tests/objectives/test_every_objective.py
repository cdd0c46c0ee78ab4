"""What holds for all objectives alike."""

import importlib
from dataclasses import replace
from itertools import accumulate, pairwise
from types import SimpleNamespace

import pytest
import torch
import toy
from torch import nn

from cmbench.engine import passes
from cmbench.engine.meters import Profile
from cmbench.equations import gaussian_path
from cmbench.model import Model
from cmbench.networks import dit, mlp, unet
from cmbench.randomness import Part, StepRandom
from cmbench.recipe import component_names

MODULES = {kind: importlib.import_module(f"cmbench.objectives.{kind}") for kind in component_names("objectives")}
CONTINUOUS = ("continuous", "meanflow", "scd", "sct")
PATH = {kind: module.Objective.paths[0] for kind, module in MODULES.items()} | {"continuous": "vp"}
TIMES = {kind: getattr(module.Objective, "times", 1) for kind, module in MODULES.items()}
CUSTOM = {
    "edm": ("edm", "log", "sigma_min"),
    "vp": ("edm", "log", "zero"),
    "trigflow": ("trigflow", "identity", "zero"),
    "linear": ("linear", "identity", "zero"),
}
STEP, STEPS = 30, 100


def on_path(kind, network, shape=(3,), precision="float32", dtype=torch.float64):
    path = PATH[kind]
    scalings, noise, boundary = CUSTOM[path]
    at = gaussian_path.named(path, 0.5)
    return Model(network, shape, at, 0.5, 0.002, 80.0, precision, scalings, noise, boundary, TIMES[kind], dtype)


def build(kind, model, **settings):
    """Build an objective, with a teacher where it takes one."""
    teacher = None
    if kind == "tcm":
        teacher = on_path("tcm", toy.Tiny(0.9, 0.8, -0.3), model.shape).on_edm_path()
    elif MODULES[kind].Objective.teacher != "none":
        teacher = toy.Gaussian()
    objective = MODULES[kind].Objective(MODULES[kind].Config(**settings), model, teacher, STEPS)
    if getattr(objective, "w_phi", None) is not None:
        objective.w_phi.to(next(model.parameters()).dtype)
    return objective


def tiny(kind, **settings):
    model = on_path(kind, toy.Tiny())
    return build(kind, model, **settings), model


def with_dropout(kind, dropout=0.5, classes=0, **settings):
    """An objective around a perceptron that drops half of its units, and that perceptron's layers."""
    torch.manual_seed(0)
    network = mlp.Network(mlp.Config(width=16, depth=2, dropout=dropout), (3,), classes, TIMES[kind])
    nn.init.normal_(network.output.weight)
    model = on_path(kind, network.double())
    return build(kind, model, **settings), model


# Every objective, those with a derivative by each method.
METHODS = [
    pytest.param(kind, {"tangent_method": method} if method else {}, id="-".join(filter(None, (kind, method))))
    for kind in MODULES
    for method in (("dual", "jvp", "finite_difference") if kind in CONTINUOUS else (None,))
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("kind", MODULES)
def test_labels_reach_every_pass_of_the_network_and_the_teacher(calls, random, x_0, kind):
    (objective, model), labels = tiny(kind), torch.arange(64) % 3
    target = getattr(objective, "target", None)
    seen = [calls(network) for network in (model.F_theta, *([target.F_theta] if target else []))]
    terms = objective.loss(model, x_0, labels, STEP, random)
    assert all(seen)
    assert all(args[2] is labels for one in seen for args in one)
    assert not torch.equal(terms.loss, objective.loss(model, x_0, None, STEP, random).loss)


class Augmented(toy.Tiny):
    """A network that is told of an augmentation, and notes it."""

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, x, c_noise, labels=None, augment_labels=None):
        self.told.append(augment_labels)
        y = super().forward(x, c_noise, labels)
        return y if augment_labels is None else y + augment_labels.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("kind", "settings"), METHODS)
def test_labels_of_an_augmentation_reach_every_pass_and_no_later_one(random, x_0, kind, settings):
    model = on_path(kind, Augmented())
    objective, told = build(kind, model, **settings), torch.randn(64, 9)
    target, teacher = getattr(objective, "target", None), on_path("denoise", Augmented())
    networks = [model.F_theta, *([target.F_theta] if target else [])]
    without = objective.loss(model, x_0, None, STEP, random).loss
    for network in networks:
        network.told.clear()
    with passes.told(SimpleNamespace(model=model, objective=objective, teacher=teacher), told):
        terms = objective.loss(model, x_0, None, STEP, random)
        if hasattr(objective, "anatomy"):
            objective.anatomy(model, x_0, None, STEP, random)
        assert teacher.augment_labels is told
    assert teacher.augment_labels is None
    assert all(network.told for network in networks)
    assert all(labels is told for network in networks for labels in network.told)
    assert not torch.equal(terms.loss, without)
    assert torch.equal(objective.loss(model, x_0, None, STEP, random).loss, without)


def test_a_pass_of_a_part_of_the_batch_at_hand_is_refused_where_it_is_augmented():
    model = on_path("denoise", Augmented())
    model.augment_labels = torch.zeros(4, 9)
    with pytest.raises(ValueError, match="found a pass of 3 samples, allowed: the 4 of the batch at hand"):
        model.F(torch.zeros(3, 3), torch.ones(3))


@pytest.mark.parametrize("kind", MODULES)
def test_the_loss_depends_on_seed_and_step_alone(x_0, kind):
    objective, model = tiny(kind)

    def total(seed, step):
        return objective.loss(model, x_0, None, STEP, StepRandom(torch.device("cpu"), seed, step)).total.item()

    one = total(1, 2)
    torch.manual_seed(99)
    assert total(1, 2) == one
    assert len({one, total(1, 3), total(2, 2)}) == 3


@pytest.mark.parametrize(("kind", "settings"), METHODS)
def test_only_the_total_carries_a_gradient(random, x_0, kind, settings):
    """Defect 19: a loss under no_grad trains nothing. The recorded pass is the one whose gradient is profiled."""
    objective, model = tiny(kind, **settings)
    model.train()
    terms = objective.loss(model, x_0, None, STEP, random)
    parts = (terms.t, terms.loss, terms.weight, terms.tangent_norm)
    assert not any(part.requires_grad for part in parts if part is not None)
    terms.total.backward()
    a, b, c, d, e = model.F_theta.weights.grad.tolist()
    assert min(abs(a), abs(b), abs(c)) > 0
    assert d == 0
    assert (e != 0) == (TIMES[kind] == 2)
    assert model.last_F.grad.shape == (64, 3)
    assert model.last_F.grad.flatten(1).norm(dim=1).min() > 0


@pytest.mark.parametrize("kind", MODULES)
def test_the_profile_is_binned_by_the_times_that_the_network_is_told(calls, random, x_0, kind):
    """Defect 3: public code bins its losses by the t of a sampler that the loss does not use."""
    objective, model = tiny(kind)
    seen = calls(model.F_theta)
    terms = objective.loss(model, x_0, None, STEP, random)
    t = terms.t
    told = torch.log(model.path.noise_level(t)) / 4 if CUSTOM[PATH.get(kind, "edm")][1] == "log" else t
    times = [toy.plain(args[1]) for args in seen]
    first = [c_noise if c_noise.ndim == 1 else c_noise[:, 0] for c_noise in times]
    assert any(torch.allclose(c_noise, told, rtol=1e-12, atol=1e-14) for c_noise in first)
    profile = Profile(objective.profile_edges(6))
    profile.add(terms)
    inner = profile.edges[1:-1]
    index = (t[:, None] >= inner).sum(dim=1)
    rows = profile.flush()
    for i in range(6):
        mine = terms.loss[index == i]
        assert rows["count"][i] == len(mine)
        assert rows["loss"][i] == (pytest.approx(mine.mean().item(), rel=1e-12) if len(mine) else None)


@pytest.mark.parametrize(("kind", "settings"), METHODS)
def test_a_sample_that_is_not_finite_is_not_masked(random, x_0, kind, settings):
    """Defect 18: it shows in its own loss, and in the total, which stops the run."""
    objective, model = tiny(kind, **settings)
    x_0[7, 1] = torch.nan
    terms = objective.loss(model, x_0, None, STEP, random)
    assert torch.isnan(terms.total)
    assert torch.isnan(terms.loss).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("kind", MODULES)
def test_pictures_are_vectors_in_another_shape(random, x_0, kind):
    """The toy works on each element alone, so nothing but the shape changes."""
    totals = []
    for shape in ((3,), (1, 3, 1)):
        model = on_path(kind, toy.Tiny(), shape)
        objective = build(kind, model)
        if hasattr(objective, "denoise"):
            objective.denoise = lambda x, sigma, labels: x / (1 + sigma.view(-1, *[1] * (x.ndim - 1)) ** 2)
        terms = objective.loss(model, x_0.view(-1, *shape), None, STEP, random)
        totals.append([terms.total.item(), terms.loss, terms.tangent_norm])
    assert totals[0][0] == pytest.approx(totals[1][0], rel=1e-12)
    torch.testing.assert_close(totals[0][1:], totals[1][1:], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "settings"), METHODS)
def test_every_pass_of_a_step_draws_one_dropout_mask(dropout_masks, x_0, kind, settings, device):
    """Both branches, on a GPU too (defect 1), the value and its derivative (defect 16). The next step draws another."""
    objective, model = with_dropout(kind, **settings)
    objective, model, x_0 = objective.to(device), model.to(device), x_0.to(device)
    if kind == "tcm":
        objective.stage_1 = lambda x, sigma, labels: x
    layers = [dropout_masks(model)]
    if getattr(objective, "target", None) is not None:
        layers.append(dropout_masks(objective.target))
    seen = []
    for step in (STEP, STEP + 1):
        before = torch.get_rng_state()
        objective.loss(model, x_0, None, step, StepRandom(torch.device(device), 0, step))
        assert torch.equal(torch.get_rng_state(), before)
        masks = [mask.clone() for record in layers for mask in record]
        for record in layers:
            record.clear()
        assert len(masks) >= 2
        assert len(masks) % 2 == 0  # two layers a pass
        for layer in (0, 1):
            assert all(torch.equal(mask, masks[layer]) for mask in masks[layer::2])
            assert 0.3 < masks[layer].float().mean() < 0.7
        seen.append(masks)
    assert not torch.equal(seen[0][0], seen[0][1])
    assert not torch.equal(seen[0][0], seen[1][0])


def cut(sizes):
    ends = list(accumulate(sizes, initial=0))
    return [Part(*rows, ends[-1]) for rows in pairwise(ends)]


def gradients(objective, model):
    return {
        name: p.grad for name, p in (*model.named_parameters(), *objective.named_parameters()) if p.grad is not None
    }


def assert_same(found, wanted, within):
    """Within a share of the largest number, for sums are rounded in another order."""
    torch.testing.assert_close(found, wanted, rtol=within, atol=within * wanted.abs().max().item())


@pytest.mark.parametrize("sizes", [[64], [32, 32], [16, 16, 16, 16], [1, 40, 23]], ids=str)
@pytest.mark.parametrize(("kind", "settings"), METHODS)
def test_parts_add_up_to_the_whole_batch(random, x_0, kind, settings, sizes):
    """Terms of each sample, the total, and the gradients of network and objective."""
    labels, parts = torch.arange(64) % 3, cut(sizes)
    objective, model = with_dropout(kind, 0.0, 3, **settings)
    whole = objective.loss(model, x_0, labels, STEP, random)
    whole.total.backward()
    again, copy = with_dropout(kind, 0.0, 3, **settings)
    of_parts = []
    for part in parts:
        own = replace(random, part=part)
        of_parts.append(again.loss(copy, x_0[part.rows], labels[part.rows], STEP, own))
        (part.share * of_parts[-1].total).backward()
    found = passes.joined(of_parts, parts)
    for name in ("t", "r", "loss", "weight", "tangent_norm"):
        if getattr(whole, name) is not None:
            assert_same(getattr(found, name), getattr(whole, name), 1e-12)
    assert_same(found.total, whole.total, 1e-12)
    assert found.scalars == whole.scalars
    assert found.per_sample.keys() == whole.per_sample.keys()
    mine, wanted = gradients(again, copy), gradients(objective, model)
    assert mine.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_same(mine[name], gradient, 1e-10)


@pytest.mark.parametrize("kind", [kind for kind in MODULES if hasattr(MODULES[kind].Objective, "anatomy")])
def test_the_tangent_s_parts_are_those_of_the_whole_batch(random, x_0, kind):
    objective, model = with_dropout(kind, 0.0)
    whole = objective.anatomy(model, x_0, None, STEP, random)
    looks = [
        objective.anatomy(model, x_0[part.rows], None, STEP, replace(random, part=part)) for part in cut([1, 40, 23])
    ]
    assert_same(torch.cat([look.t for look in looks]), whole.t, 1e-12)
    for name, value in whole.values.items():
        assert_same(torch.cat([look.values[name] for look in looks]), value, 1e-12)


@pytest.mark.parametrize("kind", MODULES)
def test_parts_draw_masks_of_their_own(dropout_masks, random, x_0, kind):
    """The first part draws the mask of the step, as a batch of its size; all passes of a part share one."""
    objective, model = with_dropout(kind)
    if kind == "tcm":
        objective.stage_1 = lambda x, sigma, labels: x
    seen, record = [], dropout_masks(model)
    for part in (None, Part(0, 32, 64), Part(32, 64, 64)):
        objective.loss(model, x_0[:32], None, STEP, replace(random, part=part))
        assert all(torch.equal(mask, record[0]) for mask in record[::2])
        seen.append(record[0].clone())
        record.clear()
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("kind", ["cd", "ct", "ect", "ict", "meanflow", "tcm"])
def test_the_other_end_of_an_interval_is_the_one_that_is_used(calls, random, x_0, kind):
    """What the profile is told of r is what the target, or the network of two times, was told."""
    objective, model = tiny(kind)
    target = getattr(objective, "target", None)
    online, seen = calls(model.F_theta), calls(target.F_theta) if target else None
    terms = objective.loss(model, x_0, None, STEP, random)
    if kind == "meanflow":
        torch.testing.assert_close(terms.r, terms.t - toy.plain(online[-1][1])[:, 1], rtol=1e-12, atol=1e-14)
        return
    sigma = torch.exp(4 * (seen or online)[-1][1])
    torch.testing.assert_close(terms.r, sigma.where(terms.r > 0.002, terms.r), rtol=1e-12, atol=0)
    assert (terms.r <= terms.t).all()
    assert not terms.r.requires_grad


class Masked(nn.Module):
    """2 x where a unit is kept, 0 where it is dropped: what was dropped shows in value and derivative alike."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, c_noise, labels):
        return self.dropout(x)


@pytest.mark.parametrize("method", ["dual", "jvp", "finite_difference"])
@pytest.mark.parametrize("device", DEVICES)
def test_value_and_derivative_drop_the_same_units(method, device):
    """Without any help by the random state around them, on the CPU and on a GPU."""
    model = on_path("sct", Masked()).to(device)
    g = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(64, 3, dtype=torch.float64, generator=g).to(device) for _ in range(2))
    t = torch.full((64,), 0.7, dtype=torch.float64, device=device)
    random = StepRandom(torch.device(device), 0, 1)
    for _ in range(2):
        with random.dropout():
            F, dF = model.F_and_derivative(x, t, dx, torch.ones_like(t), method=method)
        kept = F != 0
        assert 0.3 < kept.double().mean() < 0.7
        torch.testing.assert_close(dF, 4 * dx * kept, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", MODULES)
def test_what_an_objective_needs_at_a_step_is_in_its_state(random, x_0, kind):
    """Defects 5 and 8: one built anew from the saved state goes on identically; no stage or decay is remembered."""
    objective, model = tiny(kind)

    def train(objective, model, steps):
        for step in steps:
            model.zero_grad()
            objective.zero_grad()
            random = StepRandom(torch.device("cpu"), 0, step)
            objective.loss(model, x_0, None, step, random).total.backward()
            with torch.no_grad():
                for p in (*model.parameters(), *(p for p in objective.parameters() if p.requires_grad)):
                    p -= 0.01 * p.grad.clamp(-1, 1)
            objective.after_step(model, step)

    train(objective, model, range(10, 20))
    again, copy = tiny(kind)
    again.load_state_dict(objective.state_dict())
    copy.load_state_dict(model.state_dict())
    train(objective, model, range(20, 25))
    train(again, copy, range(20, 25))
    assert torch.equal(model.F_theta.weights, copy.F_theta.weights)
    assert all(torch.equal(a, b) for a, b in zip(objective.parameters(), again.parameters(), strict=True))
    one, other = (o.loss(m, x_0, None, 25, random) for o, m in ((objective, model), (again, copy)))
    assert one.total.item() == other.total.item()
    assert one.scalars == other.scalars


@pytest.mark.parametrize("kind", MODULES)
def test_forward_passes_are_those_that_are_accounted_for(calls, random, x_0, kind):
    """One recorded pass counts three; with the plainest method a tangent by jvp counts two for its one pass."""
    settings = {"tangent_method": "jvp"} if kind in CONTINUOUS else {}
    objective, model = tiny(kind, **settings)
    passes, target = calls(model.F_theta), getattr(objective, "target", None)
    of_target = calls(target) if target is not None else []
    asked = []
    if hasattr(objective, "denoise") and objective.denoise is not None:
        own = objective.denoise
        objective.denoise = lambda *args: asked.append(args) or own(*args)
    if kind == "tcm":
        first = objective.stage_1
        objective.stage_1 = lambda *args: asked.append(args) or first(*args)
    objective.loss(model, x_0, None, STEP, random)
    counted = objective.forwards
    assert counted["student"] == 3
    assert len(asked) == counted.get("teacher", 0)
    assert len(passes) + len(of_target) == 1 + counted.get("target", 0) + counted.get("tangent", 0) / 2


@pytest.mark.parametrize(("kind", "settings"), METHODS)
def test_in_bfloat16_time_is_not_rounded_and_every_weight_is_trained(random, kind, settings):
    """Defect 18: a time in bfloat16 before the embedding. Weights that autocast cached without a graph get none."""
    torch.manual_seed(0)
    network = mlp.Network(mlp.Config(width=16, depth=2), (3,), 0, TIMES[kind])
    nn.init.normal_(network.output.weight)
    model = on_path(kind, network, precision="bfloat16", dtype=torch.float32)
    objective = build(kind, model, **settings)
    if kind == "tcm":
        objective.stage_1 = lambda x, sigma, labels: x
    times, hidden = [], []
    network.time.register_forward_hook(lambda _, args, out: times.append((args[0].dtype, out.dtype)))
    network.output.register_forward_hook(lambda _, args, out: hidden.append(out.dtype))
    x_0 = 0.5 * torch.randn(16, 3)
    objective.loss(model, x_0, None, STEP, random).total.backward()
    assert set(times) == {(torch.float32, torch.float32)}
    assert set(hidden) == {torch.bfloat16}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("kind", ["sct", "ict", "meanflow"])
@pytest.mark.parametrize("network", [unet, dit])
def test_pictures_train_through_the_large_networks(random, kind, network):
    torch.manual_seed(0)
    settings = network.Config(width=8, depth=1) if network is unet else network.Config(width=8, depth=1, heads=2)
    net = network.Network(settings, (1, 4, 4), 3, TIMES[kind])
    model = on_path(kind, net, (1, 4, 4), dtype=torch.float32)
    x_0, labels = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    terms = build(kind, model).loss(model, x_0, labels, STEP, random)
    terms.total.backward()
    assert torch.isfinite(terms.total)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert sum(p.grad.abs().sum() for p in net.parameters() if p.grad is not None) > 0
