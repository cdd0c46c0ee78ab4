"""What [train] and [optimizer] ask of a GPU, as far as a CPU can show it."""

import os
from dataclasses import replace

import pytest
import torch
from fake_runs import read_rows
from torch import Tensor

from cmbench import finite
from cmbench import model as models
from cmbench.engine import features, loop, passes, sample, trainer
from cmbench.engine import optimizer as optimizers
from cmbench.engine.bench import passes as bare_passes
from cmbench.engine.bench.measure import measure
from cmbench.engine.bench.subject import Asked
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.errors import UsageError
from cmbench.features.classifier import Classifier
from cmbench.model import products
from cmbench.randomness import Part, StepRandom
from cmbench.tables import Optimizer

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # the name of a GPU needs none
SILENT = ["log.every=100", "profile.every=0", "snapshot.every=0", "evaluate.every=0", "checkpoint.every=0"]


def build(*overrides: str) -> Trainer:
    return trainer.from_file("tiny.toml", [*SILENT, *overrides])


def products_now() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


OF_TORCH, EXACT, TF32 = ("highest", True), ("highest", False), ("high", True)


class Seen(torch.autograd.Function):
    """The identity, which notes how products are computed in its passes."""

    forwards: list[tuple[str, bool]] = []  # noqa: RUF012
    backwards: list[tuple[str, bool]] = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        Seen.forwards.append(products_now())
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        Seen.backwards.append(products_now())
        return gradient


@pytest.fixture
def seen(monkeypatch) -> type[Seen]:
    """Let CPUs have TF32, which they take for float32 here, and note what each pass would compute in."""
    assert products_now() == OF_TORCH
    monkeypatch.setattr(models, "_has_tf32", lambda device: True)
    monkeypatch.setattr(Seen, "forwards", [])
    monkeypatch.setattr(Seen, "backwards", [])
    return Seen


def look_into(network: torch.nn.Module) -> None:
    network.register_forward_hook(lambda module, given, y: Seen.apply(y))


def test_products_are_as_asked_within_the_block_and_as_torch_has_them_after_it():
    for asked, wanted in (("high", TF32), ("highest", EXACT)):
        with products(asked, GPU):
            assert products_now() == wanted
        assert products_now() == OF_TORCH
        with pytest.raises(ZeroDivisionError), products(asked, GPU):
            _ = 1 / 0
        assert products_now() == OF_TORCH
    with products("high", CPU):
        assert products_now() == OF_TORCH


def test_a_block_within_a_block_has_its_own_products():
    with products("high", GPU):
        with products("highest", GPU):
            assert products_now() == EXACT
        assert products_now() == TF32


@pytest.mark.parametrize(("asked", "wanted"), [("high", TF32), ("highest", EXACT)])
@pytest.mark.parametrize("parts", [0, 3])
def test_every_pass_of_a_step_and_of_sampling_has_the_products_of_the_recipe(home, seen, asked, wanted, parts):
    built = build(f"train.matmul_precision={asked}", f"train.micro_batch_size={parts}", "train.steps=2")
    look_into(built.state.model.F_theta)
    look_into(built.state.averages[0].model.F_theta)
    for _ in loop.train(built):
        assert products_now() == OF_TORCH
    assert set(seen.forwards) == {wanted}
    assert set(seen.backwards) == {wanted}
    seen.forwards.clear()
    sample.draw(built.sampling_model, "consistency", 2, [80.0], 0)
    assert seen.forwards == [wanted]


def test_a_teacher_keeps_its_own_products(home, seen):
    built = build("train.matmul_precision=high")
    x, sigma = torch.zeros(2, 2), torch.ones(2)
    teacher = build("objective.kind=denoise").state.model
    look_into(teacher.F_theta)
    with products(built.state.model.matmul_precision, CPU):
        teacher.denoise(x, sigma)
        assert products_now() == TF32
    assert seen.forwards == [EXACT]


def test_the_bare_pass_and_the_product_of_a_bench_have_those_of_the_recipe(home, seen, monkeypatch):
    built = build("train.matmul_precision=high")
    look_into(built.state.model.F_theta)
    bare_passes.bare(built.state.model, torch.zeros(4, 2), torch.ones(4))
    assert (seen.forwards, seen.backwards) == ([TF32], [TF32])
    multiply, _ = bare_passes.product(CPU, built.recipe.train)
    found: list[tuple[str, bool]] = []
    monkeypatch.setattr(models, "_set_products", lambda *given: found.append(given))
    multiply()
    assert found == [TF32, OF_TORCH]


def test_features_of_samples_are_exact(home, seen, tmp_path):
    layers = [("Flatten", {}), ("Linear", {"in_features": 4, "out_features": 3})]
    net = Classifier(classifier_about(layers))
    file = tmp_path / "net.safetensors"
    file.write_bytes(net.to_safetensors())
    of_samples = features.named(str(file), (1, 2, 2), CPU)
    found: list[tuple[str, bool]] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *given: found.append(products_now()))
    try:
        of_samples(torch.zeros(5, 1, 2, 2))
    finally:
        handle.remove()
    assert found
    assert set(found) == {EXACT}


def classifier_about(layers: list) -> object:
    from cmbench.features.classifier import About

    return About(shape=(1, 2, 2), layers=[*layers, ("Linear", {"in_features": 3, "out_features": 2})], features=2)


@pytest.mark.parametrize(
    ("precision", "products", "device", "wanted"),
    [
        *(
            ("float32", "highest", GPU, "float32"),
            ("float32", "high", GPU, "tf32"),
            ("bfloat16", "high", GPU, "bfloat16"),
        ),
        ("float32", "high", CPU, "float32"),
    ],
)
def test_reports_name_what_the_network_multiplies_in(home, precision, products, device, wanted):
    built = build(f"train.precision={precision}", f"train.matmul_precision={products}")
    assert built.state.model.arithmetic(device) == wanted


# train.deterministic

STRICT, FAST = (True, False), (False, True)


def operations_now() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


def journal_of(run_dir) -> list[str]:
    return [row["text"] for row in read_rows(run_dir / "events.jsonl") if row["kind"] == "warning"]


def test_a_recipe_chooses_its_operations_and_the_journal_says_what_that_gives_up(cmbench, home, monkeypatch):
    found: list[tuple[bool, bool]] = []
    train = loop.train
    monkeypatch.setattr(loop, "train", lambda built: found.append(operations_now()) or train(built))
    few = [part for key in ("evaluate.every=0", "snapshot.every=0", "train.steps=6") for part in ("--set", key)]
    fast = ["--set", "train.deterministic=false"]
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert cmbench("run", "tiny.toml", "--plain", "--name", "fast", *few, *fast).code == 0
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert cmbench("run", "tiny.toml", "--plain", "--name", "strict", *few).code == 0
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert cmbench("resume", "fast", "--plain", "--set", "train.steps=9").code == 0
    assert cmbench("resume", "strict", "--plain", "--set", "train.steps=9").code == 0
    assert found == [FAST, STRICT, FAST, STRICT]
    said = "train.deterministic = false: a resumed run does not continue bit for bit"
    assert journal_of(home / "runs" / "fast") == [said, said]
    assert journal_of(home / "runs" / "strict") == []


def test_a_bench_gives_each_recipe_its_own_operations(home, put_back, monkeypatch):
    found: dict[str, set[tuple[bool, bool]]] = {"fast": set(), "strict": set()}
    for module, name in ((passes, "backward"), (bare_passes, "bare")):
        monkeypatch.setattr(module, name, noting(found, getattr(module, name)))
    fast = Asked(home / "tiny.toml", ("name=fast", "train.deterministic=false", "network.width=8"))
    measure([fast, Asked(home / "tiny.toml", ("name=strict",))], 2, Ranks())
    assert found == {"fast": {FAST}, "strict": {STRICT}}


def noting(found: dict, act):
    """Note the operations under which a function acts, by the recipe that the width of its network tells."""

    def noted(of, *args, **named):
        model = getattr(of, "model", of)
        is_fast = any(p.shape[0] == 8 for p in model.parameters() if p.ndim == 2)
        found["fast" if is_fast else "strict"].add(operations_now())
        return act(of, *args, **named)

    return noted


# train.channels_last

LAST = "train.channels_last=true"
DIGITS = ["data.kind=digits", "network={kind='unet', width=8, multipliers=[1, 2], depth=1}", "train.steps=3"]


def layouts(tensors) -> set[bool]:
    """Whether each tensor of four dimensions, none of them trivial, has its channels last."""
    told = [x for x in tensors if x.ndim == 4 and x.shape[1] > 1 and x.shape[2] > 1]
    return {x.is_contiguous(memory_format=torch.channels_last) for x in told}


def test_all_weights_of_convolutions_and_what_goes_with_them_have_their_channels_last(home):
    fused = ["optimizer.kind=adam", "optimizer.fused=on"]
    built = build(*DIGITS, *fused, LAST, "objective.mu_0=0.5", "ema.lengths=[0.9, 0.5]")
    outputs: list[Tensor] = []
    for module in built.state.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, given, y: outputs.append(y))
    for _ in loop.train(built):
        pass
    state = built.state
    moments = [x for own in state.optimizer.state.values() for x in own.values()]
    averages = [p for average in state.averages for p in average.model.parameters()]
    assert len([p for p in built.objective.parameters() if p.ndim == 4])  # the target
    for tensors in (state.model.parameters(), built.objective.parameters(), averages, moments, outputs):
        assert layouts(tensors) == {True}


def test_the_layout_changes_no_file_and_no_number_beyond_rounding(home):
    """Weights drawn from the seed, a step from them, and the names and shapes of a checkpoint are the same."""
    plain, last = build(*DIGITS), build(*DIGITS, LAST)
    for (name, a), (other, b) in zip(states(plain), states(last), strict=True):
        assert name == other
        assert torch.equal(a, b)
    for built in (plain, last):
        list(zip(range(1), loop.train(built), strict=False))
    for (name, a), (_, b) in zip(states(plain), states(last), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)


def states(built: Trainer) -> list[tuple[str, Tensor]]:
    return list(built.state.model.state_dict().items())


@pytest.mark.parametrize("kind", ["adam", "adamw", "radam"])
def test_moments_of_a_checkpoint_take_the_layout_of_their_weights(home, kind):
    built, again = (build(*DIGITS, LAST, f"optimizer.kind={kind}") for _ in range(2))
    for _ in loop.train(built):
        pass
    saved = {name: {key: x.contiguous() for key, x in own.items()} for name, own in built.state.groups().items()}
    again.state.load(3, saved)
    assert layouts(x for own in again.state.optimizer.state.values() for x in own.values()) == {True}
    for name, own in again.state.groups().items():
        assert all(torch.equal(x, saved[name][key]) for key, x in own.items()), name


def test_a_network_without_convolutions_has_no_channels_to_put_last(home):
    with pytest.raises(UsageError, match=r"tiny.toml: train.channels_last: found true, allowed for a network without"):
        build(LAST)


# optimizer.fused


@pytest.mark.parametrize(
    ("kind", "fused", "on_a_gpu", "on_a_cpu"),
    [
        *(("adam", "auto", True, False), ("adamw", "auto", True, False), ("radam", "auto", False, False)),
        *(("adam", "on", True, True), ("adam", "off", False, False), ("radam", "off", False, False)),
    ],
)
def test_one_kernel_updates_all_weights_where_torch_has_it(kind, fused, on_a_gpu, on_a_cpu):
    config = Optimizer(kind=kind, fused=fused)
    assert (optimizers.is_fused(config, GPU), optimizers.is_fused(config, CPU)) == (on_a_gpu, on_a_cpu)
    built = optimizers.build(config, torch.nn.Linear(2, 2))
    assert bool(built.defaults.get("fused")) is on_a_cpu
    assert built.defaults["foreach"] is not on_a_cpu


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_one_kernel_makes_the_update_of_the_papers(home, kind):
    """Kingma & Ba 2015, algorithm 1, and Loshchilov & Hutter 2019, algorithm 2, in float64."""
    net = torch.nn.Linear(3, 2)
    lr, (beta_1, beta_2), eps, decay = 0.01, (0.9, 0.99), 1e-8, 0.1
    config = Optimizer(kind=kind, fused="on", lr=lr, betas=(beta_1, beta_2), eps=eps, weight_decay=decay)
    built = optimizers.build(config, net)
    theta = net.weight.detach().double().clone()
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for k in range(1, 6):
        g = torch.randn(2, 3, generator=torch.Generator().manual_seed(k))
        net.weight.grad = g.clone()
        built.step()
        g = g.double() + (decay * theta if kind == "adam" else 0)
        theta = theta * (1 - lr * decay) if kind == "adamw" else theta
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g.square()
        theta = theta - lr * (m / (1 - beta_1**k)) / ((v / (1 - beta_2**k)).sqrt() + eps)
    torch.testing.assert_close(net.weight.detach().double(), theta, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("before", "after"), [("off", "on"), ("on", "off"), ("on", "on")])
def test_moments_go_on_between_the_kernels(home, before, after):
    first, unbroken = (build("optimizer.kind=adam", f"optimizer.fused={before}", "train.steps=8") for _ in range(2))
    list(zip(range(4), (e for e in loop.train(first) if isinstance(e, loop.Stepped)), strict=False))
    saved = {name: {key: x.clone() for key, x in own.items()} for name, own in first.state.groups().items()}
    resumed = build("optimizer.kind=adam", f"optimizer.fused={after}", "train.steps=8")
    resumed.state.load(4, saved)
    for built in (resumed, unbroken):
        list(loop.train(built))
    for (name, a), (_, b) in zip(states(resumed), states(unbroken), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)
    steps = {float(own["step"]) for own in resumed.state.optimizer.state.values()}
    assert steps == {8.0}


# Batches ahead of the step


class OnDisk(finite.Gathered):
    """Rows of a file, whose reads are noted."""

    def __init__(self, of, index):
        super().__init__(of, index)
        self.reads: list[int] = []

    def __getitem__(self, index):
        if isinstance(index, Tensor):
            self.reads.append(len(index))
        return super().__getitem__(index)

    def to(self, device):
        return self


def on_disk(monkeypatch) -> finite.Finite:
    """50 pictures that stay in a file, for a device that is not where they are."""
    monkeypatch.setattr(finite.Finite, "draws_ahead", True)
    pictures = torch.randint(256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    labels = torch.arange(50) % 3
    rows = OnDisk(pictures, torch.arange(50))
    return finite.Finite(rows, labels, torch.from_numpy(pictures[:9]), labels[:9], CPU, horizontal_flip=True)


@pytest.mark.parametrize("parts", [0, 3])
def test_batches_gathered_ahead_are_those_of_the_step(home, monkeypatch, parts):
    data = on_disk(monkeypatch)
    few = ["train.steps=9", "profile.every=3", f"train.micro_batch_size={parts}"]
    weights = []
    for draws_ahead in (True, False):
        monkeypatch.setattr(finite.Finite, "draws_ahead", draws_ahead)
        built = replace(build(*DIGITS, *few), data=data)
        assert passes.draws_ahead(data, None) is (data if draws_ahead else None)
        list(loop.train(built))
        weights.append(states(built))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(*weights, strict=True))
    assert data.train.reads == [8] * 18


def test_the_next_batch_is_gathered_before_the_host_waits_for_the_device(home, monkeypatch):
    data, built = on_disk(monkeypatch), build(*DIGITS)
    reads: list[int] = []
    agree = built.ranks.agree
    monkeypatch.setattr(built.ranks, "agree", lambda flag: reads.append(len(data.train.reads)) or agree(flag))
    list(loop.train(replace(built, data=data)))
    assert reads == [2, 3, 3]  # of three steps: the last has no next one


def test_another_batch_between_takes_nothing_from_the_one_ahead(home, monkeypatch):
    data = on_disk(monkeypatch)
    now, other = StepRandom(CPU, 0, 4), StepRandom(CPU, 0, 4, part=Part(2, 5, 8))
    wanted, of_part = data.batch(8, now), data.batch(8, other)
    data.ahead(8, now)
    for found, expected in (
        (data.batch(8, other), of_part),
        (data.batch(8, now), wanted),
        (data.batch(8, now), wanted),
    ):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_lies_on_the_device_is_not_drawn_ahead(home):
    built = build(*DIGITS)
    assert passes.draws_ahead(built.data, None) is None  # the CPU is where the digits are
    assert passes.draws_ahead(build().data, None) is None  # a mixture is drawn afresh
    x = torch.arange(3)
    assert finite.sent(x, CPU) is x
