import re

import pytest

from cmbench.errors import UsageError
from cmbench.rundir import layout
from cmbench.rundir.layout import create, point_latest, steps_of_checkpoints


def test_runs_made_at_once_get_folders_of_their_own(tmp_path):
    runs = [create(tmp_path / "deep" / "runs", "ct_ring") for _ in range(20)]
    assert len({run.path for run in runs}) == 20
    for run in runs:
        assert re.fullmatch(r"ct_ring-\d{8}-\d{6}-[0-9a-f]{4}", run.name)
        assert {path.name for path in run.path.iterdir()} == {"checkpoints", "snapshots", "control"}


def test_a_name_that_is_taken_is_never_used_again(tmp_path, monkeypatch):
    suffixes = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(layout.secrets, "token_hex", lambda n: next(suffixes))
    monkeypatch.setattr(layout, "datetime", type("Noon", (), {"now": staticmethod(lambda: layout_noon)}))
    first, second = create(tmp_path, "x"), create(tmp_path, "x")
    assert [first.name, second.name] == ["x-20260102-030405-aaaa", "x-20260102-030405-bbbb"]


layout_noon = layout.datetime(2026, 1, 2, 3, 4, 5)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for runs_dir in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(UsageError, match=f"{runs_dir}: a run cannot be written there"):
            create(runs_dir, "x")


def test_latest_points_to_the_newest(tmp_path):
    first, second = create(tmp_path, "x"), create(tmp_path, "y")
    for run in (first, second):
        point_latest(run)
        latest = tmp_path / "latest"
        assert latest.is_symlink()
        assert latest.readlink().name == str(latest.readlink())  # relative: the runs folder may be moved
        assert latest.resolve() == run.path.resolve()
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "latest"}


def lay(folder, names, file="state.json"):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / file).touch()


def test_steps_of_checkpoints_are_numbers_in_order(tmp_path):
    run = create(tmp_path, "x")
    assert steps_of_checkpoints(run) == []
    lay(run.checkpoints, ["00000100", "20000020", ".00000200.tmp", ".00000020.old", "notes"])
    lay(run.checkpoints, ["00000020", "123456789"], "model.safetensors")
    (run.checkpoints / "00000300").write_text("a file")
    lay(run.checkpoints, ["00000400", "20260101"], "photo.png")
    (run.checkpoints / "00000500").mkdir()
    assert steps_of_checkpoints(run) == [20, 100, 20000020, 123456789]
    assert steps_of_checkpoints(layout.RunDir(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("broken", ["", "[train]", "train = 3", "[train]\nsteps = 'x'", "\x00"])
def test_a_step_that_the_run_cannot_have_is_no_checkpoint(tmp_path, broken):
    run = create(tmp_path, "x")
    lay(run.checkpoints, ["00000100", "01012026", "20260101"], "model.safetensors")
    run.recipe.write_text(broken)
    assert steps_of_checkpoints(run) == [100, 1012026, 20260101]
    for last, steps in ((400, [100]), (20260100, [100, 1012026]), (20260101, [100, 1012026, 20260101])):
        run.recipe.write_text(f"[train]\nsteps = {last}\n")
        assert steps_of_checkpoints(run) == steps
