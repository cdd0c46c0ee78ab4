"""A folder that comes to be as a whole: where it would take the place of one that others stand in, it is refused."""

from pathlib import Path

import pytest

from cmbench.errors import UsageError
from cmbench.rundir import new_folder


def made(path: Path) -> None:
    with new_folder.made(path, "--out") as folder:
        (folder / "x").write_text("x")


@pytest.mark.parametrize("name", [".", "", "../here"])
def test_the_working_directory_is_refused(tmp_path, monkeypatch, name):
    """A shell in it would see neither the new files nor a name of its folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=r"found the working directory, allowed: a folder in it, such as .*export"):
        made(Path(name))
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]
    made(Path(name) / "export")
    assert Path("export/x").read_text() == "x"


def test_a_mounted_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    (tmp_path / "disk").mkdir()
    with pytest.raises(UsageError, match="found where a disk is mounted, allowed: a folder in it"):
        made(tmp_path / "disk")
    made(tmp_path / "disk" / "a" / "b")


def test_missing_parents_are_removed_after_a_failure(tmp_path):
    def fail() -> None:
        with new_folder.made(tmp_path / "a" / "b" / "c", "--out"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(UsageError, match="File name too long"):
        made(tmp_path / "a" / ("x" * 250))
    assert not any(tmp_path.iterdir())
