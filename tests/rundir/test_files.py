import math
import os
from pathlib import Path

import numpy as np
import pytest

from cmbench.rundir import files
from cmbench.rundir.files import name_nonfinite, read_json, to_json, write_atomically


def test_the_new_content_replaces_the_old_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "status.json"
    for content in (b"old", b"", b"new" * 1000):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def fail(*args: object, **kwargs: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_the_old_content_survives_a_failure(tmp_path, monkeypatch, moment):
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (os, "fsync", fail), "replace": (Path, "replace", fail)}[moment])
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: happened.append("file") or fsync(fd))
    monkeypatch.setattr(files, "fsync_folder", lambda folder: happened.append("folder"))
    monkeypatch.setattr(Path, "replace", lambda self, to: happened.append(self.read_bytes()) or replace(self, to))
    write_atomically(tmp_path / "x", b"content")
    assert happened == ["file", b"content", "folder"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"null", b"\xff\xfe"])
def test_json_that_is_missing_or_broken_is_none(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) is None


def test_json_knows_no_nan(tmp_path):
    value = {"a": math.nan, "b": np.float32(0.5), "c": np.array([1.0, math.inf]), "d": [math.nan, 2]}
    path = tmp_path / "x.json"
    for indent in (False, True):
        path.write_bytes(to_json(value, indent=indent))
        assert read_json(path) == {"a": None, "b": 0.5, "c": [1.0, None], "d": [None, 2]}


def test_a_row_without_losses_stays_as_it_is():
    row = {"step": 1, "loss": 0.5, "name": "x", "files": ["a"]}
    assert name_nonfinite(row) == row
    assert name_nonfinite({"a": -math.inf, "b": 2}) == {"a": -math.inf, "b": 2, "nonfinite": {"a": "-inf"}}
    bins = {"loss": [1.0, math.nan, None, math.inf]}
    assert name_nonfinite(bins)["nonfinite"] == {"loss": {"1": "nan", "3": "inf"}}


def test_a_failure_leaves_no_temporary_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_atomically(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []
