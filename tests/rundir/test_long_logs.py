"""Readers that hold a piece of a log at a time find what one finds that holds all of it, whatever its segments."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fake_runs import read_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from cmbench.engine.watch import SpikeWatch
from cmbench.rundir import log
from cmbench.rundir import settings as run_settings
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log, Tail, last_segment
from cmbench.rundir.segments import backward, first, newest
from cmbench.rundir.summary import Summary

STEPS = st.integers(0, 12)
NUMBERS = st.one_of(st.floats(-3, 3), st.none(), st.integers(-3, 3), st.text(max_size=2))
KEYS = st.sampled_from(["loss", "sw_1step", "precision_1step", "forwards", "nonfinite", "x"])
ROWS = st.builds(lambda step, values: {"step": step, **values}, STEPS, st.dictionaries(KEYS, NUMBERS, max_size=4))
SET = st.builds(
    lambda step, key, value, again: {
        **{"step": step, "kind": "request", "action": "set", "result": "done", "id": f"{step} {key}"},
        **{"settings": {key: value}, **({"replayed": True} if again else {})},
    },
    *(STEPS, st.sampled_from(["optimizer.lr", "log.every"]), st.integers(1, 3), st.booleans()),
)
OPENINGS = st.builds(
    lambda step, abandons: {"first_step": step, **({"abandons": True} if abandons else {})}, STEPS, st.booleans()
)
DAMAGED = st.sampled_from(
    [b"", b"{", b'{"step":3', b"[5]", b'"x"', b"\xff", b'{"first_step":"x"}', b'{"step":-1}', b"{}"]
)
HISTORIES = st.lists(st.one_of(ROWS, ROWS, ROWS, SET, OPENINGS, DAMAGED), max_size=30)
SIZES = st.tuples(st.integers(8, 200), st.integers(8, 200))


@contextmanager
def pieces_of(chunk: int, back: int, longest: int = 1 << 22) -> Iterator[None]:
    with mock.patch.multiple(log, CHUNK=chunk, _BACK=back, LONGEST=longest):
        yield


def write(path: Path, history: list[Any], torn: bytes = b"") -> list[dict[str, Any]]:
    """Write a log and return its rows."""
    segment, lines = 1, []
    for line in history:
        segment += isinstance(line, dict) and "first_step" in line
        lines.append(line if isinstance(line, bytes) else json.dumps({"segment": segment, **line}).encode())
    path.write_bytes(b"".join(line + b"\n" for line in lines) + torn)
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if isinstance(row, dict)]


def counting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that no later segment trained again."""
    steps = [row.get("first_step") if isinstance(row.get("first_step"), int) else None for row in rows]
    return [
        row
        for i, row in enumerate(rows)
        if steps[i] is None and isinstance(step := row.get("step"), int) and step >= 0
        if all(later is None or step < later for later in steps[i + 1 :])
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("long") / "events.jsonl"


@given(HISTORIES, SIZES, st.sampled_from([b"", b'{"step":1', b"x" * 300]))
@settings(deadline=None, max_examples=300)
def test_what_is_found_in_pieces_is_what_there_is(path, history, sizes, torn):
    rows = write(path, history, torn)
    expected = counting(rows)
    with pieces_of(*sizes):
        assert Tail(path).read() == rows
        assert read_rows(path) == expected
        assert list(newest(path)) == expected[::-1]
        assert [row for piece in reversed(list(backward(path))) for row in piece] == expected
        assert first(path, "forwards") == next((row for row in expected if "forwards" in row), None)
        assert last_segment(path) == max((row["segment"] for row in rows if "segment" in row), default=0)
        tail = Tail(path)
        tail.skip()
        assert tail.read() == []
        assert list(newest(path, tail.place)) == expected[::-1]


@given(HISTORIES, SIZES)
@settings(deadline=None, max_examples=200)
def test_a_summary_from_the_end_is_that_from_the_beginning(path, history, sizes):
    expected = Summary(counting(write(path, history)))
    with pieces_of(*sizes):
        found = Summary()
        for rows in backward(path):
            found.add_before(rows)
    assert (found.last, found.best) == (expected.last, expected.best)


@given(HISTORIES, SIZES, STEPS)
@settings(deadline=None, max_examples=200)
def test_settings_are_those_of_the_whole_journal(path, history, sizes, step):
    rows = write(path, history)
    with pieces_of(*sizes):
        found = run_settings.read(RunDir(path.parent))
    assert run_settings.at(found, step) == run_settings.at(rows, step)
    assert run_settings.course(found) == run_settings.course(rows)


@given(st.lists(st.lists(st.one_of(st.floats(0.1, 9), st.none()), min_size=3, max_size=3), max_size=40), SIZES)
@settings(deadline=None, max_examples=100)
def test_a_watch_of_the_last_rows_is_that_of_all(path, norms, sizes):
    rows = write(path, [{"step": i, "tangent_norm": norm} for i, norm in enumerate(norms)])
    unbroken = SpikeWatch()
    for row in rows:
        unbroken.look(row)
    with pieces_of(*sizes):
        rebuilt = SpikeWatch(newest(path))
    jump = {"tangent_norm": [1e3, 1.0, 1e6]}
    assert rebuilt.look(jump) == unbroken.look(jump)


@pytest.mark.parametrize("length", [99, 100, 101, 102, 5000])
@pytest.mark.parametrize("sizes", [(7, 7), (64, 16), (1000, 1000)])
def test_a_line_that_is_too_long_is_passed_over(path, length, sizes):
    line = b'{"step":2,"x":"' + b"x" * (length - 17) + b'"}'
    assert len(line) == length
    path.write_bytes(b'{"step":1}\n' + line + b'\n{"step":3}\n')
    expected = [1, 2, 3] if length <= 100 else [1, 3]
    with pieces_of(*sizes, longest=100):
        tail = Tail(path)
        assert [row["step"] for row in tail.read()] == expected
        assert tail.behind == 0
        assert [row["step"] for row in newest(path)] == expected[::-1]


def test_so_is_one_that_is_not_at_its_end_yet(path):
    with pieces_of(16, 16, longest=100):
        path.write_bytes(b'{"step":1}\n' + b"x" * 150)
        tail = Tail(path)
        assert [row["step"] for row in tail.read()] == [1]
        assert [row["step"] for row in newest(path)] == [1]
        for more, expected in ((b"y" * 150, []), (b'z\n{"step":2}\n{"st', [2]), (b'ep":3}\n', [3])):
            with path.open("ab") as file:
                file.write(more)
            assert [row["step"] for row in tail.read()] == expected
            assert tail.behind == 0
        path.write_bytes(b'{"step":1}\n' + b"x" * 150)
        with pytest.raises(OSError, match="too long for a log"):
            Log(path)


def test_no_more_than_a_line_is_held(path, monkeypatch):
    """Of a line of 64 MB, and of a file without one."""
    with path.open("wb") as file:
        file.write(b'{"step":1}\n')
        file.truncate(1 << 26)
        file.seek(0, 2)
        file.write(b'\n{"step":2}\n')
    monkeypatch.setattr(log, "_MOST_LOST", 1 << 27)
    tracemalloc.start()
    assert [row["step"] for row in Tail(path).read()] == [row["step"] for row in newest(path)][::-1] == [1, 2]
    assert tracemalloc.get_traced_memory()[1] < 8 * log.LONGEST
    tracemalloc.stop()
    with path.open("ab") as file:
        file.truncate(1 << 40)
    tail = Tail(path)
    assert [row["step"] for row in tail.read()] == [1, 2]
    assert (tail.behind, tail.read(), list(newest(path))) == (0, [], [])
    path.unlink()
