"""[start] and [teacher] of a file: what other code has saved is taken over, or refused in a line."""

import shutil

import pytest
import torch
from fake_runs import read_rows
from safetensors.torch import save_file

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.engine import build, checkpoint, runner, trainer
from cmbench.errors import NotFoundError, UsageError
from cmbench.model import Model
from cmbench.networks import mlp
from cmbench.rundir.files import read_json

CPU = torch.device("cpu")
NETWORK = "{kind='mlp', width=16, depth=1}"
FILE = ["name=cd", "objective.kind=cd", "teacher.kind=file", f"teacher.network={NETWORK}"]


@pytest.fixture
def theirs(home) -> dict:
    """Weights of a network of the tiny recipe's shape."""
    torch.manual_seed(5)
    network = mlp.Network(mlp.Config(width=16, depth=1), (2,), 0)
    torch.nn.init.normal_(network.output.weight)
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def saved(home, theirs):
    torch.save({"ema": {f"module.model.{name}": tensor for name, tensor in theirs.items()}, "step": 7}, home / "x.pt")
    return home / "x.pt"


def begin(home, *overrides: str) -> trainer.Trainer:
    return trainer.from_file(home / "tiny.toml", list(overrides))


def own(model: Model) -> dict:
    return model.F_theta.state_dict()


def test_a_run_begins_with_the_weights_of_a_file(home, saved, theirs):
    built = begin(home, f"start.file={saved}")
    for model in (built.state.model, built.objective.target, *(a.model for a in built.state.averages)):
        assert all(torch.equal(own(model)[name], tensor) for name, tensor in theirs.items())
    assert built.start.error == 0
    assert all(p.requires_grad for p in built.state.model.parameters())


def test_a_teacher_denoises_as_the_files_network_in_edms_preconditioner(home, saved, theirs):
    """D = c_skip x + c_out F(c_in x, ln(sigma) / 4), written here from the paper (Karras et al. 2022, table 1)."""
    built = begin(home, *FILE, f"teacher.file={saved}")
    network = mlp.Network(mlp.Config(width=16, depth=1), (2,), 0)
    network.load_state_dict(theirs)
    x, sigma = torch.randn(6, 2), torch.tensor([0.01, 0.1, 0.5, 2.0, 10.0, 80.0])
    total = sigma.square() + 0.25
    F = network(x / total.sqrt()[:, None], sigma.log() / 4)
    D = (0.25 / total)[:, None] * x + (0.5 * sigma / total.sqrt())[:, None] * F
    torch.testing.assert_close(built.teacher.denoiser.denoise(x, sigma), D)
    assert not any(p.requires_grad for p in built.teacher.trained.model.parameters())
    assert built.teacher.trained.sampler == "ode"


def test_a_teacher_may_have_another_size_path_and_precision_of_its_levels(home, theirs):
    network = mlp.Network(mlp.Config(width=8, depth=2), (2,), 0)
    save_file(network.state_dict(), home / "x.safetensors")
    path = "{kind='trigflow', sigma_data=0.4}"
    of_file = ["teacher.network={kind='mlp', width=8, depth=2}", f"teacher.path={path}", "teacher.file=x.safetensors"]
    built = begin(home, "name=cd", "objective.kind=cd", "teacher.kind=file", *of_file)
    assert built.teacher.trained.recipe.path.kind == "trigflow"
    assert built.recipe.teacher.path["sigma_data"] == 0.4
    assert built.recipe.teacher.path["sigma_max"] == 80.0


@pytest.mark.parametrize(
    ("path", "differs"),
    [("", False), ("c_noise='identity'", True), ("kind='vp', boundary='sigma_min'", False), ("sigma_max=1.0", False)],
)
def test_the_error_of_a_change_of_path_is_reported(home, saved, path, differs):
    built = begin(home, f"start.file={saved}", *([f"start.path={{{path}}}"] if path else []))
    assert (built.start.error > 1e-4) == differs
    student = begin(home, *FILE, f"teacher.file={saved}", "teacher.initialise_student=true")
    assert student.start.error == 0


def test_a_consistency_function_is_compared_as_one_and_teaches_a_truncated_model(home, saved):
    assert begin(home, f"start.file={saved}", "start.function=consistency").start.trained.sampler == "consistency"
    tcm = ["objective={kind='tcm'}", "teacher.kind=file", f"teacher.network={NETWORK}", f"teacher.file={saved}"]
    assert begin(home, *tcm, "teacher.function=consistency").teacher.trained.sampler == "consistency"
    with pytest.raises(UsageError, match=r"teacher\.file: found '.*x\.pt', allowed: teacher\.function = 'consistency'"):
        begin(home, *tcm)
    with pytest.raises(UsageError, match=r"teacher\.file: found '.*x\.pt', allowed: teacher\.function = 'denoiser'"):
        begin(home, *FILE, f"teacher.file={saved}", "teacher.function=consistency")


def test_average_velocities_are_those_of_two_times(home):
    network = mlp.Network(mlp.Config(width=16, depth=1), (2,), 0, times=2)
    save_file(network.state_dict(), home / "x.safetensors")
    meanflow = ["objective={kind='meanflow'}", "path.kind=linear", "start.file=x.safetensors"]
    assert begin(home, *meanflow, "start.function=average_velocity").start.error == 0
    with pytest.raises(UsageError, match=r"its tensors do not fit the network: 2 unexpected \(more_times"):
        begin(home, *meanflow)
    with pytest.raises(UsageError, match=r"start\.function: found 'average_velocity' on path 'edm', allowed for it: "):
        begin(home, "start.file=x.safetensors", "start.function=average_velocity")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted_and_the_journal_says_so(home, theirs, dtype, put_back):
    save_file({name: tensor.to(dtype) for name, tensor in theirs.items()}, home / "x.safetensors")
    made = runner.create(consent.named(home / "tiny.toml", ["start.file=x.safetensors"]), None, [])
    list(made.records())
    assert all(tensor.dtype == torch.float32 for tensor in own(made.trainer.start.trained.model).values())
    (event,) = (row for row in read_rows(made.run.events) if row["kind"] == "initialised")
    assert event["source"]["converted"] == f"6 tensors from {str(dtype).removeprefix('torch.')}"


def test_a_run_keeps_what_it_needs_and_tells_where_it_comes_from(home, saved, put_back):
    """Killed and resumed without the file, it ends as the unbroken run."""
    start = [f"start.file={saved}", "path.c_noise=identity", "start.path={c_noise='log'}", "log.every=1"]
    unbroken = runner.create(consent.named(home / "tiny.toml", start), None, [])
    list(unbroken.records())
    made = runner.create(consent.named(home / "tiny.toml", start), None, [])
    for _ in (records := made.records()):
        if made.trainer.state.step >= 7:
            break
    records.close()
    saved.unlink()
    resumed = runner.resume(made.run)
    assert resumed.trainer.start.error == unbroken.trainer.start.error > 0
    assert resumed.trainer.start.trained.source == unbroken.trainer.start.trained.source
    list(resumed.records())
    for group, tensors in checkpoint.load(unbroken.run, 12).items():
        found = checkpoint.load_group(made.run, 12, group)
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    told = read_json(made.run.meta)["start"]
    assert (told["file"], told["weights"], len(told["sha256"])) == (str(saved), "ema.model", 64)
    assert recipes.load(made.run.recipe).start.file == str(saved)


@pytest.mark.parametrize("which", ["start", "teacher"])
def test_a_run_without_its_copy_does_not_read_the_file_again(home, saved, put_back, which):
    """The recipe of a run directory is somebody's: it names no file that is read."""
    given = [f"start.file={saved}"] if which == "start" else [*FILE, f"teacher.file={saved}"]
    made = runner.create(consent.named(home / "tiny.toml", given), None, [])
    made.close()
    shutil.rmtree(made.run.path / which)
    with pytest.raises(NotFoundError, match="the run's own copy of another run's weights is missing"):
        runner.resume(made.run)


def test_a_class_of_ones_own_needs_consent_in_a_files_table_too(home, saved, put_back):
    (home / "own_nets.py").write_text("from cmbench.networks.mlp import Config, Network as Mine\nacted = True\n")
    network = "{kind='own_nets:Mine', width=16, depth=1}"
    given = [*FILE[:-1], f"teacher.network={network}", f"teacher.file={saved}"]
    assert consent.kinds(recipes.parse_overrides(given)) == {"teacher.network.kind": "own_nets:Mine"}
    made = runner.create(consent.named(home / "tiny.toml", given), None, [])
    made.close()
    shutil.rmtree(home.with_name(f"{home.name}-data"))  # where consent is kept
    consent.forget()
    with pytest.raises(UsageError, match=r"teacher\.network\.kind: found 'own_nets:Mine'.* is not trusted"):
        build.of_run(made.run)


BAD = {
    "nan": (
        lambda t: {**t, "output.bias": torch.tensor([1.0, torch.nan])},
        "output.bias: 1 of 2 values are not finite",
    ),
    "overflow": (
        lambda t: {**t, "output.bias": torch.tensor([1.0, 1e300], dtype=torch.float64)},
        "output.bias: 1 of 2 values are not finite in float32",
    ),
    "integers": (lambda t: {**t, "output.bias": torch.tensor([1, 2])}, "output.bias: found int64, allowed: float32"),
    "complex": (
        lambda t: {**t, "output.bias": torch.tensor([1j, 2])},
        "output.bias: found complex64, allowed: float64, float32, float16, bfloat16",
    ),
    "sparse": (lambda t: {**t, "output.bias": torch.ones(2).to_sparse()}, "output.bias: found sparse_coo float32"),
    "shape": (lambda t: {**t, "input.weight": torch.ones(16, 3)}, "input.weight [16, 3] there, [16, 2] here"),
    "missing": (lambda t: {k: v for k, v in t.items() if k != "output.bias"}, "1 missing (output.bias)"),
    "another network": (lambda t: {"conv.weight": torch.ones(3)}, "of another network: it has 'conv.weight'"),
}


@pytest.mark.parametrize("table", ["start", "teacher"])
@pytest.mark.parametrize("case", BAD)
def test_values_that_are_no_weights_are_refused_in_a_line(home, theirs, case, table):
    change, says = BAD[case]
    torch.save(change(theirs), home / "x.pt")
    given = ["start.file=x.pt"] if table == "start" else [*FILE, "teacher.file=x.pt"]
    with pytest.raises(UsageError) as told:
        begin(home, *given)
    assert str(told.value).startswith(f"{home / 'tiny.toml'}: {table}.file: {home / 'x.pt'}: ")
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_patterns_allow_what_is_missing_which_the_seed_then_gives(home, theirs):
    del theirs["output.bias"]
    torch.save({**theirs, "more": torch.ones(1)}, home / "x.pt")
    built = begin(home, "start.file=x.pt", "start.allow_missing=['output*']", "start.allow_unexpected=['more']")
    fresh = begin(home)
    assert torch.equal(own(built.state.model)["output.bias"], own(fresh.state.model)["output.bias"])
    assert torch.equal(own(built.state.model)["input.bias"], theirs["input.bias"])


WRONG = {
    "both": (["start.file=x.pt", "start.run=@latest"], "start.run: found beside file; allowed: one of the two"),
    "neither": (["start={ema='none'}"], "start.run: missing without file; allowed: one of the two"),
    "ema": (["start.file=x.pt", "start.ema=none"], "start.ema: found with file, allowed: with run"),
    "weights": (["start.run=@latest", "start.weights=ema"], "start.weights: found with run, allowed: with file"),
    "function": (["start.file=x.pt", "start.function=velocity"], "start.function: found 'velocity', allowed: "),
    "kind": (["objective.kind=cd", "teacher.file=x.pt"], "teacher.kind: found 'oracle', allowed: 'file' where file is"),
    "no file": (["objective.kind=cd", "teacher.kind=file"], "teacher.file: missing, and kind = 'file' needs it"),
    "no network": (["objective.kind=cd", "teacher.kind=file", "teacher.file=x.pt"], "teacher.network: missing"),
    "network": (
        [*FILE[:3], "teacher.file=x.pt", "teacher.network={kind='mpl'}"],
        "network.kind: found 'mpl', allowed:",
    ),
    "nearest": ([*FILE[:3], "teacher.file=x.pt", "teacher.network={kind='mpl'}"], "did you mean 'mlp'?"),
    "network key": ([*FILE, "teacher.file=x.pt", "teacher.network.widht=8"], "teacher.network.widht: unknown key; did"),
    "path key": ([*FILE, "teacher.file=x.pt", "teacher.path={sigma=1}"], "teacher.path.sigma: unknown key"),
    "path": ([*FILE, "teacher.file=x.pt", "teacher.path={sigma_data=-1}"], "teacher.path.sigma_data: found -1"),
    "gone": (["start.file=nowhere.pt"], "nowhere.pt: cannot be read: No such file or directory"),
    "another": (["start.file=x.pt", "network.width=8"], "input.weight [16, 2] there, [8, 2] here"),
    "differs": (["start.file=x.pt", f"start.network={NETWORK}", "network.width=8"], "network.width is 16 there and 8"),
    "sigma_data": (["start.file=x.pt", "start.path={sigma_data=0.4}"], "path.sigma_data is 0.4 there and 0.5 here"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_table_with_a_mistake_is_told_in_a_line(home, saved, case):
    given, says = WRONG[case]
    with pytest.raises(UsageError) as told:
        begin(home, *given)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_table_can_be_taken_away(home, saved):
    assert begin(home, "start.file=''").start is None
    (home / "mine.toml").write_text(f"extends = 'tiny.toml'\n[start]\nfile = '{saved}'\n")
    assert trainer.from_file(home / "mine.toml", ["start.file="]).start is None
    assert recipes.load(home / "mine.toml").start.file == str(saved)


def test_a_recipe_shows_and_keeps_the_tables_of_a_file(home, saved):
    built = begin(home, *FILE, f"teacher.file={saved}")
    again = build.complete(recipes.check_tables(recipes.parsed(recipes.dumps(built.recipe), "x"), "x"), "x")
    assert again == built.recipe
    shown = build.commented(built.recipe)
    assert recipes.check_tables(recipes.parsed(shown, "x"), "x") == built.recipe
    assert "\n[teacher.network]\nkind = " in shown


def test_a_relative_path_holds_from_any_folder(home, saved, monkeypatch):
    (home / "elsewhere").mkdir()
    given = consent.named(home / "tiny.toml", ["start.file=x.pt"]).recipe
    assert build.complete_new(given, "x").start.file == str(saved)
    monkeypatch.chdir(home / "elsewhere")
    assert build.complete_new(given, "x").start.file == str(home / "elsewhere" / "x.pt")


class Tied(torch.nn.Module):
    def __init__(self, config, shape, classes, times=1):
        super().__init__()
        self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        self.b.weight = self.a.weight
        self.register_buffer("kernel", torch.ones(2), persistent=False)

    def forward(self, x, c_noise, labels=None):
        return self.b(self.a(x)) * self.kernel


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"b.weight": torch.zeros(2, 2)}, r"(a|b)\.weight: has other values than the tensor that shares its place"),
        ({"kernel": torch.ones(2)}, ""),
        ({"kernel": torch.full((2,), 3.0)}, r"kernel: has other values than the network's settings give"),
    ],
)
def test_tensors_that_a_network_ties_or_builds_itself_must_agree(home, put_back, change, says):
    shared = dict(Tied(None, (2,), 0).state_dict())
    torch.save({**shared, **change}, home / "x.pt")
    network = ["teacher.network={kind='own_tied:Net'}", "teacher.file=x.pt"]
    (home / "own_tied.py").write_text(
        "from test_weights_file import Tied\nfrom cmbench.networks._stand_in import Config\nclass Net(Tied): pass\n"
    )
    if says:
        with pytest.raises(UsageError, match=says):
            begin(home, *FILE[:3], *network)
    else:
        found = own(begin(home, *FILE[:3], *network).teacher.trained.model)
        assert all(torch.equal(found[name], tensor) for name, tensor in shared.items())
