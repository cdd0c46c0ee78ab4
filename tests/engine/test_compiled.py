"""`train.compile`: passes as graphs with the same numbers and the same masks, and the same bits on resume."""

import gc
import logging
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from test_resume import UNET, crash, create, finish, stop_after
from tiny import DISTILL
from torch import Tensor, nn
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from cmbench.engine import compiler, loop, passes, runner, trainer
from cmbench.engine.bench import steps
from cmbench.engine.bench.measure import measure
from cmbench.engine.bench.subject import Asked
from cmbench.engine.compiled import Compiled
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.errors import CmbenchError, UsageError
from cmbench.forward_mode import dual as dual_module
from cmbench.randomness import StepRandom
from cmbench.rundir.layout import RunDir
from cmbench.rundir.segments import newest
from cmbench.words.journal import said

pytestmark = pytest.mark.usefixtures("put_back")
COMPILE = "train.compile=true"
TRIG = ["path.kind=trigflow", "objective={kind='sct', tangent_warmup=8}"]
LINEAR = ["path.kind=linear", "objective={kind='meanflow', share_apart=0.5}"]
DIT = ["data.kind=digits", "network={kind='dit', width=16, depth=1, heads=2, patch=4, dropout=0.3}", *UNET[-3:]]
EDM2 = "kind='edm2', width=8, multipliers=[1, 2], depth=1, attention=[4], head_channels=8"
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
    "edm2": [DIT[0], f"network={{{EDM2}, log_variance_channels=8, dropout=0.3}}", *UNET[-3:]],
    "micro batches": [*UNET, "train.micro_batch_size=3"],
}


@pytest.fixture
def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and part the graphs, but run them by torch's own kernels: no C++ is compiled."""

    def lowered(graph: torch.fx.GraphModule, inputs: list[Tensor], **how: Any) -> Any:
        view_to_reshape(graph)  # as Inductor does, whose views may be of any layout
        graph.recompile()
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(compiler, "_lowered", lowered)


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
    wanted = ["value", "value with backward"] if objective == "ict" else ["value and derivative with backward"]
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


@pytest.mark.parametrize("part", ["value", "backward"])
def test_what_cannot_be_compiled_is_said_in_one_line(home, graphs_alone, monkeypatch, part):
    works = compiler._lowered

    def fails(graph: torch.fx.GraphModule, inputs: list[Tensor], **how: Any) -> Any:
        if how.get("is_backward", False) == (part == "backward"):
            raise RuntimeError("C++ compile error\n\nCommand:\ng++ ...\n/x/y.h:3:10: fatal error: Python.h: none")
        return works(graph, inputs, **how)

    monkeypatch.setattr(compiler, "_lowered", fails)
    made = create(home, COMPILE)
    with pytest.raises(CmbenchError) as caught:
        list(made.records())
    wanted = "torch cannot compile the network: /x/y.h:3:10: fatal error: Python.h: none; allowed: false"
    assert str(caught.value) == f"train.compile: found true, but {wanted}"
    assert [row["error"] for row in newest(made.run.events) if row["kind"] == "failed"] == [
        f"CmbenchError: {caught.value}"
    ]


def test_the_backward_is_compiled_with_the_settings_of_the_pass_and_counted(monkeypatch):
    from torch._inductor import config

    known, seen = [name for name in compiler._SETTINGS if hasattr(config, name)], []

    def lowered(graph: torch.fx.GraphModule, inputs: list[Tensor], **how: Any) -> Any:
        seen.append((how.get("is_backward", False), {name: getattr(config, name) for name in known}))
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(compiler, "_lowered", lowered)
    network, own = Odd(), Compiled()
    with own.within([network]):
        result = network(X, C)
        before = own.seconds
        result.sum().backward()
    assert (compiler._SETTINGS["fallback_random"], compiler._SETTINGS["fx_graph_cache"]) == (True, False)
    wanted = {name: compiler._SETTINGS[name] for name in known}
    assert seen == [(False, wanted), (True, wanted)]
    assert own.seconds > before


class Small(nn.Module):
    """A network with dropout, of which there are some kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.dropout = nn.Linear(3, 8), nn.Linear(8, 3), nn.Dropout(0.5)
        self.scale, self.frozen = 1.0, False
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.scale * self.last(self.dropout(torch.tanh(self.first(x) + c_noise.view(-1, 1))))


class WithBatchNorm(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.norm(super().forward(x, c_noise))


class Tied(Small):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(8, 3)
        self.other.weight = self.last.weight

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return super().forward(x, c_noise) + self.other(torch.sin(self.first(x)))


class Normed(Small):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.first)
        nn.utils.parametrizations.spectral_norm(self.last)


class OwnForward(Small):
    def __init__(self) -> None:
        super().__init__()
        self.forward = lambda x, c_noise: 2 * Small.forward(self, x, c_noise)  # type: ignore[method-assign]


class Recomputed(Small):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        result: Tensor = checkpoint(super().forward, x, c_noise, use_reentrant=False)
        return result


class Branched(Small):
    """Its masks must be drawn in order, though no one needs the other."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        masked = [self.dropout(f(self.first(k * x))) for k, f in enumerate((torch.tanh, torch.sin, torch.cos), 1)]
        return self.last(masked[2]) + self.last(masked[1].square()) + self.last(masked[0])


def taught(network: nn.Module, own: Compiled | None, change: Callable[[nn.Module, int], None]) -> list[Tensor]:
    """Return results, gradients and buffers of four passes."""
    found: list[Tensor] = []
    for step in range(4):
        change(network, step)
        torch.manual_seed(step)
        with own.within([network]) if own else nullcontext():
            result = network(torch.randn(4, 3), torch.rand(4))
        network.zero_grad()
        result.square().sum().backward()
        found += [result.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        found += [buffer.clone() for buffer in network.buffers()]
    return found


def unchanged(network: nn.Module, step: int) -> None: ...


def rescaled(network: nn.Module, step: int) -> None:
    network.scale = float(step % 2)


def thawed(network: nn.Module, step: int) -> None:
    network.first.weight.requires_grad_(step > 1)


def replaced(network: nn.Module, step: int) -> None:
    network.last.bias = nn.Parameter(torch.full((3,), float(step)))


def assert_as_uncompiled(kind: type[nn.Module], change: Callable[[nn.Module, int], None] = unchanged) -> None:
    both = []
    for own in (None, Compiled()):
        torch.manual_seed(1)
        network = kind().train()
        names = set(vars(network))
        both.append(taught(network, own, change))
        assert set(vars(network)) == names
    assert [x.shape for x in both[0]] == [x.shape for x in both[1]]
    for found, wanted in zip(*both, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [Small, WithBatchNorm, Tied, Normed, OwnForward, Recomputed, Branched])
def test_a_network_of_any_kind_does_as_uncompiled(graphs_alone, kind):
    assert_as_uncompiled(kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", [WithBatchNorm, Branched])
def test_compiled_code_does_as_uncompiled(kind):
    assert_as_uncompiled(kind)


@pytest.mark.parametrize("change", [rescaled, thawed, replaced])
def test_a_network_changed_between_steps_does_as_uncompiled(graphs_alone, change):
    assert_as_uncompiled(Small, change)


class Counting(Small):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.scale += 1
        return super().forward(x, c_noise)


class Replacing(Small):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.count = self.count + 1
        return super().forward(x, c_noise)


class Remembering(Small):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.remembered = super().forward(x, c_noise)
        return self.remembered


class Choosing(Small):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return x if x.mean() > 0 else super().forward(x, c_noise)


SETS = "the network sets its own {} in a pass, which compiled passes cannot"
REFUSED = {
    Counting: SETS.format("scale"),
    Replacing: SETS.format("count"),
    Remembering: SETS.format("remembered"),
    Choosing: "torch cannot compile the network: its pass depends on a number in a tensor, by if or .item()",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_pass_that_a_graph_cannot_hold_is_refused(graphs_alone, kind):
    network, own = kind(), Compiled()
    with (
        own.within([network]),
        pytest.raises(CmbenchError, match=rf"^train\.compile: found true, but {re.escape(REFUSED[kind])}.*false$"),
    ):
        network(X, C)
    assert "forward" not in vars(network)


def test_what_is_no_plain_pass_runs_uncompiled(graphs_alone):
    network, own = Small().eval(), Compiled()
    dual_module._load_decompositions()  # of which torch warns
    with own.within([network]):
        found = network(x=X, c_noise=C), torch.func.vmap(lambda x: network(x[None], C[:1])[0])(X)
        derivative = torch.func.jvp(lambda x: network(x, C), (X,), (X,))[1]
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(X, X)
            assert torch.equal(forward_ad.unpack_dual(network(dual, C)).tangent, derivative)
    assert torch.equal(found[0], network(X, C))
    assert torch.allclose(found[1], network(X, C[:1].expand(4)), atol=1e-6)
    assert not own.passes


def test_networks_that_are_no_longer_trained_are_freed(graphs_alone):
    network, other, own = Small(), Small(), Compiled()
    with own.within([network, other]):
        other(X, C)
    gone = weakref.ref(other)
    del other
    with own.within([network]):
        pass
    gc.collect()
    assert gone() is None


def test_a_network_without_weights_is_compiled_too(graphs_alone):
    network, own = nn.Tanh(), Compiled()
    with own.within([network]):
        assert torch.equal(network(X), torch.tanh(X))


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


def test_the_compilers_of_a_pass_hear_no_signal_of_the_terminal():
    network, own, heard = Odd(), Compiled(), []
    with pytest.MonkeyPatch.context() as patch:
        before = signal.signal(signal.SIGINT, lambda *_: heard.append("int"))

        def lowered(graph: torch.fx.GraphModule, inputs: list[Tensor], **how: Any) -> Any:
            child = subprocess.run(["sh", "-c", "kill -INT $$; echo ended well"], capture_output=True, check=False)
            heard.append(child.stdout)
            return make_boxed_func(graph.forward)

        patch.setattr(compiler, "_lowered", lowered)
        try:
            with own.within([network]):
                network(X, C)
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, before)
    assert heard == [b"ended well\n", "int"]


def refused_if_impossible(cache: Path) -> str:
    """Return the folder for compiled code, or the refusal, of a process of its own."""
    code = """
import torch
from cmbench.engine import compiler
torch.use_deterministic_algorithms(True)  # torch now enters a place of its own, as in each run
from torch._inductor import cpp_builder
try:
    compiler.refuse_if_impossible(torch.device("cpu"))
    from torch._inductor.codecache import cache_dir
    print(cache_dir())
except compiler.UsageError as error:
    print(error)
"""
    own = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    own["CMBENCH_CACHE_DIR"] = str(cache)
    return subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True).stdout


def test_compiled_code_is_kept_where_the_user_keeps_caches(tmp_path):
    assert refused_if_impossible(tmp_path) == f"{tmp_path / 'compiled'}\n"


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "compiled"
    assert refused_if_impossible(tmp_path / "file") == (
        f"train.compile: found true, but compiled code cannot be kept: [Errno 20] Not a directory: '{folder}'; "
        "allowed: false\n"
    )


def test_torch_settings_and_logs_are_put_back(home, graphs_alone):
    from torch._inductor import config

    before = config.fallback_random, logging.getLogger("torch.utils.cpp_extension").level
    gradients(home, COMPILE, batches=1)
    assert (config.fallback_random, logging.getLogger("torch.utils.cpp_extension").level) == before


def test_the_journal_tells_what_was_compiled(home, graphs_alone):
    run = finish(create(home, COMPILE, "train.steps=3"))
    rows = {row["kind"]: row for row in newest(run.events)}
    assert said(rows["compiling"]) == "compiling: the first step takes longer"
    assert (rows["compiling"]["step"], rows["compiled"]["step"]) == (0, 1)
    assert said(rows["compiled"]).endswith("s: value, value with backward")


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
