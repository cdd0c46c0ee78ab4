"""Words that say which runs are meant."""

import pytest
from fake_runs import fake_run

from cmbench.comparison.filter import parse
from cmbench.errors import UsageError
from cmbench.rundir.overview import Overview


@pytest.fixture(scope="module")
def glances(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    fake_run(folder, "ct_ring-a", state="running", loss=0.1, sw=0.05, step=1000, tags=["lr", "Base"])
    fake_run(folder, "ct_edm-b", state="stopped", loss=0.2, sw=None, step=999, note="Warm-up too [short]")
    fake_run(folder, "dm-c", loss=None, sw=0.01, step=5, tags=["lr2"], note="12:30 a<b")
    return Overview(folder).read()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", "abc"),
        ("  ", "abc"),
        ("ct", "ab"),
        ("CT_RING", "a"),
        ("[short]", "b"),
        ("lr", "ac"),
        ("tag:lr", "a"),
        ("tag:base", "a"),
        ("state:running", "a"),
        ("state:s", "b"),
        ("state:finished", "c"),
        ("loss<0.2", "a"),
        ("loss<=0.2", "ab"),
        ("loss>.1", "b"),
        ("loss<inf", "ab"),
        ("loss<nan", ""),
        ("sw<0.05", "c"),
        ("quality<0.05", "c"),
        ("sw=0.05", "a"),
        ("sw>=0", "ac"),
        ("step>=1000", "a"),
        ("step=999", "b"),
        ("ct step<1e3", "b"),
        ("ct lr state:stopped", ""),
    ],
)
def test_every_word_holds_of_what_is_meant(glances, text, meant):
    holds = parse(text)
    assert sorted(glance.name[-1] for glance in glances if holds(glance)) == list(meant)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo<3", r"foo<3: found 'foo', allowed: loss, sw, quality, step, seed, last.METRIC"),
        ("ct loss<abc", r"loss<abc: found 'abc', allowed: a number"),
        ("loss<", r"loss<: found '', allowed: a number"),
        ("step==3", "found '=3', allowed: a number"),
        ("colour:red", "found 'colour:red', allowed: state:WORD, tag:WORD"),
        ("tag:", "found 'tag:', allowed"),
        ("optimiser.lr>1", "allowed: .*; did you mean 'optimizer'"),
        ("optimizer.>1", "found 'optimizer.', allowed"),
        ("OR ct", "OR: found without a word before it"),
        ("ct OR", "OR: found without a word behind it"),
        ("ct NOT", "NOT: found without a word behind it"),
        ("NOT OR ct", "OR: found without a word before it"),
    ],
)
def test_a_word_that_says_nothing_is_refused(text, says):
    with pytest.raises(UsageError, match=says):
        parse(text)


@pytest.fixture(scope="module")
def with_recipes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    for name, lr, seed in (("run-a", "1e-3", 3), ("run-b", "1e-4", 3), ("run-c", "1e-5", 4)):
        run = fake_run(folder, name, last={"loss": 1.0, "N": seed})
        run.recipe.write_text(
            f'name = "x"\nseed = {seed}\n[optimizer]\nlr = {lr}\n'
            f'[objective]\nkind = "ct"\nweight = {"true" if seed == 3 else "false"}\n[ema]\nlengths = [0.9, {seed}]\n'
        )
    fake_run(folder, "run-d", state="stopped").recipe.write_text("no = [recipe")
    return Overview(folder).read()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("optimizer.lr>1e-4", "a"),
        ("optimizer.lr>=1e-4", "ab"),
        ("seed:3", "ab"),
        ("seed=4", "c"),
        ("NOT seed:3", "cd"),
        ("NOT NOT seed:3", "ab"),
        ("optimizer.lr>1e-4 OR seed:4", "ac"),
        ("seed:3 optimizer.lr<1e-3 OR state:stopped", "bd"),
        ("optimizer.lr>1e-4 OR seed:4 NOT state:finished", "a"),
        ("objective.kind:ct", "abc"),
        ("objective.kind=c", ""),
        ("objective.weight:true", "ab"),
        ("objective.weight=1", ""),
        ("ema.lengths:0.9", "abc"),
        ("ema.lengths:3", "ab"),
        ("optimizer.nothing>0", ""),
        ("last.N>3", "c"),
        ("last.n=3", "ab"),
        ("best.sw_1step<1", "abcd"),
        ("or", ""),
    ],
)
def test_runs_are_meant_by_their_recipe(with_recipes, text, meant):
    holds = parse(text)
    found = "".join(sorted(glance.name[-1] for glance in with_recipes if holds(glance)))
    assert found == meant


@pytest.mark.parametrize(
    "recipe", ["a = " + "[" * 5000, "seed = " + "9" * 400, f"{'.'.join('a' * 3000)} = 1", "seed = 30"]
)
def test_odd_recipes_are_no_runs_that_are_meant(tmp_path, recipe):
    fake_run(tmp_path, "run-a").recipe.write_text(recipe)
    (glance,) = Overview(tmp_path).read()
    assert not any(parse(text)(glance) for text in ("seed:3", "seed=3", "optimizer.lr>0"))
