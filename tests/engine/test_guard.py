"""The guard without a wait: a host that is a step's passes ahead leaves the same state as one that waits, always."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from test_loop import FAILURES, assert_equal, snapshot_of

from cmbench import consent
from cmbench.contracts import Terms
from cmbench.engine import guard, loop, passes, runner, trainer
from cmbench.engine.bench import steps
from cmbench.engine.bench.subject import Subject
from cmbench.engine.guard import Verdict
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.objectives import ict

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FUSED = ["optimizer.kind=adamw", "optimizer.fused=on", "optimizer.weight_decay=0.1", "optimizer.lr=0.01"]
ICT = "objective={kind='ict'}"
SCT = ["objective={kind='sct', tangent_warmup=6}", "path={kind='trigflow', boundary='zero'}", "profile.anatomy_every=3"]
EVERY = {
    "ict": [ICT],
    "ect": ["objective={kind='ect'}"],
    "sct": SCT,
    "dropout and labels": [ICT, "network.dropout=0.4", "network.class_conditional=true"],
    "micro batches": [ICT, "train.micro_batch_size=3"],
    "clipped": [ICT, "optimizer.clip=0.01", "optimizer.warmup=5"],
    "adam": [ICT, "optimizer.kind=adam"],
    "no target": ["objective={kind='ct', mu_0=0.0}"],
    "no profile": [ICT, "profile.every=0"],
    "denoise": ["objective={kind='denoise'}", "data={kind='points', size=30}"],
}


@pytest.fixture
def ahead(monkeypatch) -> Callable[[bool], None]:
    """Say whether the host runs ahead of the CPU, as it does of a GPU."""

    def set_to(is_ahead: bool) -> None:
        monkeypatch.setattr(guard, "_runs_ahead", lambda device: is_ahead)

    return set_to


def build(*overrides: str) -> Trainer:
    return trainer.from_file("tiny.toml", [*FUSED, *overrides])


def followed(built: Trainer) -> list[tuple[object, dict]]:
    """Every event, and a copy of the state at it."""
    return [(event, snapshot_of(built)) for event in loop.train(built)]


def assert_same(found: list[tuple[object, dict]], wanted: list[tuple[object, dict]]) -> None:
    assert [(type(e), e.step) for e, _ in found] == [(type(e), e.step) for e, _ in wanted]
    for (a, at_a), (b, at_b) in zip(found, wanted, strict=True):
        assert_equal(at_a, at_b)
        assert told(a) == told(b)


def told(event: object) -> str:
    values = dict(vars(event))
    if isinstance(event, loop.Metrics):
        values["values"] = {key: value for key, value in event.values.items() if key != "images_per_s"}
    if isinstance(event, loop.Snapshotted):
        values = {steps: x.tolist() for steps, x in event.samples.items()}
    return str(values)


def both(ahead: Callable[[bool], None], run: Callable[[], list]) -> tuple[list, list]:
    results = []
    for is_ahead in (True, False):
        ahead(is_ahead)
        results.append(run())
    return results[0], results[1]


@pytest.mark.parametrize("overrides", EVERY.values(), ids=EVERY)
def test_every_event_and_the_state_at_it_are_those_of_the_wait(home, ahead, overrides):
    assert_same(*both(ahead, lambda: followed(build(*overrides))))


def break_step(monkeypatch: pytest.MonkeyPatch, step: int, what: str) -> None:
    """As in test_loop, for ict."""
    loss = ict.Objective.loss

    def broken(self, model, x_0, labels, k: int, random) -> Terms:
        terms = loss(self, model, x_0, labels, k, random)
        if k != step:
            return terms
        if what in ("loss", "weight"):
            spoilt = getattr(terms, what).clone()
            spoilt[[1, 4]] = float("nan") if what == "loss" else float("inf")
            return replace(terms, total=terms.total * spoilt.mean(), **{what: spoilt})
        if what == "gradient":
            root = (model.last_F - model.last_F.detach())[[1, 4]].abs().sum(dim=1).sqrt().sum()
            return replace(terms, total=terms.total + root)
        weight = next(p for p in model.parameters() if p.requires_grad)
        return replace(terms, total=terms.total + (weight - weight.detach()).abs().sum().sqrt())

    monkeypatch.setattr(ict.Objective, "loss", broken)


@pytest.mark.parametrize(("what", "called", "times"), FAILURES)
@pytest.mark.parametrize("step", [0, 1, 5, 6, 11])
def test_a_bad_step_leaves_the_last_good_state(home, ahead, monkeypatch, what, called, times, step):
    """Also the first step, which makes the moments; the next to a row and to a checkpoint; and the last."""
    break_step(monkeypatch, step, what)
    found, wanted = both(
        ahead, lambda: [*followed(built := build(ICT)), (loop.Event(built.state.step), snapshot_of(built))]
    )
    assert_same(found, wanted)
    event = found[-2][0]
    assert isinstance(event, loop.Diverged)
    assert (event.step, event.what, len(event.times)) == (step, called, times)
    assert found[-1][0].step == step


def test_the_passes_after_a_bad_step_are_in_vain(home, ahead, monkeypatch):
    """The fused update took the verdict, and not the host: the next passes ran, on weights that had not moved."""
    break_step(monkeypatch, 5, "loss")
    seen: list[tuple[int, torch.Tensor]] = []
    loss = ict.Objective.loss

    def spy(self, model, x_0, labels, k, random):
        seen.append((k, torch.cat([p.detach().flatten().clone() for p in model.parameters()])))
        return loss(self, model, x_0, labels, k, random)

    monkeypatch.setattr(ict.Objective, "loss", spy)
    ahead(True)
    list(loop.train(build(ICT)))
    assert [k for k, _ in seen] == [0, 1, 2, 3, 4, 5, 6]
    assert torch.equal(seen[6][1], seen[5][1])
    assert not torch.equal(seen[5][1], seen[4][1])


@pytest.mark.parametrize("key", [{"optimizer.lr": 0.5}, {"objective.tangent_warmup": 2}, {"train.steps": 20}])
def test_a_setting_holds_from_the_next_step_on(home, ahead, key):
    def steered() -> list[tuple[object, dict]]:
        built, seen = build(*SCT, "optimizer.decay=cosine"), []
        for event in loop.train(built):
            seen.append((event, snapshot_of(built)))
            if isinstance(event, loop.Stepped) and event.step == 5:
                built.steer(key, "here", ["train.steps"])
        return seen

    assert_same(*both(ahead, steered))


def test_gradients_that_others_compute_between_two_steps_do_no_harm(home, ahead):
    def disturbed() -> list[tuple[object, dict]]:
        built, seen = build(ICT, "optimizer.clip=0.1"), []
        for event in loop.train(built):
            seen.append((event, snapshot_of(built)))
            for p in built.state.model.parameters():
                p.grad = torch.full_like(p, torch.nan) if event.step % 2 else None
        return seen

    assert_same(*both(ahead, disturbed))


def test_two_loops_over_one_state_take_their_own_passes(home, ahead):
    def in_turn() -> list[tuple[object, dict]]:
        built = build(ICT)
        loops = [steps.taken(steps.in_memory(built)) for _ in range(2)]
        return [(loop.Event(next(loops[k % 2]) or k), snapshot_of(built)) for k in range(6)]

    assert_same(*both(ahead, in_turn))


def test_passes_that_fail_ahead_fail_when_their_step_is_due(home, ahead, monkeypatch):
    backward = passes.backward

    def failing(state, *args, **named):
        if state.step == 4:
            raise NotImplementedError("not this step")
        return backward(state, *args, **named)

    monkeypatch.setattr(passes, "backward", failing)

    def broken() -> list[tuple[object, dict]]:
        built, seen = build(ICT), []
        with pytest.raises(NotImplementedError, match="not this step"):
            seen.extend((event, snapshot_of(built)) for event in loop.train(built))
        return [*seen, (loop.Event(built.state.step), snapshot_of(built))]

    found, wanted = both(ahead, broken)
    assert_same(found, wanted)
    assert found[-1][0].step == 4


@pytest.mark.usefixtures("put_back")
def test_a_run_that_stops_and_resumes_ends_like_an_unbroken_one_that_waits(home, ahead):
    def run(name: str, stops: list[int]) -> dict:
        given = consent.named(home / "tiny.toml", [*FUSED, ICT, f"name={name}", "snapshot.every=0"])
        made = runner.create(given, None, [])
        for stop in [*stops, None]:
            for record in made.records():
                if stop is not None and record.row["step"] >= stop:
                    made.request_stop("test")
            groups = snapshot_of(made.trainer)
            if stop is not None:
                made = runner.resume(made.run)
        return groups

    ahead(False)
    wanted = run("waits", [])
    ahead(True)
    assert_equal(run("ahead", [3, 6, 8]), wanted)
    assert_equal(run("whole", []), wanted)


def test_a_bench_takes_one_pass_a_step(home, ahead, put_back, monkeypatch):
    """Steps with and without marks, bare passes between them: no pass is lost, and each is of its step."""
    seen: list[int] = []
    backward = passes.backward
    monkeypatch.setattr(
        passes, "backward", lambda state, *args, **named: seen.append(state.step) or backward(state, *args, **named)
    )
    ahead(True)
    subject = Subject(build(*SCT))
    for _ in range(3):
        for work in (subject.step, subject.step, subject.phases_of_step, subject.bare):
            work()
    assert seen == list(range(10))


def test_the_host_waits_where_more_than_weights_moves_or_others_may(home):
    def need_not_wait(*overrides: str, device: torch.device = GPU, **changes) -> bool:
        return guard.need_not_wait(replace(build(*overrides), device=device, **changes))

    assert need_not_wait(ICT)
    assert need_not_wait(*SCT)
    assert need_not_wait("objective={kind='ct', mu_0=0.0}")
    assert not need_not_wait(ICT, device=CPU)
    assert not need_not_wait("objective={kind='ct'}")  # its target moves
    assert not need_not_wait(ICT, "optimizer.fused=off")
    assert not need_not_wait(ICT, "optimizer.kind=radam", "optimizer.fused=auto")
    edm2 = [
        "data.kind=digits",
        "network={kind='edm2', width=8, multipliers=[1], depth=1, attention=[], head_channels=8}",
    ]
    assert not need_not_wait(ICT, *edm2)  # it sets its weights before the passes
    built = build(ICT)
    ranks = Ranks()
    ranks.member = replace(ranks.member, size=2)
    assert not guard.need_not_wait(replace(built, device=GPU, ranks=ranks))
    own = built.recipe.model_copy(update={"network": {**built.recipe.network, "kind": "own_net:Network"}})
    assert not guard.need_not_wait(replace(built, device=GPU, recipe=own))


@pytest.mark.parametrize("overrides", [EVERY[name] for name in ("ict", "ect", "sct", "no target", "denoise")])
def test_an_objective_that_says_so_moves_nothing(home, overrides):
    built = build(*overrides)
    assert built.objective.moves_nothing
    before = snapshot_of(built)
    for p in built.state.model.parameters():
        p.data += 1
    before["model"] = snapshot_of(built)["model"]
    built.objective.after_step(built.state.model, 3)
    assert_equal(snapshot_of(built), before)


def test_a_verdict_is_what_fused_kernels_read():
    for is_finite in (True, False):
        verdict = Verdict(torch.tensor(is_finite))
        assert verdict.read() is is_finite
        assert (verdict.found_inf.dtype, float(verdict.found_inf)) == (torch.float32, float(not is_finite))


@pytest.mark.parametrize("is_ahead", [True, False])
def test_passes_of_looks_and_of_after_step_leave_the_profile_alone(home, ahead, monkeypatch, is_ahead):
    """An objective of somebody else may make recorded passes there: the gradient at F is still that of the step."""
    from cmbench.objectives import sct

    anatomy, after_step = sct.Objective.anatomy, sct.Objective.after_step

    def pass_through(model) -> None:
        with torch.enable_grad():
            x = torch.zeros(3, *model.shape)
            model.F(x, model.time(torch.ones(3)))

    def looking(self, model, *given):
        pass_through(model)
        return anatomy(self, model, *given)

    def stepping(self, model, step):
        pass_through(model)
        after_step(self, model, step)

    ahead(is_ahead)
    overrides = [*SCT, "profile.anatomy_every=1", "profile.every=4"]
    wanted = [event for event, _ in followed(build(*overrides)) if isinstance(event, loop.Profiled)]
    monkeypatch.setattr(sct.Objective, "anatomy", looking)
    monkeypatch.setattr(sct.Objective, "after_step", stepping)
    found = [event for event, _ in followed(build(*overrides)) if isinstance(event, loop.Profiled)]
    assert all(any(event.values["F_gradient"]) for event in wanted)
    assert [event.values["F_gradient"] for event in found] == [event.values["F_gradient"] for event in wanted]


@pytest.mark.parametrize("is_ahead", [True, False])
def test_no_graph_of_a_pass_outlives_its_step(home, ahead, is_ahead):
    """It would hold memory through evaluations and snapshots: neither the loss nor the network's output keeps one."""
    ahead(is_ahead)
    built, kept = build(ICT, "profile.every=0"), []
    passes_of_loop = loop.train(built)
    for event in passes_of_loop:
        if isinstance(event, loop.Stepped):
            own = passes_of_loop.gi_frame.f_locals
            kept += [own["terms"].total.requires_grad, built.state.model.last_F is not None]
    assert kept
    assert not any(kept)


def test_failed_passes_ahead_leave_no_graph(home, ahead, monkeypatch):
    built = build(ICT)
    ahead(True)

    def failing() -> guard.Passed:
        x = torch.zeros(3, *built.state.model.shape)
        built.state.model.F(x, built.state.model.time(torch.ones(3)))
        raise RuntimeError

    built.state.model.train()
    assert guard.passed_ahead(built.state, failing) is None
    assert built.state.model.last_F is None
    assert built.state.step == 0


def test_gradients_that_stay_count_as_memory_that_stays(home, ahead, put_back):
    """Peaks are those beyond what stays: gradients of the next step would be missing from both."""
    kept = []
    for is_ahead in (True, False):
        ahead(is_ahead)
        subject = Subject(build(ICT))
        subject.step()
        kept.append(subject.peaks()[0])
    assert kept[0] - kept[1] == sum(p.nbytes for p in subject.built.state.model.parameters())
