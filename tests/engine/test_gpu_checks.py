"""The checks of `make gpu`, run on the CPU: each holds, and each fails where something is wrong."""

from contextlib import nullcontext
from itertools import count

import pytest
import torch
from gpu_scripts import Budget, benches, checks, chosen

from cmbench import model
from cmbench.engine import environment, loop
from cmbench.engine.live import Runner
from cmbench.engine.state import State
from cmbench.model import AUTOCAST
from cmbench.objectives import ct
from cmbench.randomness import StepRandom

NAME = "ct_edm_ring"
HELD_OUT = 5  # how often the difference by rounding must fit into the allowed one


@pytest.fixture
def trials(home, put_back) -> checks.Trials:
    (home / "gpu").mkdir()
    return checks.Trials("cpu", home / "gpu")


def look(trials: checks.Trials, kind: str, *arguments: str) -> tuple[str, str]:
    """What a check comes to, with errors, and its words."""
    found = checks.looked("", lambda: getattr(trials, kind)(NAME, *arguments), Budget(1e5))
    return found.level, found.found


@pytest.mark.parametrize("name", [NAME, "tcm_edm_ring", "sct_trigflow"])
def test_all_checks_hold_on_the_cpu(trials, name):
    """With a run that another begins with, and on pictures."""
    found = list(checks.checks("cpu", trials._folder, Budget(1e5), [name]))
    assert len(found) == 7
    assert {check.level for check in found} == {"ok"}, [check.found for check in found]
    by_name = {check.name: check for check in found}
    assert len(by_name[f"steps {name} bfloat16"].values["losses"]) == 3
    assert by_name[f"resume {name} float32"].values["tensors"] > 30
    masks = "one mask for student and target; one mask for the value and its derivative"
    assert by_name[f"masks {name} bfloat16"].found == masks
    assert by_name[f"gradients {name} float32"].values["error"] == 0.0


# three steps


def test_a_nondeterministic_operation_fails(trials, monkeypatch):
    """`put_` has no deterministic form, on the CPU either."""
    rate = loop.learning_rate

    def nondeterministic(*given):
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
        return rate(*given)

    monkeypatch.setattr(loop, "learning_rate", nondeterministic)
    level, found = look(trials, "steps", "float32")
    assert level == "fail"
    assert found.startswith("RuntimeError: put_ does not have a deterministic implementation")


def test_steps_that_are_not_made_deterministic_fail(trials, monkeypatch):
    monkeypatch.setattr(environment, "make_reproducible", lambda *given: None)
    torch.use_deterministic_algorithms(False)
    assert look(trials, "steps", "float32") == ("fail", "torch did not refuse nondeterministic operations")


def test_a_loss_that_is_not_finite_fails(trials, monkeypatch):
    monkeypatch.setattr(checks, "_SHORT", (*checks._SHORT, "optimizer.lr=1e30"))
    level, found = look(trials, "steps", "float32")
    assert (level, found.partition(":")[0]) == ("fail", "DivergedError")


def test_bfloat16_that_is_float32_fails(trials, monkeypatch):
    monkeypatch.setitem(AUTOCAST, "bfloat16", None)
    assert look(trials, "steps", "bfloat16") == ("fail", "the weights are those of float32, bit for bit")


@pytest.mark.parametrize(
    ("losses", "device", "says"),
    [
        ([1.0, 2.0], "cpu", "found losses 1, 2, wanted 3 finite ones"),
        ([1.0, float("nan"), 2.0], "cpu", "found losses 1, nan, 2, wanted 3 finite ones"),
        ([], "cpu", "found losses none, wanted 3 finite ones"),
        ([1.0, 2.0, 3.0], "meta", "the weights are on meta"),
    ],
)
def test_steps_elsewhere_or_too_few_of_them_fail(trials, losses, device, says):
    trials._made[NAME, "float32"] = checks.Unbroken(None, losses, device, True)
    assert look(trials, "steps", "float32") == ("fail", says)


# dropout masks


def test_masks_that_differ_between_passes_fail(trials, monkeypatch):
    monkeypatch.setattr(StepRandom, "dropout", lambda self: nullcontext())
    level, found = look(trials, "masks", "float32")
    assert (level, found) == ("fail", "two passes of one step differ")


def test_a_network_without_dropout_shows_nothing_and_fails(trials, monkeypatch):
    monkeypatch.setattr(checks, "_DROPOUT", "network.dropout=0")
    level, found = look(trials, "masks", "float32")
    assert (level, found) == ("fail", "none: a pass in training mode draws no random numbers")


# a resumed run


def test_a_resumed_run_that_differs_in_one_bit_fails(trials, monkeypatch):
    load = State.load

    def inexactly(self, step, groups):
        load(self, step, groups)
        bias = self.model.F_theta.output.bias
        with torch.no_grad():
            bias[0] = torch.nextafter(bias[0], torch.tensor(torch.inf))

    monkeypatch.setattr(State, "load", inexactly)
    level, found = look(trials, "resume", "float32")
    assert level == "fail"
    assert " of 60 tensors differ, such as ['model.F_theta." in found


def test_a_run_that_does_not_stop_fails(trials, monkeypatch):
    monkeypatch.setattr(Runner, "request_stop", lambda self, reason: None)
    assert look(trials, "resume", "float32") == ("fail", "the run did not stop after step 2")


def test_checkpoints_are_equal_in_names_types_and_bits():
    x = torch.tensor([1.0, 0.0])
    assert checks.same({"model": {"x": x}}, {"model": {"x": x.clone()}}).level == "ok"
    for other in ({"x": torch.tensor([1.0, 1e-45])}, {"x": x.double()}, {"x": x[:1]}, {"y": x}, {"x": x, "y": x}, {}):
        assert checks.same({"model": {"x": x}}, {"model": other}).level == "fail"
        assert checks.same({"model": other}, {"model": {"x": x}}).level == "fail"
    assert checks.same({}, {}).level == "fail"


# gradients


def test_gradients_of_other_weights_fail(trials, monkeypatch):
    monkeypatch.setattr(State, "load", lambda self, step, groups: None)
    level, found = look(trials, "gradients")
    assert level == "fail"
    assert found.startswith("differ by ")


def test_gradients_of_other_random_numbers_fail(trials, monkeypatch):
    """As they would be without the replay: each device's generator draws its own."""
    seeds = count()

    def drawn_anew(self, stream, n, draw):
        return draw(n, torch.Generator().manual_seed(next(seeds)))

    monkeypatch.setattr(checks.Replayed, "draw", drawn_anew)
    level, found = look(trials, "gradients")
    assert level == "fail"
    assert found.startswith("differ by ")


def test_gradients_are_compared_parameter_by_parameter():
    """A small one does not hide behind a large one, and one of nothing but rounding does not count."""
    wanted = {"large": torch.full((4,), 100.0), "small": torch.full((4,), 1.0), "tiny": torch.full((4,), 1e-6)}

    def of(**changes: float) -> checks.Check:
        return checks.near({name: own * (1 + changes.get(name, 0.0)) for name, own in wanted.items()}, wanted)

    assert of().level == "ok"
    assert of(large=9e-5, small=9e-5).level == "ok"
    assert of(small=2e-4).level == "fail"
    assert of(small=2e-4).values["error"] == pytest.approx(2e-4, rel=0.01)
    assert of(small=2e-4).found == "differ by 2.0e-04 at most (0.0001 allowed), at small"
    assert of(tiny=1.0).level == "ok"
    assert of(tiny=float("nan"), large=1.0).level == "fail"
    assert checks.near({"large": wanted["large"]}, wanted).level == "fail"
    assert checks.near({}, {}).level == "fail"


def test_numbers_are_drawn_once_and_replayed():
    cpu, drawn = torch.device("cpu"), {}
    first, again = (checks.Replayed(cpu, seed, 0, drawn=drawn) for seed in (1, 2))
    x = torch.zeros(3, 2)
    noise = first.noise(x)
    assert torch.equal(noise, StepRandom(cpu, 1, 0).noise(x))
    assert torch.equal(again.noise(x), noise)
    assert not torch.equal(again.noise(x, "other"), noise)
    assert set(drawn) == {"noise", "other"}


def test_tf32_is_off_for_the_gradients_alone(trials, monkeypatch):
    seen = []
    loss = ct.Objective.loss

    def watched(*given):
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return loss(*given)

    monkeypatch.setattr(ct.Objective, "loss", watched)
    monkeypatch.setattr(model, "_has_tf32", lambda device: True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            assert look(trials, "gradients")[0] == "ok"
            assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [(False, "highest")] * 2


def in_float64(built) -> None:
    for module in filter(None, (built.state.model, built.objective, built.state.teacher)):
        for part in module.double().modules():
            if hasattr(part, "time_dtype"):
                part.time_dtype = torch.float64


@pytest.mark.parametrize("name", chosen.small())
def test_rounding_alone_stays_far_below_what_is_allowed(trials, monkeypatch, name):
    """The same gradients in float64: another device, which rounds in another order, differs from them as little."""
    gradients, calls = checks.gradients, []

    def once_in_float64(built, x_0, labels, drawn):
        calls.append(built)
        if len(calls) == 2:
            in_float64(built)
            x_0 = x_0.double()
            drawn = {key: value.double() if value.is_floating_point() else value for key, value in drawn.items()}
        return gradients(built, x_0, labels, drawn)

    monkeypatch.setattr(checks, "gradients", once_in_float64)
    error = trials.gradients(name).values["error"]
    assert 0 < error < checks.ALLOWED / HELD_OUT


@pytest.mark.parametrize("name", ["sct_trigflow_ring", "scd_trigflow_oracle_ring"])
def test_the_derivative_counts_in_the_gradients_that_are_compared(trials, monkeypatch, name):
    """At the first step of a warm-up of the tangent it would not."""
    seen = []
    monkeypatch.setattr(checks, "near", lambda found, wanted: seen.append(wanted["F_theta.output.weight"]))
    trials.gradients(name)
    monkeypatch.setitem(checks._COMPARABLE, "tangent_warmup", "1000000")
    trials.gradients(name)
    assert not torch.allclose(*seen, rtol=0.1)


# a bench


@pytest.mark.long
def test_a_bench_of_a_real_recipe_is_a_row(home, monkeypatch):
    """A small network for the pictures of MNIST, which are not here."""
    small = ("network.width=8", "network.multipliers=[1]", "network.depth=1", "network.attention=[]")
    monkeypatch.setattr(benches, "RECIPES", {"ct_edm_mnist": small})
    monkeypatch.setattr(benches, "ROUNDS", 1)
    found = next(benches.benches("cpu", 0, home / "none", Budget(1e5)))
    assert found.check.level == "ok", found.check.found
    assert (found.figures["batch_size"], found.figures["precision"]) == (8, "bfloat16")
    assert "noise of shape [1, 28, 28] is used instead" in found.figures["differs"][0]
    assert [path.name for path in home.iterdir()] == ["tiny.toml"]
