"""Recipes: files that extend each other, overrides, and complete TOML that reads back as it was written."""

from pathlib import Path

import pytest
import tomli
from tiny import DISTILL, TINY

from cmbench import recipe as recipes
from cmbench.config import check
from cmbench.engine import build
from cmbench.errors import UsageError
from cmbench.recipe import Recipe, check_tables, differences, dumps, load, parse_overrides
from cmbench.tables import TABLES


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_defaults_are_written_out(tiny):
    recipe = load(tiny)
    assert (recipe.name, recipe.seed, recipe.train.steps) == ("tiny", 3, 12)
    assert (recipe.path.kind, recipe.path.sigma_data, recipe.path.sigma_min, recipe.path.sigma_max) == (
        "edm",
        0.5,
        0.002,
        80.0,
    )
    assert recipe.optimizer.betas == (0.9, 0.999)
    assert recipe.teacher is None
    assert "teacher" not in recipe.tables()


def test_a_recipe_inherits_what_it_does_not_say(tiny):
    (tiny.parent / "deep").mkdir()
    child = tiny.parent / "deep" / "child.toml"
    child.write_text('extends = "../tiny.toml"\nname = "child"\n[train]\nsteps = 99\n[path]\nsigma_max = 40.0\n')
    grandchild = tiny.parent / "grandchild.toml"
    grandchild.write_text('extends = "deep/child.toml"\n[train]\nbatch_size = 5\n')
    recipe = load(grandchild)
    assert (recipe.name, recipe.seed) == ("child", 3)
    assert (recipe.train.steps, recipe.train.batch_size) == (99, 5)
    assert recipe.path.sigma_max == 40.0
    assert recipe.network == {"kind": "mlp", "width": 16, "depth": 1}


def test_another_kind_drops_the_keys_of_the_old(tiny):
    child = tiny.parent / "child.toml"
    child.write_text('extends = "tiny.toml"\n[objective]\nkind = "denoise"\nP_std = 2.0\n')
    assert load(child).objective == {"kind": "denoise", "P_std": 2.0}
    assert load(tiny, ["objective.kind=denoise"]).objective == {"kind": "denoise"}
    same = tiny.parent / "same.toml"
    same.write_text('extends = "tiny.toml"\n[objective]\nkind = "ct"\ns_0 = 3\n')
    assert load(same).objective == {"kind": "ct", "mu_0": 0.5, "s_0": 3}
    assert load(tiny, ["objective.s_0=3"]).objective == {"kind": "ct", "mu_0": 0.5, "s_0": 3}


def test_two_parents_that_extend_the_same_are_no_circle(tiny):
    (tiny.parent / "a.toml").write_text('extends = "tiny.toml"')
    (tiny.parent / "b.toml").write_text('extends = "a.toml"')
    assert load(tiny.parent / "b.toml") == load(tiny)


@pytest.mark.parametrize("circle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_is_refused(tmp_path, circle):
    for name, parent in zip(circle, [*circle[1:], circle[0]], strict=True):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{parent}.toml"')
    with pytest.raises(UsageError, match=rf"{circle[-1]}\.toml: extends: found a\.toml"):
        load(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.steps=200", 200),
        ("train.steps = 200", 200),
        ("x=1.5", 1.5),
        ("x=1e-3", 1e-3),
        ("x=true", True),
        ("x=edm", "edm"),
        ("x='1'", "1"),
        ('x="a b"', "a b"),
        ("x=a=b", "a=b"),
        ("x=cuda:0", "cuda:0"),
        ("x=@latest:dm", "@latest:dm"),
        ("x=/tmp/some where", "/tmp/some where"),
        ("x=[1, 2]", [1, 2]),
        ("x=[[1.0], ['a']]", [[1.0], ["a"]]),
        ("x={kind='cd', N=3}", {"kind": "cd", "N": 3}),
        ("x=", ""),
        ("a.b.c=5", 5),
    ],
)
def test_overrides(override, value):
    found = parse_overrides([override])
    for part in override.partition("=")[0].strip().split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_an_override_touches_its_key_alone(tiny):
    both = load(tiny), load(tiny, ["train.steps=200", "train.steps=300", "path.sigma_min=0.01"])
    assert differences(both) == {"train.steps": [12, 300], "path.sigma_min": [0.002, 0.01]}


@pytest.mark.parametrize("override", ["train.steps", "", "=5"])
def test_an_override_needs_a_key_and_a_value(tiny, override):
    with pytest.raises(UsageError, match=r"allowed: table\.key=value"):
        load(tiny, [override])


VARIANTS = {
    "ct": [],
    "cd": ["objective={kind='cd'}", "teacher.kind=oracle"],
    "run": [*DISTILL, "teacher.run=@latest", "teacher.ema=none", "teacher.initialise_student=true"],
    "unet": ["data={kind='digits'}", "network={kind='unet', multipliers=[1,2,2], attention=[4]}"],
    "images": ["data={kind='images', name='folder', root='a \"b\" \\ # c'}", "network={kind='unet'}"],
    "no average": ["ema.lengths=[]", "snapshot.steps=[]", "optimizer.decay=cosine"],
    "points": ["data={kind='points', name='moons', noise=0.0}", "path.sigma_max=1e3"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_complete_recipe_survives_being_written(tiny, variant):
    complete = build.complete(load(tiny, VARIANTS[variant]), "x")
    written = tiny.parent / "written.toml"
    written.write_text(dumps(complete), encoding="utf-8")
    assert load(written) == complete
    assert build.complete(load(written), "x") == complete


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_commented_recipe_is_the_same_and_explains_every_key(tiny, variant):
    complete = build.complete(load(tiny, VARIANTS[variant]), "x")
    text = build.commented(complete)
    assert tomli.loads(text) == complete.tables()
    assert check_tables(tomli.loads(text), "x") == complete
    keys = [line for line in text.splitlines() if "=" in line.partition("#")[0]]
    explained = [line for line in keys if line.partition("# ")[2].strip()]
    assert [line for line in keys if line not in explained and not line.startswith("kind = ")] == []


def whole_numbers():
    """Yield table and key of each field that takes any integer or a list; attention is held to the picture."""
    tables = dict(TABLES)
    for table, folder in recipes.COMPONENTS.items():
        for kind in recipes.component_names(folder):
            tables[f"{table}, kind {kind}"] = build.component(table, kind)[1]
    for name, table in tables.items():
        for key, field in table.model_fields.items():
            if key == "attention" or "Literal" in str(field.annotation):
                continue
            if type(field.default) is int or (isinstance(field.default, tuple) and "int" in str(field.annotation)):
                yield pytest.param(table, key, isinstance(field.default, tuple), id=f"{name}: {key}")


@pytest.mark.parametrize(("table", "key", "listed"), list(whole_numbers()))
def test_a_whole_number_beyond_all_machines_is_refused_in_one_line(table, key, listed):
    """Else an allocator or a float complains, deep inside and with a traceback."""
    endless = 10**13
    with pytest.raises(UsageError) as told:
        check(table, {key: [endless] if listed else endless}, "x.toml")
    assert str(told.value).startswith(f"x.toml: {key}")
    assert "allowed: " in str(told.value)


def test_every_field_has_a_description():
    for name, table in {"": Recipe, **TABLES}.items():
        for key, field in table.model_fields.items():
            is_table = key in {**TABLES, **recipes.COMPONENTS}
            assert is_table or field.description, f"{name}.{key}"
    for table, folder in recipes.COMPONENTS.items():
        for kind in recipes.component_names(folder):
            _, config = build.component(table, kind)
            assert [key for key, field in config.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("kind", "custom"),
    [
        ("edm", ("edm", "log", "sigma_min")),
        ("vp", ("edm", "log", "zero")),
        ("trigflow", ("trigflow", "identity", "zero")),
        ("linear", ("linear", "identity", "zero")),
    ],
)
def test_a_path_brings_what_it_is_trained_with_and_a_recipe_may_differ(tiny, kind, custom):
    path = load(tiny, [f"path.kind={kind}"]).path
    assert (path.scalings, path.c_noise, path.boundary) == custom
    other = load(tiny, [f"path.kind={kind}", "path.scalings=edm", "path.c_noise=angle"]).path
    assert (other.scalings, other.c_noise, other.boundary) == ("edm", "angle", custom[2])


def test_what_a_path_brought_is_written_out(tiny, tmp_path):
    recipe = build.complete(load(tiny, ["path.kind=trigflow", "objective={kind='sct'}"]), "x")
    assert tomli.loads(dumps(recipe))["path"]["c_noise"] == "identity"
    assert check_tables(tomli.loads(dumps(recipe)), "x") == recipe


def test_a_recipe_is_found_by_path_or_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "ring.toml").write_text(TINY)
    assert recipes.find("ring").resolve() == (folder / "ring.toml")
    assert recipes.find("recipes/ring.toml").resolve() == (folder / "ring.toml")
    with pytest.raises(UsageError, match="rnig: no such recipe; did you mean 'ring'"):
        recipes.find("rnig")


def test_recipes_that_came_with_cmbench_are_there_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = recipes.available()
    assert "ct_edm_ring" in [path.stem for path in shipped]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "ct_edm_ring.toml").write_text(TINY)
    assert [path.stem for path in recipes.available()] == [path.stem for path in shipped]
    assert recipes.find("ct_edm_ring") == Path("recipes/ct_edm_ring.toml")  # one's own comes first


@pytest.mark.parametrize("name", ["ct_edm_ring", "ct_edm_ring.toml", "common/ring", "common/ring.toml"])
def test_a_recipe_extends_one_that_came_with_cmbench(name, tmp_path):
    """So a copy of a shipped recipe works in any folder. A file beside the recipe comes first."""
    mine = tmp_path / "mine.toml"
    mine.write_text(f'extends = "{name}"\nname = "mine"\n[objective]\nkind = "ct"\n')
    assert load(mine).data == {"kind": "mixtures", "name": "ring"}
    beside = tmp_path / name
    (tmp_path / "ct_edm_ring").mkdir(exist_ok=True)  # a folder is no recipe
    assert load(mine).data == {"kind": "mixtures", "name": "ring"}
    (tmp_path / "ct_edm_ring").rmdir()
    beside.parent.mkdir(exist_ok=True)
    beside.write_text(TINY)
    assert load(mine).network["width"] == 16


def test_a_recipe_is_frozen(tiny):
    recipe = load(tiny)
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.steps = 5


@pytest.mark.parametrize("kind", ["radam", "adam"])
def test_a_table_whose_kinds_share_their_keys_keeps_them(tiny, kind):
    assert load(tiny, [f"optimizer.kind={kind}"]).optimizer.lr == 1e-2


@pytest.mark.parametrize(
    "overrides", [["optimizer.clip=0.5", "optimizer.kind=adam"], ["path.sigma_max=40.0", "path.kind=edm"]]
)
def test_the_order_of_overrides_of_different_keys_does_not_matter(tiny, overrides):
    assert load(tiny, overrides) == load(tiny, overrides[::-1])


def test_an_unknown_key_is_not_lost_when_the_kind_changes(tiny):
    with pytest.raises(UsageError, match=r"teacher\.foo: unknown key.*initialise_student"):
        load(tiny, ["objective.kind=cd", "teacher.foo=3", "teacher.kind=oracle"])


def test_a_length_of_the_teachers_average_may_be_a_number(tiny):
    assert load(tiny, [*DISTILL, "teacher.run=@latest", "teacher.ema=0.5"]).teacher.ema == "0.5"


def test_an_override_is_one_line(tiny):
    with pytest.raises(UsageError, match=r"allowed: table\.key=value"):
        load(tiny, ["train.steps=5\nseed=1"])
