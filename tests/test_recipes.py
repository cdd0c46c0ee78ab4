"""Every recipe that comes along: it is checked, it is explained, and it trains."""

import math
import re
from pathlib import Path

import pytest
import tomli
import tomli_w

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.engine import build, checkpoint, runner
from cmbench.rundir.layout import steps_of_checkpoints

FOLDER = Path(__file__).parents[1] / "recipes"
FILES = sorted(FOLDER.glob("*.toml"))
SHORT = ["train.steps=2", "train.batch_size=4", "train.device=cpu", "evaluate.n=8"]
SHORT += ["evaluate.true_error_n=2", "snapshot.n=4", "profile.anatomy_every=1"]


def all_recipes(function):
    return pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)(function)


def test_there_are_recipes():
    assert FILES


@all_recipes
def test_a_recipe_has_no_mistake_and_its_files_name(path, cmbench):
    assert cmbench("recipe", "check", path).out == f"{path}: ok\n"
    assert recipes.load(path).name == path.stem


def sources(recipe, home):
    """Train what a recipe takes from runs, on its data and network, and return the overrides that name them."""
    tables = {key: value for key, value in recipe.tables().items() if key not in ("teacher", "start")}
    found = []
    for key in ("teacher", "start"):
        table = getattr(recipe, key)
        if table is None or not table.run:
            continue
        stage_1 = build.component("objective", recipe.objective["kind"])[0].teacher == "consistency"
        objective = {"kind": "ict" if stage_1 else "denoise"}
        (home / f"{key}.toml").write_text(tomli_w.dumps({**tables, "objective": objective}))
        made = runner.create(consent.named(home / f"{key}.toml", SHORT), None, [])
        list(made.records())
        found.append(f"{key}.run={made.run.name}")
    return found


@all_recipes
def test_first_weights_are_those_of_the_same_network(path):
    """Of the recipe that the selector names, with the same scalings and time input."""
    recipe = recipes.load(path)
    initialised = recipe.teacher is not None and recipe.teacher.initialise_student
    source = recipe.teacher if initialised else recipe.start
    if source is None:
        pytest.skip("its weights are drawn from the seed")
    taught = FOLDER / f"{source.run.removeprefix('@latest:').removesuffix('-')}.toml"
    mine, theirs = (build.complete(recipes.load(p), str(p)) for p in (path, taught))
    assert mine.architecture() == theirs.architecture()
    for key in ("scalings", "sigma_data", "c_noise"):
        assert getattr(mine.path, key) == getattr(theirs.path, key)
    changed = ("horizontal_flip", "augment")  # how pictures are changed in training
    assert {**mine.data, **dict.fromkeys(changed)} == {**theirs.data, **dict.fromkeys(changed)}


ON_PUBLISHED_DATA = [path for path in FILES if "_cifar10" in path.stem or "_imagenet64" in path.stem]


def test_recipes_on_imagenet_have_their_pictures_in_one_place():
    found = [recipes.load(path).data for path in ON_PUBLISHED_DATA if "_imagenet64" in path.stem]
    assert len(found) > 5
    assert len({(data["root"], data["size"], data["held_out"]) for data in found}) == 1


@pytest.mark.parametrize("path", ON_PUBLISHED_DATA, ids=lambda path: path.stem)
def test_a_recipe_on_published_data_says_first_which_published_numbers_it_aims_at(path):
    head = path.read_text(encoding="utf-8").partition("name = ")[0]
    assert re.search(r"Published[^.]*?FID (of )?\d", " ".join(head.replace("#", " ").split())), head


MILLION = 10**6
PUBLISHED = {  # images of the training, of its warm-up, and of an average's half-life
    "dm_edm_cifar10": (200 * MILLION, 10 * MILLION, 0.5 * MILLION),  # Karras et al. 2022, table 7
    "dm_edm_imagenet64": (2500 * MILLION, 10 * MILLION, 50 * MILLION),  # ibid.
    "dm_edm_imagenet64_edm2": (2**30, 10 * MILLION, None),  # Karras et al. 2024, table 6: EDM2-S
    "dm_trigflow_imagenet64": (2**30, 10 * MILLION, None),
    "dm_trigflow_cifar10": (400_000 * 512, 10 * MILLION, 0.5 * MILLION),  # Lu & Song 2024, appendix G: as EDM
    "sct_trigflow_cifar10": (400_000 * 512, 0, 0.5 * MILLION),
    "scd_trigflow_cifar10": (400_000 * 512, 0, 0.5 * MILLION),
    "meanflow_linear_cifar10": (800_000 * 1024, 10_000 * 1024, None),  # Geng et al. 2025, appendix A
    "ect_edm_cifar10": (25.6 * MILLION, 0, None),  # Geng et al. 2024, 200,000 steps of 128
    "cd_edm_imagenet64": (600_000 * 2048, 0, None),  # Song et al. 2023, table 3
    "ct_edm_imagenet64": (800_000 * 2048, 0, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_training_has_the_published_number_of_images(name):
    """To half a step, and the half-life of its average to a hundredth."""
    recipe, (images, warmup, half_life) = recipes.load(FOLDER / f"{name}.toml"), PUBLISHED[name]
    batch = recipe.train.batch_size
    assert abs(recipe.train.steps - images / batch) <= 0.5
    assert abs(recipe.optimizer.warmup - warmup / batch) <= 0.5
    if half_life:
        assert batch * math.log(0.5) / math.log(recipe.ema.lengths[0]) == pytest.approx(half_life, rel=0.01)


@all_recipes
def test_a_recipe_trains(path, home, put_back):
    recipe = build.complete(recipes.load(path), str(path))
    if recipe.data["kind"] == "images":
        pytest.skip("its pictures are not here")
    few = ["data.stride=32"] if recipe.data["kind"] == "patches" else []  # exact trajectories of 6,000 take minutes
    overrides = [*SHORT, *few, *sources(recipe, home)]
    made = runner.create(consent.named(path, overrides), None, [])
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
