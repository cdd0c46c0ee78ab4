"""The loop: which events come after which steps, and what happens when a loss or a gradient is not finite."""

import dataclasses
from pathlib import Path

import pytest
import torch
from fake_runs import read_rows

from cmbench.contracts import Terms
from cmbench.engine import checkpoint, loop, trainer
from cmbench.engine.trainer import Trainer
from cmbench.objectives import ct
from cmbench.rundir import status
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.select import all_runs

SILENT = ["log.every=100", "profile.every=0", "snapshot.every=0", "evaluate.every=0", "checkpoint.every=0"]


def build(home: Path, *overrides: str) -> Trainer:
    return trainer.from_file(home / "tiny.toml", overrides)


def snapshot_of(built: Trainer) -> dict[str, dict[str, torch.Tensor]]:
    groups = built.state.groups()
    return {name: {key: value.clone() for key, value in group.items()} for name, group in groups.items()}


def assert_equal(found: dict, wanted: dict) -> None:
    assert set(found) == set(wanted)
    for name, group in wanted.items():
        assert all(torch.equal(found[name][key], value) for key, value in group.items()), name


def test_events_come_at_their_steps(home):
    overrides = ["train.steps=13", "log.every=4", "profile.every=5", "evaluate.every=6", "snapshot.every=3"]
    events = list(loop.train(build(home, *overrides, "checkpoint.every=7")))
    steps = {kind: [e.step for e in events if type(e) is kind] for kind in {type(e) for e in events}}
    assert steps == {
        loop.Stepped: list(range(1, 14)),
        loop.Metrics: [4, 8, 12, 13],
        loop.Profiled: [5, 10, 13],
        loop.Evaluated: [6, 12, 13],
        loop.Snapshotted: [3, 6, 9, 12, 13],
        loop.CheckpointDue: [7, 13],
    }
    assert [type(e) for e in events[-6:]] == [
        loop.Metrics,
        loop.Profiled,
        loop.Evaluated,
        loop.Snapshotted,
        loop.CheckpointDue,
        loop.Stepped,
    ]


def test_zero_means_never_but_a_checkpoint_comes_at_the_end(home):
    events = list(loop.train(build(home, *SILENT)))
    others = [(type(e), e.step) for e in events if not isinstance(e, loop.Stepped)]
    assert others == [(loop.Metrics, 12), (loop.CheckpointDue, 12)]


def test_metrics_are_means_of_what_the_objective_returned(home, monkeypatch):
    returned: list[Terms] = []
    loss = ct.Objective.loss

    def spy(self: ct.Objective, *args: object) -> Terms:
        returned.append(loss(self, *args))
        return returned[-1]

    monkeypatch.setattr(ct.Objective, "loss", spy)
    events = list(loop.train(build(home, "log.every=4", "profile.every=4", "optimizer.warmup=24")))
    rows = [e.values for e in events if isinstance(e, loop.Metrics)]
    profiles = [e.values for e in events if isinstance(e, loop.Profiled)]
    for i, (row, profile) in enumerate(zip(rows, profiles, strict=True)):
        window = returned[4 * i : 4 * i + 4]
        mean = lambda values: float(torch.stack([v.detach().mean() for v in values]).double().mean())  # noqa: E731
        assert row["loss"] == pytest.approx(mean([t.total for t in window]), rel=1e-6)
        assert row["loss"] == pytest.approx(mean([t.weight * t.loss for t in window]), rel=1e-5)
        assert row["unweighted_loss"] == pytest.approx(mean([t.loss for t in window]), rel=1e-6)
        assert row["weight"] == pytest.approx(mean([t.weight for t in window]), rel=1e-6)
        assert row["tangent_norm"] == pytest.approx(mean([t.tangent_norm for t in window]), rel=1e-6)
        assert row["N"] == window[-1].scalars["N"]
        assert row["mu"] == window[-1].scalars["mu"]
        assert row["lr"] == pytest.approx(1e-2 * (4 * i + 4) / 24)
        assert row["images_per_s"] > 0
        assert sum(profile["count"]) == 32
        weighted = sum(n * (v or 0) for n, v in zip(profile["count"], profile["weighted_loss"], strict=True)) / 32
        assert weighted == pytest.approx(row["loss"], rel=1e-5)


def test_a_gradient_is_clipped_and_its_norm_is_that_before(home, monkeypatch):
    built = build(home, *SILENT, "optimizer.kind=adam", "optimizer.clip=0.001", "log.every=1")
    norms, apply = [], built.state.optimizer.step

    def spy() -> None:
        gradients = [p.grad.flatten() for p in built.state.model.parameters()]
        norms.append(float(torch.cat(gradients).norm()))
        apply()

    monkeypatch.setattr(built.state.optimizer, "step", spy)
    events = loop.train(built)
    row = next(e for e in events if isinstance(e, loop.Metrics)).values
    assert norms[0] == pytest.approx(0.001, rel=1e-3)
    assert row["grad_norm"] > 0.01


@pytest.mark.parametrize("objective", ["{kind='sct'}", "{kind='scd'}"])
def test_the_adaptive_weight_is_trained_with_the_network(home, objective):
    path = ["path.kind=trigflow", "path.scalings=trigflow", f"objective={objective}"]
    teacher = ["teacher.kind=oracle"] if "scd" in objective else []
    built = build(home, *path, *teacher, *SILENT, "train.steps=3")
    w_phi = built.objective.w_phi
    before = {name: value.clone() for name, value in w_phi.named_parameters()}
    for _ in loop.train(built):
        pass
    assert before
    assert not any(torch.equal(value, before[name]) for name, value in w_phi.named_parameters())


def test_averages_follow_the_weights(home):
    built = build(home, *SILENT)
    weights = {name: p.detach().clone() for name, p in built.state.model.named_parameters()}
    expected = {0.9: dict(weights), 0.5: dict(weights)}
    for event in loop.train(built):
        if isinstance(event, loop.Stepped):
            for decay, average in expected.items():
                for name, p in built.state.model.named_parameters():
                    average[name] = decay * average[name] + (1 - decay) * p.detach()
    for average, decay in zip(built.state.averages, (0.9, 0.5), strict=True):
        assert average.name == f"ema_{decay}"
        for name, p in average.model.named_parameters():
            torch.testing.assert_close(p, expected[decay][name])
    assert built.sampling_model is built.state.averages[0].model
    bare = build(home, "ema.lengths=[]")
    assert bare.sampling_model is bare.state.model


def test_what_listens_does_not_change_the_training(home):
    """Sampling and evaluating in between draw from random streams of their own."""
    quiet, busy = build(home, *SILENT), build(home, "log.every=1")
    list(loop.train(quiet))
    for event in loop.train(busy):
        if isinstance(event, loop.Stepped):
            torch.randn(3)
            busy.sample(3, steps=2)
            busy.evaluate()
            assert busy.state.model.training
    assert_equal({"model": busy.state.groups()["model"]}, {"model": quiet.state.groups()["model"]})


def test_a_stopped_generator_can_be_taken_up_again(home):
    unbroken, built = build(home, *SILENT), build(home, *SILENT)
    list(loop.train(unbroken))
    for event in loop.train(built):
        if isinstance(event, loop.Stepped) and event.step == 5:
            break
    list(loop.train(built))
    assert_equal(built.state.groups(), unbroken.state.groups())


def break_step(monkeypatch: pytest.MonkeyPatch, step: int, what: str) -> None:
    """Let the objective fail at one step.

    Its loss, or its weight, is not finite for two samples; or all is finite but the gradient in two samples' outputs
    ("gradient"), or in the weights alone ("weights").
    """
    loss = ct.Objective.loss

    def broken(self: ct.Objective, model: torch.nn.Module, x_0, labels, k: int, random) -> Terms:
        terms = loss(self, model, x_0, labels, k, random)
        if k != step:
            return terms
        if what == "loss":
            spoilt = terms.loss.clone()
            spoilt[[1, 4]] = float("nan")
            return dataclasses.replace(terms, total=terms.total * spoilt.mean(), loss=spoilt)
        if what == "weight":
            spoilt = terms.weight.clone()
            spoilt[[1, 4]] = float("inf")
            return dataclasses.replace(terms, total=terms.total * spoilt.mean(), weight=spoilt)
        if what == "gradient":
            assert model.last_F is not None
            root = (model.last_F - model.last_F.detach())[[1, 4]].abs().sum(dim=1).sqrt().sum()
            return dataclasses.replace(terms, total=terms.total + root)
        weight = next(p for p in model.parameters() if p.requires_grad)
        root = (weight - weight.detach()).abs().sum().sqrt()  # 0, with an infinite slope
        return dataclasses.replace(terms, total=terms.total + root)

    monkeypatch.setattr(ct.Objective, "loss", broken)


# What fails, what that is called, and how many times of samples are named.
FAILURES = [("loss", "loss", 2), ("weight", "loss", 2), ("gradient", "gradient", 2), ("weights", "gradient", 0)]


@pytest.mark.parametrize(("what", "called", "times"), FAILURES)
def test_what_is_not_finite_never_touches_the_state(home, monkeypatch, what, called, times):
    break_step(monkeypatch, 7, what)
    built = build(home)
    last, events = None, []
    for event in loop.train(built):
        events.append(event)
        if isinstance(event, loop.Stepped):
            last = snapshot_of(built)
    assert isinstance(events[-1], loop.Diverged)
    assert (events[-1].step, events[-1].what) == (7, called)
    assert len(events[-1].times) == times
    assert all(0.002 < t <= 80 for t in events[-1].times)
    assert built.state.step == 7
    assert_equal(built.state.groups(), last)


@pytest.mark.parametrize(("what", "called", "times"), FAILURES)
def test_a_diverged_run_keeps_its_last_good_state(home, cmbench, monkeypatch, trained, what, called, times):
    with monkeypatch.context() as patch:
        break_step(patch, 7, what)
        outcome = cmbench("run", "tiny.toml", "--set", "name=diverging")
    assert outcome.code == 3
    assert f"the {called} of step 8 is not finite; the last good state is checkpoint 7" in outcome.out
    assert "Traceback" not in outcome.out + outcome.err
    (run,) = (r for r in all_runs(home / "runs") if r.name.startswith("diverging"))
    assert status.read(run)["state"] == "diverged"
    assert steps_of_checkpoints(run) == [5, 7]
    assert all(t.isfinite().all() for group in checkpoint.load(run, 7).values() for t in group.values())
    diverged = read_rows(run.events)[-1]
    assert (diverged["kind"], diverged["step"], diverged["what"]) == ("diverged", 7, called)
    assert len(diverged["times"]) == times
    assert bool(diverged["bins"]) == bool(times)
    assert "diverged" in cmbench("ls").out
    # With its cause out of the way the run goes on as if nothing had been.
    assert cmbench("resume", run.name).code == 0
    for group, tensors in checkpoint.load(trained, 12).items():
        mine = checkpoint.load_group(run, 12, group)
        assert all(torch.equal(mine[name], tensor) for name, tensor in tensors.items())


def test_a_run_that_fails_says_why(home, cmbench, monkeypatch):
    def fail(*args: object) -> Terms:
        raise OSError("the disk\nis on fire")

    monkeypatch.setattr(ct.Objective, "loss", fail)
    outcome = cmbench("run", "tiny.toml")
    assert outcome.code == 1
    assert outcome.err == "cmbench: OSError: the disk is on fire (CMBENCH_DEBUG=1 shows where)\n"
    (run,) = all_runs(home / "runs")
    assert status.read(run)["state"] == "failed"
    assert "Traceback" in run.console.read_text()
    assert read_rows(run.events)[-1]["error"] == "OSError: the disk\nis on fire"


def test_bfloat16_trains_and_the_boundary_stays_exact(home):
    built = build(home, "train.precision=bfloat16", *SILENT)
    before = snapshot_of(built)["model"]
    list(loop.train(built))
    after = built.state.model.state_dict()
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert not torch.equal(after["F_theta.output.weight"], before["F_theta.output.weight"])
    seen: list[torch.dtype] = []
    built.state.model.F_theta.output.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    x = 80 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(built.state.model(x, torch.full((64,), 0.002)), x)
    assert not torch.equal(built.state.model(x, torch.full((64,), 0.003)), x)
    assert seen[0] == torch.bfloat16


def test_a_conditional_network_gets_labels_and_an_unconditional_none(home, monkeypatch):
    seen = []
    loss = ct.Objective.loss

    def spy(self: ct.Objective, model, x_0, labels, *rest: object) -> Terms:
        seen.append(labels)
        return loss(self, model, x_0, labels, *rest)

    monkeypatch.setattr(ct.Objective, "loss", spy)
    next(iter(loop.train(build(home))))
    next(iter(loop.train(build(home, "network.class_conditional=true"))))
    assert seen[0] is None
    assert seen[1].shape == (8,)
    assert set(seen[1].tolist()) <= set(range(8))
