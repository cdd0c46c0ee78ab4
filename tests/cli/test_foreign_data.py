"""What a run's recipe wants of the disk and of the network is granted to its own user, or with consent."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_foreign_runs import commands, stopped
from tiny import TINY
from torch import device

from cmbench import consent, reach, recipe
from cmbench.data import images
from cmbench.engine import build
from cmbench.errors import UsageError
from cmbench.rundir.layout import RunDir

ROOT = images.Config.model_fields["root"].default


@pytest.fixture
def built(monkeypatch) -> list[images.Config]:
    """The settings that data of pictures are built with, instead of which nothing is read."""
    found: list[images.Config] = []

    def build_none(self, config, device):
        found.append(config)
        if config.name == "mnist" and not config.download:
            raise UsageError("data.root: no mnist at hand")

    monkeypatch.setattr(images.Data, "__init__", build_none)
    return found


def pictures(run: RunDir, **settings: object) -> RunDir:
    """Let a run name pictures."""
    lines = ["[data]", 'kind = "images"', *(f"{key} = {_toml(value)}" for key, value in settings.items())]
    run.recipe.write_text(re.sub(r"\[data\]\n(?:.+\n)+", "\n".join(lines) + "\n", run.recipe.read_text()))
    assert recipe.load(run.recipe).data == {"kind": "images", **settings}
    return run


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def data_of(path: Path) -> None:
    build.data(build.complete(recipe.load(path), str(path)), device("cpu"))


ELSEWHERE = [
    {"name": "folder", "root": "/"},
    {"name": "mnist", "root": "/tmp/nowhere/made", "download": True},
    {"name": "cifar10", "root": "relative"},
]


@pytest.mark.parametrize("command", ["eval", "resume", "doctor", "doctor of the file", "schedules"])
@pytest.mark.parametrize("settings", ELSEWHERE)
def test_no_command_reads_or_makes_a_place_that_a_foreign_run_names(cmbench, trained, built, command, settings):
    pictures(stopped(trained), **settings)
    outcome = cmbench(*commands(trained)[command])
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    mentions = ("data.root", f"{settings['root']}'", "--trust")  # a relative one by where it lies
    assert [part for part in mentions if part not in outcome.err] == []
    assert built == []


def test_with_consent_it_is_read_and_remembered_until_it_is_another(trained, built, capsys, put_back, home):
    pictures(trained, name="cifar10", root="/data")
    consent.trust(True)
    data_of(trained.recipe)
    assert capsys.readouterr().err == "cmbench: trusting data.root '/data'\n"
    consent.forget()
    data_of(trained.recipe)
    assert [(config.root, config.download) for config in built] == [("/data", True)] * 2
    for other in ({"name": "cifar10", "root": "/other"}, {"name": "mnist", "root": "/data"}):
        with pytest.raises(UsageError, match="--trust"):
            data_of(pictures(trained, **other).recipe)


def test_where_data_lie_by_default_they_are_read_and_not_fetched(trained, built, put_back):
    for root in ({}, {"root": ROOT}, {"root": str(Path(ROOT).expanduser())}):
        data_of(pictures(trained, name="cifar10", **root).recipe)
        assert built.pop().download is False
    with pytest.raises(UsageError, match="no mnist at hand; or give --trust to fetch it"):
        data_of(pictures(trained, name="mnist").recipe)
    with pytest.raises(UsageError, match=r"no mnist at hand$"):
        data_of(pictures(trained, name="mnist", download=False).recipe)


@pytest.mark.parametrize("given", [{}, {"root": "/data"}])
def test_what_the_user_named_is_read_and_fetched_and_remembered_with_a_run(home, built, put_back, given):
    own = "\n".join(f'{key} = "{value}"' for key, value in given.items())
    file = home / "mine.toml"
    file.write_text(TINY.replace('kind = "mixtures"\nname = "ring"', f'kind = "images"\nname = "cifar10"\n{own}'))
    consent.named(file)
    data_of(file)
    whole = build.complete(recipe.load(file), "mine.toml")
    consent.forget()
    if given:
        with pytest.raises(UsageError, match="--trust"):
            data_of(file)
    consent.remember(whole)
    data_of(file)
    assert [config.download for config in built] == [True] * 2


def test_what_the_user_typed_over_a_runs_recipe_is_read(trained, built, put_back):
    consent.typed(["data.root=/typed"])
    data_of(pictures(trained, name="cifar10", root="/typed").recipe)
    assert [(config.root, config.download) for config in built] == [("/typed", True)]


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("root", ["../x.npy", "./x/../../x.npy", "{home}/here/.//../x.npy"])
def test_a_place_that_goes_up_is_the_users_as_well(cmbench, home, monkeypatch, root, typed):
    """A new run writes down where the data lie without .., and that place was named too."""
    np.save(home / "x.npy", np.random.default_rng(0).normal(size=(64, 2)))
    (home / "here" / "x").mkdir(parents=True)
    monkeypatch.chdir(home / "here")
    root = root.format(home=home)
    own = TINY.replace('kind = "mixtures"\nname = "ring"', f'kind = "arrays"\nroot = "{"none" if typed else root}"')
    (home / "here" / "mine.toml").write_text(own)
    override = ["--set", f"data.root={root}"] if typed else []
    done = cmbench("run", "mine.toml", "--foreground", "--set", "train.steps=1", *override)
    assert done.code == 0, done.err


def test_data_without_a_place_are_not_asked_about(trained, put_back):
    data_of(trained.recipe)
    assert reach._named == set()
