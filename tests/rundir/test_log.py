"""Logs: a half-written line is not there yet, and rows that were trained again count once."""

import errno
import math
import os

import numpy as np
import orjson
import pytest
from fake_runs import read_rows

from cmbench.rundir.log import Log, Tail


def steps(rows: list[dict]) -> list[int]:
    return [row["step"] for row in rows if "step" in row]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write(path, first_step: int, *rows: int) -> Log:
    log = Log(path)
    log.open_segment(1 + log.last_segment(), first_step)
    for step in rows:
        log.append({"step": step, "value": 10 * log.segment + step})
    log.close()
    return log


def test_what_is_appended_is_read(path):
    write(path, 1, 5, 10)
    assert read_rows(path) == [{"segment": 1, "step": 5, "value": 15}, {"segment": 1, "step": 10, "value": 20}]


def test_a_log_that_is_not_there_is_empty(path):
    assert read_rows(path) == []
    assert Tail(path).read() == []


def test_a_row_is_there_as_soon_as_it_is_appended(path):
    log, tail = Log(path), Tail(path)
    log.open_segment(1, first_step=1)
    assert tail.read() == [{"segment": 1, "first_step": 1}]
    for step in range(1, 4):
        log.append({"step": step})
        assert steps(tail.read()) == [step]
    assert tail.read() == []
    log.close()


def test_a_half_written_line_is_not_there_yet(path):
    whole = b'{"step":1}\n{"step":2,"note":"\xc3\xa9"}\n'
    for cut in range(len(whole) + 1):
        tail = Tail(path)
        path.write_bytes(whole[:cut])
        first = tail.read()
        assert steps(first) == [1, 2][: whole[:cut].count(b"\n")]
        with path.open("ab") as file:
            file.write(whole[cut:])
        assert steps(first + tail.read()) == [1, 2]
        assert tail.read() == []


@pytest.mark.parametrize("torn", [b'{"step":3', b'{"step":3}', b"\xff", b'{"step":30,"x":[1,2'])
def test_a_torn_line_is_cut_off_when_the_log_is_opened_again(path, torn):
    write(path, 1, 1, 2)
    tail = Tail(path)
    assert steps(tail.read()) == [1, 2]
    with path.open("ab") as file:
        file.write(torn)
    assert tail.read() == []
    assert steps(read_rows(path))[:2] == [1, 2]
    write(path, 3, 3)
    assert steps(read_rows(path)) == [1, 2, 3]
    assert steps(tail.read()) == [3]
    assert all(orjson.loads(line) for line in path.read_bytes().splitlines())


def test_lines_that_are_no_rows_are_passed_over(path):
    path.write_bytes(b'{"step":1}\n{"step":\n[5]\n"x"\n\n{"step":2}\n')
    assert steps(read_rows(path)) == steps(Tail(path).read()) == [1, 2]


def test_rows_without_a_step_are_passed_over(path):
    damaged = b'{"step":1}\n{"loss":1}\n{"step":"2"}\n{"step":null}\n{"first_step":"x"}\n{"step":3}\n'
    path.write_bytes(damaged + b'{"segment":2,"first_step":3}\n{"step":4}\n')
    assert [row["step"] for row in read_rows(path)] == [1, 4]
    assert write(path, 5, 5).segment == 3
    assert [row["step"] for row in read_rows(path)] == [1, 4, 5]


def test_rows_at_or_past_the_first_step_of_a_later_segment_are_dropped(path):
    write(path, 1, 2, 4, 6, 8, 10)
    second = write(path, 5, 6, 8)
    assert second.segment == 2
    assert [(r["step"], r["segment"]) for r in read_rows(path)] == [(2, 1), (4, 1), (6, 2), (8, 2)]
    third = write(path, 8, 8, 10)
    assert third.segment == 3
    assert [(r["step"], r["segment"]) for r in read_rows(path)] == [(2, 1), (4, 1), (6, 2), (8, 3), (10, 3)]
    write(path, 1)  # from the start, with nothing trained yet
    assert read_rows(path) == []


def test_a_segment_that_begins_where_the_last_ended_drops_nothing(path):
    write(path, 1, 2, 4)
    write(path, 5, 6)
    assert steps(read_rows(path)) == [2, 4, 6]


def test_a_reader_sees_where_a_segment_begins(path):
    write(path, 1, 1, 2)
    tail = Tail(path)
    tail.read()
    write(path, 2, 2)
    assert tail.read() == [{"segment": 2, "first_step": 2}, {"segment": 2, "step": 2, "value": 22}]


def test_what_is_not_finite_is_null_and_named(path):
    log = Log(path)
    log.open_segment(1, first_step=1)
    log.append({"step": 1, "loss": math.nan, "grad_norm": math.inf, "x": -math.inf, "y": np.float64("nan"), "z": 1.5})
    log.append({"step": 2, "loss": 0.0})
    log.close()
    row, finite = read_rows(path)
    assert {key: row[key] for key in ("loss", "grad_norm", "x", "y", "z")} == {
        "loss": None,
        "grad_norm": None,
        "x": None,
        "y": None,
        "z": 1.5,
    }
    assert row["nonfinite"] == {"loss": "nan", "grad_norm": "inf", "x": "-inf", "y": "nan"}
    assert "nonfinite" not in finite


def test_numbers_come_back_exactly(path):
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.random.default_rng(1).integers(-300, 300, 50)
    log = Log(path)
    log.open_segment(1, first_step=1)
    log.append({"step": 1, "values": values, "one": values[0]})
    log.close()
    (row,) = read_rows(path)
    assert row["values"] == values.tolist()
    assert row["one"] == values[0]


def test_fsync_reaches_the_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    log = Log(path)
    log.fsync()
    assert synced == [log._file.fileno()]
    log.close()


def fill_disk(monkeypatch, room=5):
    """Let the disk take so many bytes more of what is written at once, and no other."""
    write = os.write

    def write_some(descriptor, data):
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data, room = bytes(data)[:room], 0
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_some)


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_half_and_is_written_before_the_next(path, monkeypatch):
    write(path, 1, 5)
    log, whole = Log(path), path.read_bytes()
    log.segment = 1
    with monkeypatch.context() as patch:
        fill_disk(patch)
        for step in (6, 7):
            with pytest.raises(OSError, match="No space left"):
                log.append({"step": step})
            assert path.read_bytes() == whole
        assert log.waiting == 2
    log.append({"step": 8})
    assert (log.waiting, log.lost) == (0, 0)
    log.close()
    assert steps(read_rows(path)) == [5, 6, 7, 8]


def test_a_half_row_that_cannot_be_cut_off_is_cut_off_before_the_next(path, monkeypatch):
    write(path, 1, 5)
    log = Log(path)
    log.segment = 1
    with monkeypatch.context() as patch:
        fill_disk(patch)
        patch.setattr(log, "_cut", lambda: None)
        with pytest.raises(OSError, match="No space left"):
            log.append({"step": 6})
    assert not path.read_bytes().endswith(b"\n")
    log.append({"step": 7})
    log.close()
    assert [orjson.loads(line).get("step") for line in path.read_bytes().splitlines()] == [None, 5, 6, 7]


def test_of_too_many_rows_that_wait_the_oldest_are_counted_and_let_go(path, monkeypatch):
    monkeypatch.setattr("cmbench.rundir.log._KEPT", 100)
    log = Log(path)
    log.open_segment(1, 1)
    with monkeypatch.context() as patch:
        fill_disk(patch, 0)
        for step in range(10):
            with pytest.raises(OSError, match="No space left"):
                log.append({"step": step})
    log.flush()
    assert log.lost + len(steps(read_rows(path))) == 10
    assert steps(read_rows(path)) == list(range(log.lost, 10))
    assert log.lost < 10
    log.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_that_is_removed_or_replaced_goes_on_under_its_name(path, replaced):
    log = Log(path)
    log.open_segment(3, 5)
    log.append({"step": 5})
    content = path.read_bytes()
    path.unlink()
    if replaced:  # as an editor does it
        path.write_bytes(content)
    log.append({"step": 6})
    log.append({"step": 7})
    assert log.renewed == 1
    log.close()
    assert steps(read_rows(path)) == ([5, 6, 7] if replaced else [6, 7])
    assert path.read_bytes().count(b"first_step") == 1
    log = Log(path)
    assert log.last_segment() == 3
    log.close()


@pytest.mark.parametrize("other", [b"x" * 9, None])
def test_a_log_whose_place_is_taken_waits_until_it_is_free(path, monkeypatch, other):
    monkeypatch.setattr("cmbench.rundir.log.LONGEST", 8)
    log = Log(path)
    log.open_segment(3, 5)
    path.unlink()
    if other is None:
        path.mkdir()
    else:
        path.write_bytes(other)
    for step in (5, 6):
        with pytest.raises(OSError, match=r"."):
            log.append({"step": step})
    assert log.waiting == 2
    path.unlink() if other else path.rmdir()
    monkeypatch.undo()
    log.append({"step": 7})
    log.close()
    assert (log.waiting, log.lost, log.renewed) == (0, 0, 1)
    assert [(row["step"], row["segment"]) for row in read_rows(path)] == [(5, 3), (6, 3), (7, 3)]


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe", "a folder"])
def test_what_stands_in_the_place_of_a_log_is_refused_and_stays(path, kind):
    other = path.with_name("thesis.txt")
    make = {"a link": path.symlink_to, "a link to nothing": path.symlink_to}.get(kind)
    if kind == "a link":
        other.write_text("mine")
    if make:
        make(other)
    else:
        {"a pipe": os.mkfifo, "a folder": os.mkdir}[kind](path)
    with pytest.raises(OSError, match=rf"metrics\.jsonl is {kind[:6]}.*, allowed: a regular file"):
        Log(path)
    assert other.read_text() == "mine" if kind == "a link" else not other.exists()


def test_the_other_name_of_a_log_keeps_what_it_holds(path):
    """Copies of runs are made by `cp -al`, and by tools for backups."""
    write(path, 1, 1, 2)
    copy, content = path.with_name("copy.jsonl"), path.read_bytes()
    copy.hardlink_to(path)
    write(path, 3, 3)
    assert copy.read_bytes() == content
    assert steps(read_rows(path)) == [1, 2, 3]


def test_what_is_too_long_for_a_row_is_not_cut_off(path, monkeypatch):
    monkeypatch.setattr("cmbench.rundir.log.LONGEST", 50)
    write(path, 1, 1)
    with path.open("ab") as file:
        file.write(b"x" * 51)
    content = path.read_bytes()
    with pytest.raises(OSError, match=r"metrics\.jsonl ends in a line too long for a log"):
        Log(path)
    assert path.read_bytes() == content


def test_the_newest_segment_is_read_from_the_end(path, monkeypatch):
    """A long log is not read as a whole: only its last rows are."""
    with path.open("wb") as file:
        file.write(b'{"segment":1,"first_step":1}\n')
        for start in range(0, 10**6, 1000):
            file.write(b"".join(b'{"segment":4,"step":%d}\n' % step for step in range(start, start + 1000)))
        file.write(b'{"segment":4,"st')
    pread, read = os.pread, []
    monkeypatch.setattr(os, "pread", lambda fd, n, offset: read.append(n) or pread(fd, n, offset))
    log = Log(path)
    assert log.last_segment() == 4
    log.close()
    assert sum(read) < 10**6 < path.stat().st_size
    assert path.read_bytes().endswith(b"}\n")
