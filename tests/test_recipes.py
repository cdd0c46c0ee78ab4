"""Every recipe that comes along: it is checked, it is explained, and it trains."""

from pathlib import Path

import pytest
import tomli
import tomli_w

from cmbench import recipe as recipes
from cmbench.engine import build, checkpoint, runner
from cmbench.rundir.layout import steps_of_checkpoints

FOLDER = Path(__file__).parents[1] / "recipes"
FILES = sorted(FOLDER.glob("*.toml"))
SHORT = ["train.steps=2", "train.batch_size=4", "train.device=cpu", "evaluate.n=8", "snapshot.n=4"]


def all_recipes(function):
    return pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)(function)


def test_there_are_recipes():
    assert FILES


@all_recipes
def test_a_recipe_has_no_mistake_and_its_files_name(path, cmbench):
    assert cmbench("recipe", "check", path).out == f"{path}: ok\n"
    assert recipes.load(path).name == path.stem


@all_recipes
def test_a_recipe_trains(path, home, put_back):
    recipe = build.complete(recipes.load(path), str(path))
    if recipe.data["kind"] == "images":
        pytest.skip("its pictures are not here")
    overrides = list(SHORT)
    if recipe.teacher is not None and recipe.teacher.kind == "run":
        taught = recipes.load(path)
        tables = {key: value for key, value in taught.tables().items() if key != "teacher"}
        (home / "teacher.toml").write_text(tomli_w.dumps({**tables, "objective": {"kind": "denoise"}}))
        teacher = runner.create(home / "teacher.toml", SHORT, None, [])
        list(teacher.records())
        overrides.append(f"teacher.run={teacher.run.name}")
    made = runner.create(path, overrides, None, [])
    list(made.records())
    assert made.exit_code == 0
    assert steps_of_checkpoints(made.run) == [2]
    assert checkpoint.load(made.run, 2)


@all_recipes
def test_every_key_is_explained(path):
    """By a comment at the end of its line, or on the line above it."""
    lines = path.read_text().splitlines()
    tomli.loads(path.read_text())
    bare = []
    for i, line in enumerate(lines):
        key, equals, rest = line.partition("=")
        is_key = equals and not key.lstrip().startswith(("#", '"')) and key.strip().replace("_", "").isalnum()
        above = lines[i - 1].lstrip().startswith("#") if i else False
        if is_key and "#" not in rest and not above:
            bare.append(line)
    assert bare == []
