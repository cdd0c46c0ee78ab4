import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from other_kinds import KINDS

from cmbench.engine import checkpoint
from cmbench.rundir import files
from cmbench.rundir.files import (
    DEEPEST,
    LARGEST,
    from_json,
    make_folder,
    name_nonfinite,
    opened,
    overwrite,
    read,
    read_json,
    remove_temporaries,
    to_json,
    write_atomically,
)
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Tail
from cmbench.rundir.losses import course
from cmbench.rundir.segments import newest
from cmbench.tui.screens.recipe import read_toml
from cmbench.tui.widgets.drawing import load
from cmbench.views.run import RunView


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


def nested(levels, size=0):
    return b'{"a":' + b"[" * (levels - 1) + b'"' + b"x" * size + b'"' + b"]" * (levels - 1) + b"}"


UNBALANCED = b'{"a":1}' + b"]" * 900 + b"," + b"[" * 900 + b'{"a":1}'


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[1]", b"null", b"\xff\xfe", nested(DEEPEST + 1), nested(DEEPEST + 1, 1 << 20), UNBALANCED],
    ids=lambda content: repr(content)[:12],
)
def test_json_that_is_missing_or_broken_is_none(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) is None


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_whatever_is_read_can_be_written_again_with_something_around_it(tmp_path, size):
    path = tmp_path / "x.json"
    path.write_bytes(nested(DEEPEST, size))
    assert to_json({"runs": [[[read_json(path)]]]}, indent=True)
    path.write_bytes(nested(DEEPEST - 1, size) + b"\n" + nested(DEEPEST, size) + b"\n" + nested(3) + b"\n")
    rows = Tail(path).read()
    assert rows[-1] == {"a": [[""]]}
    assert to_json({"rows": rows})


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


NAMES = r"status\.json|[0-9]{3}\.json"


def test_only_the_temporaries_of_the_names_given_are_removed(tmp_path):
    ours = [".status.json.1.tmp", ".status.json.4194304.tmp", ".017.json.12.tmp"]
    others = [
        *(".status.json.tmp", ".status.json.x.tmp", ".status.json.12.tmp~", "status.json.1.tmp", ".status,json.1.tmp"),
        *(".ssh", ".config.5.tmp", ".17.json.12.tmp", ".status.json.12.tmp.bak", ".status.json.12345678.tmp"),
    ]
    for name in (*ours, *others):
        (tmp_path / name).write_text(name)
    (tmp_path / ".status.json.2.tmp").mkdir()
    (tmp_path / ".status.json.3.tmp").symlink_to(tmp_path / ".ssh")
    remove_temporaries(tmp_path, NAMES)
    left = {*others, ".status.json.2.tmp", ".status.json.3.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_the_temporaries_of_those_who_are_at_work_stay(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    try:
        names = {pid: tmp_path / f".017.json.{pid}.tmp" for pid in (process.pid, os.getpid(), 4194303)}
        for path in names.values():
            path.write_text("half")
        remove_temporaries(tmp_path, NAMES, shared=True)
        assert list(tmp_path.iterdir()) == [names[process.pid]]
    finally:
        process.kill()
        process.wait()
    remove_temporaries(tmp_path, NAMES, shared=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["the file", "its temporary"])
def test_no_link_is_written_through(tmp_path, place):
    other, path = tmp_path / "thesis.txt", tmp_path / "status.json"
    other.write_text("mine")
    link = path if place == "the file" else tmp_path / f".status.json.{os.getpid()}.tmp"
    link.symlink_to(other)
    write_atomically(path, b"new")
    assert (other.read_text(), path.read_bytes(), path.is_symlink()) == ("mine", b"new", False)
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt", "status.json"}


def test_what_is_written_over_a_file_fits_into_its_room(tmp_path):
    path = tmp_path / "status.json"
    path.write_bytes(b'{"state": "running", "step": 100}\n')
    overwrite(path, b'{"state": "stopped"}\n')
    assert read_json(path) == {"state": "stopped"}
    with pytest.raises(OSError, match="No space"):
        overwrite(path, b"x" * 10**6)
    assert read_json(path) == {"state": "stopped"}


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "nothing"])
def test_nothing_else_is_written_over(tmp_path, kind):
    other, path = tmp_path / "thesis.txt", tmp_path / "status.json"
    other.write_text("mine, and longer")
    {
        "link": lambda: path.symlink_to(other),
        "hard link": lambda: path.hardlink_to(other),
        "pipe": lambda: os.mkfifo(path),
        "nothing": lambda: None,
    }[kind]()
    with pytest.raises(OSError, match=r".+"):
        overwrite(path, b"{}")
    assert other.read_text() == "mine, and longer"


def test_a_folder_is_made_but_never_the_one_that_holds_it(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    for name in ("new", "new", "link"):
        make_folder(tmp_path / name)
    for name in ("dangling", "file"):
        with pytest.raises(OSError, match=f"{name} is not a folder, nor a link to one"):
            make_folder(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        make_folder(tmp_path / "gone" / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link", "dangling", "file", "new"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"long line"}))
def test_what_is_no_file_of_ours_is_not_read(tmp_path, kind):
    if kind == "device" and os.geteuid():
        pytest.skip("only root makes devices")
    path = tmp_path / "metrics.jsonl"
    KINDS[kind](path)
    with pytest.raises(OSError, match=r"."):
        read(path)
    if kind != "sparse":  # of which a reader takes a piece at a time
        with pytest.raises(OSError, match=r"."):
            opened(path)
    assert read_json(path) is None
    run = RunDir(tmp_path)
    assert (Tail(path).read(), list(newest(path)), course(run, 3)) == ([], [], [])
    with pytest.raises(checkpoint.DamagedError):
        checkpoint.read_tensors(path)
    path.rename(run.console)
    assert len("".join(RunView(run).console())) <= 1 << 14
    assert isinstance(load(run.console, run.console, kind), str)
    assert len(read_toml(run.console)) <= 200_000


def test_a_link_is_not_followed_and_one_to_its_folder_is(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.json").write_bytes(b"{}")
    (tmp_path / "linked").symlink_to("there")
    (tmp_path / "there" / "b.json").symlink_to("a.json")
    assert read_json(tmp_path / "linked" / "a.json") == {}
    assert read_json(tmp_path / "there" / "b.json") is None
    with pytest.raises(OSError, match="a link, which is not followed"):
        read(tmp_path / "there" / "b.json")


def test_a_file_has_a_largest_size(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":"' + b"x" * (LARGEST - 8) + b'"}')
    assert len(read(path)) == LARGEST
    assert read_json(path) is not None
    path.write_bytes(path.read_bytes() + b" ")
    assert read_json(path) is None
    with pytest.raises(OSError, match=f"{LARGEST + 1:,} bytes, allowed: at most {LARGEST:,}"):
        read(path)


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    name = os.fsdecode(b"bad\xff")
    assert to_json({"name": name, name: [(name,)], "n": np.float32(0.5)}) == (
        rb'{"name":"bad\\udcff","bad\\udcff":[["bad\\udcff"]],"n":0.5}'
    )


@pytest.mark.parametrize(
    ("value", "read_as"), [(2**64 - 1, 2**64 - 1), (2**64, 2.0**64), (-(2**63) - 1, -(2.0**63)), (10**400, None)]
)
def test_integers_of_any_size_are_written(value, read_as):
    """Sums of counts that a foreign file holds may exceed what JSON's readers take for an integer."""
    assert from_json(to_json({"steps": [value]})) == {"steps": [read_as]}
