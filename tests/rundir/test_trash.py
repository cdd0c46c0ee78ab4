"""An unwanted run is moved aside whole; nothing is ever deleted, and no live run is touched."""

import filelock
import pytest
from fake_runs import fake_run

from cmbench.errors import ConflictError, UsageError
from cmbench.rundir.layout import RunDir, point_latest
from cmbench.rundir.select import all_runs
from cmbench.rundir.trash import trash


def test_a_run_is_moved_whole_and_no_command_finds_it(tmp_path):
    run, other = fake_run(tmp_path, "a-1"), fake_run(tmp_path, "b-2")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    moved = trash(run)
    assert moved.path == tmp_path / ".trash" / "a-1"
    assert {path.name: path.read_bytes() for path in moved.path.iterdir() if path.name != "lock"} == before
    assert not run.path.exists()
    assert all_runs(tmp_path) == [other]


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    moved = [trash(fake_run(tmp_path, "a-1", step=i)).name for i in range(3)]
    assert moved == ["a-1", "a-1.1", "a-1.2"]


@pytest.mark.parametrize("state", ["starting", "running", "lost"])
def test_a_live_run_stays(tmp_path, state):
    run = fake_run(tmp_path, "a-1", state=state)
    with pytest.raises(ConflictError, match=r"a-1: is live \((starting|running|lost)\)"):
        trash(run)
    assert run.path.exists()


def test_a_run_without_a_status_may_be_starting(tmp_path):
    run = fake_run(tmp_path, "a-1")
    run.status.unlink()
    with pytest.raises(ConflictError, match="is live"):
        trash(run)


def test_a_run_that_a_trainer_takes_up_stays(tmp_path):
    """A resumed trainer holds the lock long before its status says that it runs."""
    run = fake_run(tmp_path, "a-1", state="stopped")
    with filelock.FileLock(run.lock), pytest.raises(ConflictError, match="a trainer works on this run"):
        trash(run)
    assert run.path.exists()
    trash(run)
    assert not run.path.exists()


def test_no_trainer_starts_on_it_while_it_moves(tmp_path, monkeypatch):
    run, locked = fake_run(tmp_path, "a-1"), []

    def rename(path, target):
        try:
            filelock.FileLock(run.lock).acquire(timeout=0)
        except filelock.Timeout:
            locked.append(path)
        return target

    monkeypatch.setattr("pathlib.Path.rename", rename)
    trash(run)
    assert locked == [run.path]


def test_latest_names_the_newest_of_the_rest(tmp_path):
    old, newer, newest = (fake_run(tmp_path, name, age=age) for name, age in [("c", 300), ("a", 200), ("b", 100)])
    point_latest(newest)
    trash(old)
    assert (tmp_path / "latest").resolve() == newest.path
    trash(newest)
    assert (tmp_path / "latest").resolve() == newer.path
    trash(newer)
    assert not (tmp_path / "latest").is_symlink()


def test_what_cannot_be_moved_is_said(tmp_path):
    run = fake_run(tmp_path, "a-1")
    (tmp_path / ".trash").write_text("a file")
    with pytest.raises(UsageError, match="a-1: cannot be written"):
        trash(run)
    assert run.path.exists()
    with pytest.raises(UsageError, match="gone: cannot be written"):
        trash(RunDir(tmp_path / "gone"))
