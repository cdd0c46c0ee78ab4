"""What doctor says of networks whose faults are known, and of those without."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from cmbench import consent
from cmbench.engine import build, doctor, trainer
from cmbench.engine.doctor import compiled, cost, ddp, machine, network, probe, tangent
from cmbench.equations.gaussian_path import EDM, VP, Linear, TrigFlow
from cmbench.layers.embedding import Fourier, Positional
from cmbench.model import Model
from cmbench.recipe import load

OWN = '''
import torch
from torch import nn
from cmbench.config import Config as Base
from cmbench.layers.embedding import Positional

class Config(Base):
    """Of every network here."""

class Cube(torch.autograd.Function):
    """x^3 with a backward rule and no forward one."""
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g

class Wrong(torch.autograd.Function):
    """x^3 with the forward rule of (2/3) x^3."""
    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g

    @staticmethod
    def jvp(ctx, dx):
        return 2 * ctx.saved_tensors[0] ** 2 * dx

class Network(nn.Module):
    def __init__(self, config, shape, classes):
        super().__init__()
        self.time = Positional(16)
        self.first, self.emb, self.last = nn.Linear(shape[0], 16), nn.Linear(16, 16), nn.Linear(16, shape[0])

    def middle(self, h):
        return h.tanh()

    def forward(self, x, c_noise, labels=None):
        return self.last(self.middle(self.first(x) + self.emb(self.time(c_noise))))

class NoRule(Network):
    def middle(self, h):
        return Cube.apply(h.tanh())

class WrongRule(Network):
    def middle(self, h):
        return Wrong.apply(h.tanh())

class BatchNorm(Network):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.norm = nn.BatchNorm1d(16)

    def middle(self, h):
        return self.norm(h).tanh()

class OwnMasks(Network):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.draws = torch.Generator().manual_seed(0)

    def middle(self, h):
        return h * (torch.rand(h.shape, generator=self.draws) > 0.5) if self.training else h

class Counting(Network):
    """Counts its passes, and has a layer that nothing goes through."""
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.spare = nn.Linear(2, 2)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x, c_noise, labels=None):
        self.passes += 1
        return super().forward(x, c_noise, labels)

class Undistributed(Network):
    """Knows of DDP, and will not have it."""
    def middle(self, h):
        if torch.distributed.is_initialized():
            raise ValueError("one process alone")
        return h.tanh()

class CompiledOtherwise(Network):
    def middle(self, h):
        return h.tanh() * 1.01 if torch.compiler.is_compiling() else h.tanh()

class TwoGraphs(Network):
    def middle(self, h):
        return h.tanh() if h.sum() > 0 else h.sin()  # which, no graph can say beforehand
'''
TRIG = ["path.kind=trigflow", "objective={kind='sct'}"]


@pytest.fixture
def own(home: Path, put_back: None) -> str:
    (home / "own_networks.py").write_text(OWN)
    return "own_networks"


def found(*overrides: str, compile: bool = False) -> dict:
    """Return the findings about the tiny recipe by name."""
    recipe = build.complete(consent.named(Path("tiny.toml"), overrides).recipe, "tiny.toml")
    return {check.name: check for check in doctor.of_recipe(recipe, "tiny.toml", compile=compile)}


def levels(checks: dict) -> dict[str, str]:
    """Return the levels of what is not well, without what was not asked for."""
    asked = {name: check for name, check in checks.items() if check.found != "not looked at (--compile)"}
    return {name: check.level for name, check in asked.items() if check.level != "ok"}


GOOD = {
    "ct": [],
    "ct on pictures": ["data={kind='digits'}", "network={kind='unet', width=8, depth=1, dropout=0.2}"],
    "sct": [*TRIG, "network.dropout=0.3"],
    "sct by jvp": [*TRIG, "objective.tangent_method=jvp", "network.dropout=0.3"],
    "meanflow": ["path.kind=linear", "objective={kind='meanflow'}", "network.class_conditional=true"],
    "continuous on vp": ["path.kind=vp", "objective={kind='continuous'}"],
    "scd": ["path.kind=trigflow", "objective={kind='scd'}", "teacher.kind=oracle"],
}


@pytest.mark.parametrize("overrides", GOOD.values(), ids=GOOD.keys())
def test_nothing_is_said_against_what_comes_along(home, put_back, overrides):
    """But that DDP writes to the buffers, which torch.func.jvp does not bear."""
    checks = found(*overrides)
    assert levels(checks) == ({"ddp": "warn"} if "objective.tangent_method=jvp" in overrides else {})
    bins = checks["tangent"].values["bins"]
    assert len(bins) == probe.BINS
    assert bins[0]["sigma"][0] == pytest.approx(0.002)
    assert bins[-1]["sigma"][1] == pytest.approx(80)
    assert all(left["sigma"][1] == right["sigma"][0] for left, right in pairwise(bins))
    assert all(0 < b["error_jvp"] < 1e-4 for b in bins)
    assert all(b["error_jvp"] == pytest.approx(b["error_finite_difference"], rel=0.05, abs=1e-7) for b in bins)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("NoRule", {"derivative": "warn", "tangent": "-"}),
        ("WrongRule", {"tangent": "warn", "rules": "fail"}),
        ("BatchNorm", {"batch norm": "warn", "buffers": "warn"}),
        ("OwnMasks", {"dropout": "fail", "ddp": "warn"}),
    ],
)
def test_planted_faults_are_found(own, kind, wrong):
    checks = found(f"network={{kind='{own}:{kind}'}}")
    assert {name: level for name, level in levels(checks).items() if name in wrong} == wrong
    assert set(levels(checks)) <= {*wrong, "derivative", "tangent", "rules"}
    if kind == "NoRule":
        assert "own_networks.py" in checks["derivative"].found
        assert checks["derivative"].advice == "objective.tangent_method = 'finite_difference' works here"
    if kind == "WrongRule":
        assert checks["rules"].values["error"] == pytest.approx(1 / 3, rel=1e-4)
    if kind == "BatchNorm":
        assert checks["batch norm"].values["modules"] == ["norm (BatchNorm1d)"]
        assert set(checks["buffers"].values["buffers"]) == {
            "norm.running_mean",
            "norm.running_var",
            "norm.num_batches_tracked",
        }


@pytest.fixture
def graphs_alone(monkeypatch):
    """Trace graphs and differentiate them, and generate no code, which takes minutes."""
    monkeypatch.setattr(compiled, "_BACKEND", "aot_eager")


def test_a_compiled_network_is_compared_with_itself(home, put_back, graphs_alone):
    checks = found(*TRIG, "network.dropout=0.3", compile=True)
    assert levels(checks) == {}
    for name in ("compile", "compiled derivative"):
        assert checks[name].values["error"] < 1e-6
        assert checks[name].values["seconds_ratio"] > 0
    assert not torch._inductor.config.fallback_random


def test_what_the_compiler_warns_of_is_told_and_no_failure(home, put_back, monkeypatch):
    """As torch does on Python 3.13.0; the suite, and `python -W error`, make errors of warnings."""

    def compile(f, **options):
        def compiled_f(*arguments):
            warnings.warn("guards may run slower", RuntimeWarning, stacklevel=2)
            return f(*arguments)

        return compiled_f

    monkeypatch.setattr(torch, "compile", compile)
    checks = found(compile=True)
    for name in ("compile", "compiled derivative"):
        assert checks[name].level == "ok", checks[name]
        assert checks[name].values["warnings"] == ["guards may run slower"]
        assert checks[name].found.endswith("of the time; torch warns: guards may run slower")


def test_what_compiling_changes_is_found(own, graphs_alone):
    checks = found(f"network={{kind='{own}:CompiledOtherwise'}}", compile=True)
    assert levels(checks) == {"compile": "warn", "compiled derivative": "warn"}
    assert checks["compile"].values["error"] == pytest.approx(0.01, rel=1)


def test_a_network_that_breaks_the_graph_is_found(own, graphs_alone):
    check = found(f"network={{kind='{own}:TwoGraphs'}}", compile=True)["compile"]
    assert check.level == "warn"
    assert check.found.startswith("torch.compile fails: ")


def test_a_network_without_derivative_fails_where_one_is_needed(own):
    without = [f"network={{kind='{own}:NoRule'}}", *TRIG]
    assert levels(found(*without)) == {"derivative": "fail", "tangent": "-", "ddp": "-", "step": "fail"}
    checks = found(*without, "objective.tangent_method=finite_difference", "profile.anatomy_every=0")
    assert levels(checks) == {"rules": "-"}
    assert "error_jvp" not in checks["tangent"].values["bins"][0]
    assert checks["tangent"].values["bins"][0]["error_finite_difference"] < 1e-2


def test_group_norms_under_bfloat16_have_the_derivative_beside_the_value(home, put_back):
    """torch's own forward mode mixes their two precisions on a CPU, and fails in the next convolution."""
    images = ["data={kind='digits'}", "network={kind='unet', width=8, depth=1, multipliers=[1]}"]
    checks = found(*TRIG, *images, "train.precision=bfloat16", "objective.tangent_method=jvp")
    if checks["derivative"].level == "fail":
        assert checks["derivative"].advice == "objective.tangent_method = 'dual' works here"
        assert checks["tangent"].level != "-"


def test_buffers_that_count_and_parameters_without_gradient(own):
    checks = found(f"network={{kind='{own}:Counting'}}")
    assert checks["buffers"].values["buffers"] == ["passes"]
    assert checks["gradients"].level == "warn"
    assert checks["gradients"].values["parameters"] == ["spare.weight", "spare.bias"]


def test_gradients_under_ddp_are_compared(home, put_back):
    check = found(*TRIG, "network.dropout=0.3")["ddp"]
    assert (check.level, check.values) == ("ok", {"error": 0.0})
    assert not distributed.is_initialized()


@pytest.mark.parametrize(
    ("kind", "overrides", "way_out"),
    [
        ("Counting", [], {"find_unused_parameters": True}),
        ("Network", [*TRIG, "objective.tangent_method=jvp"], {ddp._BUFFERS: False}),
        ("Undistributed", [], None),
    ],
)
def test_what_ddp_does_not_bear_is_found_with_its_way_out(own, kind, overrides, way_out):
    check = found(f"network={{kind='{own}:{kind}'}}", *overrides)["ddp"]
    assert check.level == "warn"
    assert check.found.startswith("a step under DistributedDataParallel fails: ")
    assert check.values == {"way_out": way_out}
    advice = f"DistributedDataParallel(..., {next(iter(way_out))}=" if way_out else "train on one device"
    assert check.advice.startswith(advice)
    assert not distributed.is_initialized()


def test_without_gloo_ddp_is_not_looked_at(home, put_back, monkeypatch):
    monkeypatch.setattr(distributed, "is_available", lambda: False)
    built = trainer.from_file("tiny.toml")
    check = ddp.check(built, built.state.model)
    assert (check.level, check.found) == ("-", "not looked at: this torch has no torch.distributed with gloo")


def test_bfloat16_is_measured_not_assumed(home, put_back):
    bins = found(*TRIG, "train.precision=bfloat16")["tangent"].values["bins"]
    assert all(1e-4 < b["error_jvp"] < 0.1 for b in bins)  # eight bits of mantissa
    checks = found(*TRIG, "train.precision=bfloat16", "network.embedding=fourier", "path.c_noise=log")
    assert checks["embedding"].level == "warn"
    assert checks["boundary"].level == "ok"


def test_an_error_of_the_recipes_own_derivative_is_found(home, put_back):
    """Central differences with a step nearly as long as the time itself."""
    checks = found(*TRIG, "objective.tangent_method=finite_difference", "objective.tangent_step=0.9")
    assert levels(checks) == {"tangent": "warn"}
    assert checks["tangent"].values["bins"][4]["error_jvp"] > 1e-2


class Bare(nn.Module):
    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.time, self.linear = embedding, nn.Linear(2, 2)


def bare(path, noise: str, embedding: nn.Module) -> Model:
    return Model(Bare(embedding), (2,), path, 0.5, 0.002, 80.0, noise=noise, boundary_at="zero")


# Maxima over t of rms |d emb/dt| cos t sin t, computed elsewhere with 128 channels (methods.md, section 2.5). Fourier
# features are drawn: 64 numbers determine their root mean square to about 9%, and the figures there are of one draw.
@pytest.mark.parametrize(
    ("embedding", "noise", "wanted", "tolerance"),
    [
        (lambda: Positional(128), "identity", 0.088, 0.01),
        (lambda: Positional(128, 1000.0), "identity", 88, 0.01),
        (lambda: Positional(128), "log", 0.044, 0.01),
        (lambda: Positional(128), "log_1000", 44, 0.01),
        (lambda: Fourier(128, 16.0), "log", 14.5, 0.35),
        (lambda: Fourier(128, 1.0), "identity", 1.9, 0.35),
        (lambda: Fourier(128, 0.02), "log", 0.02, 0.35),
    ],
)
def test_steepness_of_the_time_embedding(embedding, noise, wanted, tolerance):
    torch.manual_seed(0)
    module = embedding()
    steep = network.steepness(bare(TrigFlow(0.5), noise, module))
    assert steep is not None
    rms, norm = steep
    assert rms == pytest.approx(wanted, rel=tolerance)
    assert norm == pytest.approx(rms * 128**0.5)
    t = torch.linspace(0.004, math.atan(160), 20_000, dtype=torch.float64, requires_grad=True)
    model = bare(TrigFlow(0.5), noise, module.double())
    c = model.parameterisation.c_noise(t)
    (dc,) = torch.autograd.grad(c.sum(), t)
    with torch.no_grad():
        h = 1e-6
        demb = (module(c + h) - module(c - h)).square().mean(dim=1).sqrt() / (2 * h)
    assert float((demb * dc.abs() * t.cos() * t.sin()).detach().max()) == pytest.approx(rms, rel=1e-2)


@pytest.mark.parametrize("noise", ["log", "angle"])
def test_steepness_does_not_depend_on_the_clock(noise):
    """c_noise as a function of the noise level is the same on all paths, and so is its bound."""
    embedding = Positional(64)
    values = [network.steepness(bare(p, noise, embedding))[0] for p in (TrigFlow(0.5), EDM(), VP(), Linear())]
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)


@pytest.mark.parametrize("path", [EDM(), VP(), TrigFlow(0.5), Linear()], ids=lambda p: type(p).__name__)
def test_the_unit_of_the_derivative_is_that_of_the_log_noise_level(path):
    n = torch.tensor([0.01, 0.3, 5.0], dtype=torch.float64, requires_grad=True)
    t = path.t_of_noise_level(n)
    (dt,) = torch.autograd.grad(t.sum(), n)
    assert torch.allclose(probe.log_unit(path, t.detach()), (n * dt).detach(), rtol=1e-9)


@pytest.mark.parametrize(("first", "second"), [(1.0, 100.0), (100.0, 1.0)])
def test_of_two_times_the_steeper_embedding_counts(home, put_back, first, second):
    built = trainer.from_file("tiny.toml", ["path.kind=linear", "objective={kind='meanflow'}"])
    model = built.state.model
    model.F_theta.time, model.F_theta.more_times[0][0] = Positional(64, first), Positional(64, second)
    check = network.embedding_check(model)
    assert check.level == "warn"
    assert "of both times at most" in check.found
    one = bare(Linear(), "identity", Positional(64, 100.0))
    assert (check.values["rms"], check.values["L2"]) == pytest.approx(network.steepness(one))


def test_fourier_features_of_scale_16_are_flagged(home, put_back):
    checks = found("network.embedding=fourier", "network.embedding_scale=16.0")
    assert levels(checks) == {"embedding": "warn"}
    assert checks["embedding"].values["rms"] == pytest.approx(2 * math.pi * 16 / 4 / 2**0.5, rel=0.4)


def test_a_copy_begins_where_nothing_is_zero_and_leaves_trained_weights_alone(home, put_back):
    model = trainer.from_file("tiny.toml").state.model
    copy = probe.copied(model)
    assert not model.F_theta.output.weight.any()
    assert copy.F_theta.output.weight.std().item() == pytest.approx(1 / 4, rel=0.4)
    assert torch.equal(copy.F_theta.input.weight, model.F_theta.input.weight)
    assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), probe.copied(copy).parameters(), strict=True))


def test_a_boundary_that_is_missed_is_found(home, put_back):
    built = trainer.from_file("tiny.toml")
    model, at = probe.copied(built.state.model), probe.points(built)
    assert network.boundary_check(model, at).values["error"] == 0

    class Unshifted(Model):
        """f with the numerators of the denoiser, which is the identity at 0 and not at sigma_min."""

        def forward(self, x_t, t, labels=None):
            return self.denoise(x_t, t, labels)

    check = network.boundary_check(Unshifted(model.F_theta, (2,), EDM(), 0.5, 0.002, 80.0), at)
    assert check.level == "fail"
    assert 1e-4 < check.values["error"] < 1e-2


def test_nothing_is_trained_where_someone_looks(home, put_back):
    found()
    assert not (home / "runs").exists()
    assert [path.name for path in home.iterdir()] == ["tiny.toml"]


def test_cost_counts_what_autograd_saves(home, put_back):
    """A linear layer saves its input: bytes grow with the batch; weights, gradients and moments do not."""
    small, large = (cost.measured_cost(trainer.from_file("tiny.toml", [f"train.batch_size={n}"])) for n in (8, 64))
    assert large.kept == small.kept
    assert large.passing > 4 * small.passing
    parameters = sum(p.numel() for p in trainer.from_file("tiny.toml").state.model.parameters())
    # Weights, gradient, two moments, two averages and the target are 7 copies in float32, beside buffers and counters.
    assert small.kept == pytest.approx(7 * 4 * parameters, rel=0.35)


def test_the_seconds_of_a_whole_batch_follow_from_two_trials():
    """What a step costs whatever its samples is counted once: .2 s, and .01 s a sample."""
    few, more = (cost._Cost(0.2 + 0.01 * n, 0, 0, n, 256) for n in (4, 16))
    found = cost._extrapolated(few, more)
    assert found.seconds * found.scale == pytest.approx(0.2 + 0.01 * 256)
    assert cost._extrapolated(replace(few, seconds=1.0), more).seconds * found.scale == pytest.approx(more.seconds)


def test_cost_of_parts_is_that_of_the_samples_at_once(home, put_back):
    whole, parts, small = (
        cost.measured_cost(trainer.from_file("tiny.toml", [f"train.batch_size={n}", f"train.micro_batch_size={micro}"]))
        for n, micro in ((64, 0), (64, 8), (8, 0))
    )
    assert parts.passing == pytest.approx(small.passing, rel=0.2)
    assert parts.passing < whole.passing / 3
    assert (parts.samples, parts.wanted) == (64, 64)


def test_data_that_are_not_here_are_not_fetched(home, put_back, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "download", lambda self: pytest.fail("fetched"))

    def look(settings: str):
        overrides = [f"data={{kind='images', root='{home}/none', {settings}}}", "network={kind='unet', width=8}"]
        consent.typed(overrides)
        recipe = build.complete(load(Path("tiny.toml"), overrides), "tiny.toml")
        data, check = doctor.data_check(recipe, "tiny.toml")
        return data, check.level

    data, level = look("name='mnist'")
    assert (data.shape, data.classes, level) == ((1, 28, 28), 10, "ok")
    assert data.train.std().item() == pytest.approx(0.5, rel=0.02)
    assert look("name='mnist', download=false")[1] == "fail"
    data, level = look("name='folder', size=8")
    assert (data.shape, data.classes, level) == ((3, 8, 8), 1, "fail")


def test_the_machine(tmp_path, monkeypatch):
    names = {check.name: check for check in machine.checks(tmp_path / "runs")}
    assert {"python", "torch", "gpu", "threads", "memory", "packages", "[gpu]", "[lpips]", "runs"} <= set(names)
    assert names["runs"].level in ("ok", "warn")
    assert not (tmp_path / "runs").exists()
    assert "numpy" in names["packages"].found
    monkeypatch.setattr(machine.metadata, "requires", lambda name: ["plotext>=99", "not-there-at-all", "numpy>=1"])
    broken = {check.name: check for check in machine.checks(tmp_path)}
    assert (broken["plotext"].level, broken["not-there-at-all"].level) == ("fail", "fail")
    assert ">=99" in broken["plotext"].found
    assert "plotext" not in broken["packages"].found


def test_a_runs_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    assert machine.runs_folder_check(tmp_path / "runs").level == "fail"


def test_relative_errors_by_bin():
    wanted = torch.ones(2 * probe.BINS, 3)
    other = wanted.clone()
    other[2:4] *= 1.25
    error = tangent.relative_errors(other, wanted)
    assert torch.allclose(error, torch.tensor([0, 0.25, *[0.0] * 6], dtype=torch.float64))
    assert tangent.relative_errors(torch.zeros(8, 1), torch.zeros(8, 1)).sum() == 0
