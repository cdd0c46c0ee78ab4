"""What may be changed while a run trains, and the recipe that comes of it."""

import pytest

from cmbench import recipe as recipes
from cmbench import steering
from cmbench.engine import build
from cmbench.errors import UsageError

SCT = ["objective={kind='sct'}", "path.kind=trigflow"]


def complete(home, *overrides):
    return build.complete(recipes.load(home / "tiny.toml", overrides), "tiny.toml")


def test_what_is_steerable_depends_on_nothing_else():
    """Neither the network nor the optimiser's state nor the order of what is drawn."""
    of_views = {f"{table}.every" for table in ("log", "profile", "checkpoint", "snapshot", "evaluate")}
    assert set(steering.KEYS) == {"optimizer.lr", "objective.tangent_warmup", "ema.lengths", *of_views}


@pytest.mark.parametrize("key", steering.KEYS)
def test_every_key_changes_its_own_value_and_no_other(home, key):
    before = complete(home, *SCT)
    table, name = key.split(".")
    value = {"optimizer.lr": 0.5, "ema.lengths": [0.25, 0.75]}.get(key, 77)
    after = steering.steered(before, {key: value}, "run").tables()
    assert after[table][name] == value
    assert after == {**before.tables(), table: {**before.tables()[table], name: value}}


def test_it_is_the_recipe_that_overrides_would_have_made(home):
    overrides = ["optimizer.lr=0.5", "ema.lengths=[0.25, 0.75]", "log.every=7", "objective.tangent_warmup=9"]
    before = complete(home, *SCT)
    settings = steering.parse(before, overrides, "run")
    assert steering.steered(before, settings, "run") == complete(home, *SCT, *overrides)


def test_a_key_of_another_objective_cannot_be_changed(home):
    assert "objective.tangent_warmup" in steering.steerable(complete(home, *SCT))
    assert "objective.tangent_warmup" not in steering.steerable(complete(home))


REFUSED = {
    "an unknown key": ({"optimizer.lrr": 1.0}, ["optimizer.lrr", "cannot be changed", "'optimizer.lr'?", "log.every"]),
    "a key without its table": ({"lr": 1.0}, ["lr", "did you mean 'optimizer.lr'?"]),
    "a key of the recipe that is fixed": ({"train.steps": 5}, ["train.steps", "cannot be changed", "log.every"]),
    "a whole table": ({"optimizer": {}}, ["optimizer", "cannot be changed", "'optimizer.lr'?"]),
    "a key that is none": ({"": 1}, ["cannot be changed"]),
    "a text": ({"optimizer.lr": "fast"}, ["optimizer.lr", "'fast'", "number"]),
    "none": ({"optimizer.lr": None}, ["optimizer.lr", "None", "number"]),
    "a negative rate": ({"optimizer.lr": -1.0}, ["optimizer.lr", "-1.0", "greater than 0"]),
    "a rate that is not finite": ({"optimizer.lr": float("nan")}, ["optimizer.lr", "nan", "finite"]),
    "a rate beyond float32": ({"optimizer.lr": 1e38}, ["optimizer.lr", "1e+38", "3.4e+37"]),
    "an interval of 0": ({"log.every": 0}, ["log.every", "found 0", "1"]),
    "half a step": ({"checkpoint.every": 0.5}, ["checkpoint.every", "0.5", "integer"]),
    "an interval beyond 63 bits": ({"log.every": 2**63}, ["log.every", str(2**63), str(2**63 - 1)]),
    "a warm-up below 0": ({"objective.tangent_warmup": -1}, ["objective.tangent_warmup", "-1", "0"]),
    "a decay of 1": ({"ema.lengths": [1.0, 0.5]}, ["ema.lengths", "[1.0, 0.5]", "(0, 1.0)"]),
    "another number of averages": ({"ema.lengths": [0.5]}, ["ema.lengths", "[0.5]", "as many as before, 2"]),
    "the second of two": ({"log.every": 5, "snapshot.every": -1}, ["snapshot.every", "-1"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(home, case):
    settings, mentions = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        steering.steered(complete(home, *SCT), settings, "run")
    assert str(caught.value).startswith("run: ")
    assert "\n" not in str(caught.value)
    assert [part for part in mentions if part not in str(caught.value)] == []


def test_settings_are_read_as_overrides_are(home):
    recipe = complete(home)
    assert steering.parse(recipe, ["optimizer={lr=0.5}", "log.every=5", "log.every=6"], "run") == {
        "optimizer.lr": 0.5,
        "log.every": 6,
    }
    with pytest.raises(UsageError, match=r"^set 'log.every': found no key and value"):
        steering.parse(recipe, ["log.every"], "run", option="set")
