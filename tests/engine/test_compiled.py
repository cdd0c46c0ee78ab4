"""`train.compile`: passes as graphs with the same numbers and the same masks, and the same bits on resume."""

import logging
from pathlib import Path

import pytest
import torch
from functorch.compile import make_boxed_func
from test_resume import UNET, crash, create, finish, stop_after
from tiny import DISTILL
from torch import Tensor, nn
from torch._functorch.aot_autograd import aot_module_simplified

from cmbench.engine import compiled, loop, passes, runner, trainer
from cmbench.engine.bench import steps
from cmbench.engine.bench.measure import measure
from cmbench.engine.bench.subject import Asked
from cmbench.engine.compiled import Compiled
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.errors import CmbenchError, UsageError
from cmbench.randomness import StepRandom
from cmbench.rundir.layout import RunDir
from cmbench.rundir.segments import newest
from cmbench.words.journal import said

pytestmark = pytest.mark.usefixtures("put_back")
COMPILE = "train.compile=true"
TRIG = ["path.kind=trigflow", "objective={kind='sct', tangent_warmup=8}"]
LINEAR = ["path.kind=linear", "objective={kind='meanflow', share_apart=0.5}"]
DIT = ["data.kind=digits", "network={kind='dit', width=16, depth=1, heads=2, patch=4, dropout=0.3}", *UNET[-3:]]
OBJECTIVES = {
    "ct": [],
    "ct without a target": ["objective.mu_0=0"],
    "ect": ["objective={kind='ect'}"],
    "ict": ["objective={kind='ict', s_0=2, s_1=40}"],
    "meanflow": LINEAR,
    "sct": TRIG,
    "sct by differences": ["path.kind=trigflow", "objective={kind='sct', tangent_method='finite_difference'}"],
    "sct by jvp": ["path.kind=trigflow", "objective={kind='sct', tangent_method='jvp'}"],
    "naive": ["path.kind=trigflow", "objective={kind='continuous'}"],
    "denoise": ["objective={kind='denoise'}"],
}
NETWORKS = {
    "unet": UNET,
    "unet, conditional": [*UNET, "network.class_conditional=true", "network.attention=[8]"],
    "dit": DIT,
    "micro batches": [*UNET, "train.micro_batch_size=3"],
}


@pytest.fixture
def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace the graphs, but run them by torch's own kernels: no C++ is compiled."""
    eager = make_boxed_func

    def backend(module: nn.Module, given: list[Tensor]) -> compiled.Pass:
        return aot_module_simplified(module, given, fw_compiler=lambda graph, inputs: eager(graph.forward))

    monkeypatch.setattr(compiled, "_backend", backend)


def built(home: Path, *overrides: str) -> Trainer:
    return trainer.from_file(home / "tiny.toml", overrides)


def gradients(home: Path, *overrides: str, batches: int = 2) -> list[Tensor]:
    """Return the gradients of some steps by parameter, and train between them: of weights that are all drawn.

    A new network's last layers are zero, and so would be most gradients, whatever the masks.
    """
    made, generator = built(home, *overrides), torch.Generator().manual_seed(0)
    for model in passes.models(made.state):
        for weight in model.state_dict().values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    found = []
    taken = steps.taken(steps.in_memory(made, rows_every=0))
    for _ in range(batches):
        next(taken)
        found += [p.grad.clone() for p in made.state.model.parameters() if p.grad is not None]
    return found


def of_all(of: list[Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in of])


def assert_near(found: list[Tensor], wanted: list[Tensor], allowed: float = 1e-4) -> None:
    assert len(found) == len(wanted)
    assert (of_all(found) - of_all(wanted)).norm() <= allowed * of_all(wanted).norm() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_objective_has_the_gradients_of_the_uncompiled_step(home, graphs_alone, name):
    assert_near(gradients(home, *OBJECTIVES[name], COMPILE), gradients(home, *OBJECTIVES[name]))


@pytest.mark.parametrize("objective", ["ct", "sct", "meanflow"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_has_the_same_masks_of_dropout(home, graphs_alone, name, objective):
    own = [*NETWORKS[name], *OBJECTIVES[objective]]
    assert_near(gradients(home, *own, COMPILE), gradients(home, *own))


def test_another_mask_would_be_seen(home, monkeypatch):
    def by(seed: int) -> Tensor:
        monkeypatch.setattr(StepRandom, "stream_seed", lambda self, stream: seed if stream == "dropout" else 4)
        return of_all(gradients(home, *UNET, batches=1))

    assert (by(5) - by(6)).norm() > 0.1 * by(5).norm()


def test_a_trained_teacher_and_its_student_are_compiled_each(home, graphs_alone, teacher):
    own = [*DISTILL, f"teacher.run={teacher.path}"]
    assert_near(gradients(home, *own, COMPILE), gradients(home, *own))


@pytest.mark.parametrize("objective", ["ict", "sct"])
def test_one_compilation_serves_all_stages(home, graphs_alone, objective):
    made = built(home, *OBJECTIVES[objective], COMPILE, "evaluate.every=0", "snapshot.every=0")
    events = list(loop.train(made))
    told = [event for event in events if isinstance(event, loop.Compiled)]
    stages = {event.values.get("N", event.values.get("r")) for event in events if isinstance(event, loop.Metrics)}
    assert len(stages) > 1
    assert [event.step for event in told] == [1]
    wanted = ["value", "value, with backward"] if objective == "ict" else ["value and derivative, with backward"]
    assert told[0].passes == wanted
    assert told[0].seconds > 0


def test_nothing_of_it_is_left_on_the_network(home, graphs_alone):
    made = built(home, COMPILE)
    names = set(made.state.model.F_theta.__dict__)
    next(steps.taken(steps.in_memory(made)))
    assert set(made.state.model.F_theta.__dict__) == names


def test_hooks_hear_each_pass_once(home, graphs_alone):
    made, heard = built(home, COMPILE), []
    made.state.model.F_theta.register_forward_hook(lambda *_: heard.append("pass"))
    taken = steps.taken(steps.in_memory(made, rows_every=0))
    for n in (1, 2, 3):
        next(taken)
        assert heard == n * ["pass"]  # the target is another network


class Odd(nn.Module):
    """A network whose pass depends on what its inputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return x * self.weight + c_noise.view(-1, 1) * (2.0 if self.training else 1.0)


ONE, X, C = torch.ones(1, 1), torch.arange(12.0).view(4, 3), torch.arange(4.0)
COLUMNS = X.T.contiguous().T  # the same numbers in another layout
CALLS = {
    "two tensors": lambda network: network(X, C),
    "another layout": lambda network: network(COLUMNS, C),
    "another size": lambda network: network(X[:2], C[:2]),
    "one tensor twice": lambda network: network(ONE, ONE),
    "two of its size": lambda network: network(2 * ONE, ONE),
    "in evaluation": lambda network: network.eval()(X, C),
    "without gradient": lambda network: torch.no_grad()(network)(X, C),
    "in bfloat16": lambda network: torch.autocast("cpu", torch.bfloat16)(network)(X, C),
}


def test_a_pass_is_compiled_anew_where_its_code_would_be_wrong(graphs_alone):
    network, own = Odd(), Compiled()
    for name, call in CALLS.items():
        wanted = call(network.train())
        for _ in range(2):
            with own.within([network.train()]):
                found = call(network)
            assert torch.equal(found, wanted), name
            assert (found.requires_grad, found.dtype) == (wanted.requires_grad, wanted.dtype), name
    assert len(own.passes) == len(CALLS)


def test_a_network_called_in_ever_new_shapes_is_refused(graphs_alone):
    network, own = Odd(), Compiled()

    def call(n: int) -> None:
        with own.within([network]):
            network(torch.ones(n, 3), torch.ones(n))

    for n in range(2, 18):
        call(n)
    call(2)
    with pytest.raises(CmbenchError, match=r"^train\.compile: found true, but the objective calls .* allowed: false$"):
        call(18)


def test_what_cannot_be_compiled_is_said_in_one_line(home, monkeypatch):
    def fails(module: nn.Module, given: list[Tensor]) -> compiled.Pass:
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ ...\n/x/y.h:3:10: fatal error: Python.h: No such file")

    monkeypatch.setattr(compiled, "_backend", fails)
    made = create(home, COMPILE)
    with pytest.raises(CmbenchError) as caught:
        list(made.records())
    wanted = "torch cannot compile the network: /x/y.h:3:10: fatal error: Python.h: No such file; allowed: false"
    assert str(caught.value) == f"train.compile: found true, but {wanted}"
    assert [row["error"] for row in newest(made.run.events) if row["kind"] == "failed"] == [
        f"CmbenchError: {caught.value}"
    ]


def test_without_a_compiler_nothing_is_built(home, monkeypatch):
    from torch._inductor import config

    monkeypatch.delenv("TORCH_INDUCTOR_INSTALL_GXX", raising=False)
    none_here = config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with (
        none_here,
        pytest.raises(UsageError, match=r"train\.compile: found true, but there is no C\+\+ compiler here .* false"),
    ):
        create(home, COMPILE)
    assert not list((home / "runs").glob("*"))


def test_torch_settings_and_logs_are_put_back(home, graphs_alone):
    from torch._inductor import config

    before = config.fallback_random, logging.getLogger("torch.utils.cpp_extension").level
    gradients(home, COMPILE, batches=1)
    assert (config.fallback_random, logging.getLogger("torch.utils.cpp_extension").level) == before


def test_the_journal_tells_what_was_compiled(home, graphs_alone):
    run = finish(create(home, COMPILE, "train.steps=3"))
    rows = {row["kind"]: row for row in newest(run.events)}
    assert said(rows["compiling"]) == "the first step compiles the network's passes: it takes longer"
    assert (rows["compiling"]["step"], rows["compiled"]["step"]) == (0, 1)
    assert said(rows["compiled"]).endswith("s: value, value, with backward")


def files(run: RunDir, step: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.checkpoint(step).glob("*.safetensors"))}


@pytest.mark.parametrize("own", [[*UNET, *TRIG], UNET], ids=["sct", "ct"])
def test_a_resumed_run_is_equal_bit_for_bit(home, graphs_alone, own):
    whole = finish(create(home, *own, COMPILE))
    broken = stop_after(create(home, *own, COMPILE), 4)
    list(runner.resume(broken).records())
    assert files(whole, 6)
    assert files(whole, 6) == files(broken, 6)


@pytest.mark.long
@pytest.mark.parametrize("own", [[*UNET, *TRIG], UNET, [*DIT, *LINEAR]], ids=["sct", "ct", "meanflow"])
def test_compiled_code_has_the_gradients_and_resumes_bit_for_bit(home, own):
    assert_near(gradients(home, *own, COMPILE), gradients(home, *own))
    whole = finish(create(home, *own, COMPILE))
    made = create(home, *own, COMPILE, "checkpoint.every=2")
    records = made.records()
    while next(records).row["step"] < 3:
        pass
    crash(made, records)
    list(runner.resume(made.run).records())
    assert files(whole, 6) == files(made.run, 6)


def test_bench_measures_compiled_passes(home, graphs_alone):
    found = measure([Asked(home / "tiny.toml", (COMPILE,))], 1, Ranks()).costs[0]
    assert found.compiling > 0
    assert found.peak is None
    assert found.flop > 0
    names = [phase.name for phase in found.phases]
    assert names[:4] == ["data", "student", "target", "loss"]
