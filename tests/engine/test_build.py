"""From a recipe to its components: those of the package, and those of one's own."""

import json
import sys
from pathlib import Path

import pytest
import tomli
import torch
from jsonschema import Draft202012Validator

from cmbench import recipe as recipes
from cmbench.engine import build, loop, trainer, weights
from cmbench.errors import UsageError
from cmbench.objectives import ct
from cmbench.recipe import load
from cmbench.rundir.select import all_runs

REPOSITORY = Path(__file__).parents[2]

OWN = '''
import torch
from pydantic import Field
from cmbench.config import Config as Base
from cmbench.data import mixtures
from cmbench.networks import mlp
from cmbench.objectives import denoise

class Config(Base):
    """Of every class here."""
    factor: float = Field(1.0, gt=0, description="a factor")

class Data(mixtures.Data):
    def __init__(self, config, device):
        super().__init__(mixtures.Config(name="grid"), device)
        self.factor = config.factor

    def batch(self, n, random):
        x_0, labels = super().batch(n, random)
        return self.factor * x_0, labels

class Network(mlp.Network):
    def __init__(self, config, shape, classes):
        super().__init__(mlp.Config(width=int(8 * config.factor), depth=1), shape, classes)

class Objective(denoise.Objective):
    def __init__(self, config, model, teacher, steps):
        super().__init__(denoise.Config(P_std=config.factor), model, teacher, steps)
        assert teacher is None

class Teacher:
    def __init__(self, data):
        self.shape = data.shape

    def denoise(self, x, sigma, labels=None):
        return torch.zeros_like(x)

class Deaf(Teacher):
    denoise = None

class Narrow(Teacher):
    def denoise(self, x, sigma, labels=None):
        return x[:, :1]

class Wordy(Teacher):
    def denoise(self, x, sigma, labels=None):
        return "x_0"

class Broken(Teacher):
    def denoise(self, x, sigma, labels=None):
        return x @ x
'''


@pytest.fixture
def own(home: Path, put_back: None) -> str:
    (home / "own_parts.py").write_text(OWN)
    return "own_parts"


def test_the_file_name_is_the_name():
    for table, folder in recipes.COMPONENTS.items():
        names = recipes.component_names(folder)
        assert names
        for name in names:
            cls, config = build.component(table, name)
            module = f"cmbench.{folder}.{name}"
            assert cls.__module__ == module
            assert sys.modules[module].Config is config
    assert "_terms" not in recipes.component_names("objectives")


def test_components_of_ones_own_train_and_are_sampled(home, own, cmbench):
    sets = [f"data={{kind='{own}:Data', factor=0.5}}", f"network={{kind='{own}:Network', factor=2.0}}"]
    sets += [f"objective={{kind='{own}:Objective', factor=3.0}}"]
    options = [part for override in sets for part in ("--set", override)]
    assert cmbench("run", "tiny.toml", *options).code == 0
    (run,) = all_runs(home / "runs")
    saved = load(run.recipe)
    assert saved.network == {"kind": "own_parts:Network", "factor": 2.0}
    assert cmbench("sample").code == 0
    model = weights.load(run, torch.device("cpu")).model
    assert model.F_theta.output.in_features == 16
    assert cmbench("recipe", "show", str(run.recipe)).code == 0


def test_a_teacher_of_ones_own(home, own):
    built = trainer.from_file("tiny.toml", ["objective={kind='cd'}", f"teacher.kind={own}:Teacher"])
    assert built.teacher.denoiser.shape == (2,)
    assert len([e for e in loop.train(built) if isinstance(e, loop.Stepped)]) == 12


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("network={kind='own_parts:Netwrok'}", "network.kind: found 'own_parts:Netwrok', which cannot be imported"),
        ("network={kind='own_part:Network'}", "network.kind: found 'own_part:Network', which cannot be imported"),
        ("network={kind='own_parts:Network', factor=-1}", "factor: found -1"),
        ("network={kind='own_parts:Network', width=1}", "width: unknown key"),
        ("teacher.kind=own_parts:Nobody", "teacher.kind: found 'own_parts:Nobody'"),
        ("teacher.kind=os:path", "teacher.kind: found 'os:path', which fails with TypeError: .*; allowed: a class"),
        ("teacher.kind=builtins:list", "teacher.kind: found 'builtins:list', which fails with TypeError"),
        ("teacher.kind=own_parts:Data", "teacher.kind: found 'own_parts:Data', which fails with TypeError"),
        ("teacher.kind=own_parts:Deaf", "teacher.kind: found 'own_parts:Deaf', which fails with TypeError"),
        ("teacher.kind=own_parts:Broken", "teacher.kind: found 'own_parts:Broken', which fails with RuntimeError"),
        (
            "teacher.kind=own_parts:Narrow",
            r"teacher.kind: found 'own_parts:Narrow', whose denoise returns \[5, 1\] for x of shape \[5, 2\]; allowed",
        ),
        ("teacher.kind=own_parts:Wordy", "teacher.kind: found 'own_parts:Wordy', whose denoise returns str for"),
    ],
)
def test_a_component_of_ones_own_with_a_mistake(home, own, override, says):
    overrides = ["objective={kind='cd'}", "teacher.kind=oracle", override]
    with pytest.raises(UsageError, match=r"^tiny\.toml: .*" + says):
        trainer.from_file("tiny.toml", overrides)


UNET = ["data={kind='digits'}", "network={kind='unet', width=8, depth=1}"]
IDLE = {
    "objective.huber_c": (["objective.huber_c=0.3"], "found 0.3, .* objective.distance = 'l2'; allowed there: 0.0"),
    "objective.k": (
        ["objective={kind='ect', adjustment='constant', k=3.0}"],
        "found 3.0, .* objective.adjustment = 'constant'; allowed there: 8.0",
    ),
    "objective.b": (["objective={kind='ect', adjustment='constant', b=3.0}"], "found 3.0, .*; allowed there: 1.0"),
    "objective.tangent_step": (
        ["objective={kind='continuous', tangent_step=0.1}"],
        "found 0.1, .* objective.tangent_method = 'dual'; allowed there: 0.003",
    ),
    "network.heads": ([*UNET, "network.heads=2"], r"found 2, .* network.attention = \[\]; allowed there: 1"),
    "optimizer.decay_after": (["optimizer.decay_after=5"], "found 5, .* optimizer.decay = 'none'; allowed there: 0"),
}


@pytest.mark.parametrize("key", IDLE)
def test_a_key_that_does_nothing_is_refused_of_a_new_run_alone(home, key):
    overrides, says = IDLE[key]
    with pytest.raises(UsageError, match=rf"^tiny\.toml: {key}: {says}$"):
        trainer.from_file("tiny.toml", overrides)
    whole = build.complete(load(Path("tiny.toml"), overrides), "tiny.toml")
    assert trainer.from_recipe(whole, "tiny.toml").recipe == whole


@pytest.mark.parametrize("file", recipes.available(), ids=lambda file: file.stem)
def test_no_recipe_sets_a_key_that_does_nothing(file):
    build.complete_new(load(file), str(file))


def test_a_key_that_an_ablation_leaves_behind_is_spared(home, monkeypatch):
    overrides = ["optimizer.decay_after=5"]
    monkeypatch.setattr(ct.Objective, "switches", {"decay": ("optimizer.decay=none",)}, raising=False)
    assert build.complete_new(load(Path("tiny.toml"), overrides), "x").optimizer.decay_after == 5


@pytest.mark.parametrize("kind", ["nothing", "_terms", "../ct", "ct.py", ""])
def test_an_unknown_objective(home, kind):
    with pytest.raises(UsageError, match=r"objective\.kind: found '.*', allowed: cd, .*ct, denoise, .* module:Class"):
        trainer.from_file("tiny.toml", [f"objective={{kind='{kind}'}}"])


def test_weights_follow_from_the_seed(home):
    def weights_of(*overrides: str) -> dict:
        return trainer.from_file("tiny.toml", overrides).state.model.state_dict()

    torch.manual_seed(123)
    first = weights_of()
    before = torch.random.get_rng_state()
    second = weights_of()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    assert not torch.equal(first["F_theta.input.weight"], weights_of("seed=4")["F_theta.input.weight"])


def test_devices():
    assert build.device_of("cpu") == torch.device("cpu")
    assert build.device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match=r"train\.device: found 'cuda:77'"):
        build.device_of("cuda:77")


def accepts(tables: dict) -> bool:
    """Whether the schema, as it is printed, accepts a recipe."""
    return Draft202012Validator(json.loads(json.dumps(build.schema()))).is_valid(tables)


FILES = sorted((REPOSITORY / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_schema_accepts_every_recipe_as_it_is_and_complete(path):
    assert accepts(tomli.loads(path.read_text()))
    assert accepts(build.complete(load(path), str(path)).tables())


def test_the_schema_accepts_what_only_inherits_and_classes_of_ones_own():
    assert accepts({"extends": "ct_edm.toml", "network": {"width": 64}})
    assert accepts({**tomli.loads(FILES[0].read_text()), "network": {"kind": "mine:Network", "anything": 3}})


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("network", {"kind": "mlp", "widht": 3}),
        ("network", {"kind": "mlp", "width": 0}),
        ("network", {"kind": "mpl"}),
        ("data", {"kind": "mixtures", "name": "rnig"}),
        ("path", {"sigma_min": -1.0}),
        ("path", {"kind": "edmm"}),
        ("train", {"stepz": 3}),
        ("optimizer", {"lr": "fast"}),
        ("trian", {}),
        ("name", 5),
    ],
)
def test_the_schema_refuses_what_the_check_refuses(home, table, value):
    tables = tomli.loads(Path("tiny.toml").read_text())
    assert accepts(tables)
    broken = {**tables, table: value}
    assert not accepts(broken)
    with pytest.raises(UsageError):
        build.complete(recipes.check_tables(broken, "x"), "x")


def test_the_working_directory_is_searched_last(home, own):
    (home / "json.py").write_text("raise ImportError('shadowed')")
    sys.modules.pop("own_parts", None)
    trainer.from_file("tiny.toml", [f"network={{kind='{own}:Network'}}"])
    assert sys.path[-1] == str(home)


def test_a_mistake_in_a_module_of_ones_own_is_named_with_its_line(home):
    (home / "mistaken.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(UsageError, match=r"network\.kind: .*mistaken:Network.*division by zero \(.*mistaken\.py:2\)"):
        trainer.from_file("tiny.toml", ["network={kind='mistaken:Network'}"])
