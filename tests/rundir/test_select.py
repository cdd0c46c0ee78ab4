"""Which run is meant, and where runs are."""

import os
from pathlib import Path

import pytest

from cmbench.errors import NotFoundError
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, all_runs, runs_folder, select

NAMES = ["ct_ring-20260101-000000-aaaa", "ct_edm-20260102-000000-bbbb", "ct_ring-20260103-000000-cccc", "dm-1-dddd"]


def make(folder: Path, name: str, age: int, checkpoint: bool = False) -> RunDir:
    run = RunDir(folder / name)
    run.checkpoints.mkdir(parents=True)
    run.recipe.write_text("")
    os.utime(run.recipe, (1e9 - age, 1e9 - age))
    if checkpoint:
        run.checkpoint(5).mkdir()
        (run.checkpoint(5) / "state.json").touch()
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for i, name in enumerate(NAMES):
        make(folder, name, age=100 - i, checkpoint=i in (0, 1))
    (folder / "no_run").mkdir()
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "recipe.toml").write_text("")
    (folder / "latest").symlink_to(NAMES[0])
    (folder / "recipe.toml").write_text("")
    return folder


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        (NAMES[0], 0),
        ("ct_ring-20260101", 0),
        ("ct_e", 1),
        ("dm", 3),
        ("aaaa", 0),
        ("cccc", 2),
        ("@latest", 3),
        ("@latest:ct", 2),
        ("@latest:ct_e", 1),
    ],
)
def test_a_selector_finds_its_run(runs, selector, found):
    assert select(selector, runs).name == NAMES[found]


def test_latest_may_pass_over_runs_without_a_checkpoint(runs):
    assert select("@latest", runs, with_checkpoint=True).name == NAMES[1]
    assert select("@latest:ct_ring", runs, with_checkpoint=True).name == NAMES[0]
    assert select(NAMES[3], runs, with_checkpoint=True).name == NAMES[3]
    with pytest.raises(NotFoundError, match=r"runs: no run named dm\* with a checkpoint"):
        select("@latest:dm", runs, with_checkpoint=True)


def test_a_path_is_a_path_wherever_it_lies(runs, tmp_path, monkeypatch):
    elsewhere = make(tmp_path / "other", "mine", age=0)
    assert select(str(elsewhere.path), runs).path == elsewhere.path
    monkeypatch.chdir(elsewhere.path)
    assert select(".", runs).path == elsewhere.path
    monkeypatch.chdir(tmp_path)
    assert select("other/mine/", runs).path == elsewhere.path
    assert select("runs/latest", runs).name == NAMES[0]


def test_a_whole_name_wins_over_a_longer_one(runs):
    make(runs, NAMES[0] + "x", age=0)
    assert select(NAMES[0], runs).name == NAMES[0]


def test_the_only_run_of_a_recipe_wins_over_runs_of_longer_names(tmp_path):
    """`ct_edm` means the run of ct_edm, whatever there is of ct_edm_ring; of two such runs none is meant."""
    for i, name in enumerate(["ct_edm-20260101-000000-aaaa", "ct_edm_ring-20260101-000001-bbbb"]):
        make(tmp_path, name, age=-i)
    assert select("ct_edm", tmp_path).name == "ct_edm-20260101-000000-aaaa"
    make(tmp_path, "ct_edm-20260101-000002-cccc", age=-9)
    with pytest.raises(NotFoundError, match="ct_edm: 3 runs begin so"):
        select("ct_edm", tmp_path)


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("ct_ring", rf"ct_ring: 2 runs begin so: {NAMES[0]}, {NAMES[2]} \(@latest:ct_ring is the newest; "),
        ("ct", "ct: 3 runs begin so"),
        ("ct_rnig-20260101-000000-aaaa", rf"no such run in .*runs; did you mean '{NAMES[0]}'\?"),
        ("zzz", r"zzz: no such run in .*runs \(cmbench ls\)$"),
        ("aaa", "aaa: no such run"),
        ("no_run", "no_run: no such run"),
        (".hidden", "no such run"),
        ("latest", "no such run"),
        ("@latest:zzz", r"runs: no run named zzz\*$"),
    ],
)
def test_a_selector_that_finds_none_or_several_says_so(runs, selector, says):
    with pytest.raises(NotFoundError, match=says):
        select(selector, runs)


def test_many_runs_are_not_all_named(tmp_path):
    for i in range(6):
        make(tmp_path, f"x{i}", age=-i)
    with pytest.raises(NotFoundError, match="6 runs begin so: x0, x1, x2, x3, …"):
        select("x", tmp_path)


def test_runs_are_listed_from_the_oldest(runs, tmp_path):
    assert [run.name for run in all_runs(runs)] == NAMES
    assert all_runs(tmp_path / "nowhere") == []
    assert all_runs(runs / "recipe.toml") == []
    with pytest.raises(NotFoundError, match=r"nowhere: no run$"):
        select("@latest", tmp_path / "nowhere")


def test_where_runs_are(monkeypatch, tmp_path):
    monkeypatch.delenv("CMBENCH_RUNS_DIR", raising=False)
    assert runs_folder() == Path("runs")
    monkeypatch.setenv("CMBENCH_RUNS_DIR", str(tmp_path))
    assert runs_folder() == tmp_path
    assert runs_folder(Path("given")) == Path("given")
    monkeypatch.setenv("CMBENCH_RUNS_DIR", "")
    assert runs_folder() == Path("runs")


def test_an_address_is_what_the_commands_find(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_RUNS_DIR", str(runs))
    inside, outside = RunDir(runs / NAMES[0]), make(tmp_path / "other", "mine", age=0)
    assert address(inside) == NAMES[0]
    assert address(outside) == str(outside.path)
    for run in (inside, outside):
        assert select(address(run), runs_folder()).path.resolve() == run.path.resolve()
