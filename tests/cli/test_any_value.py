"""Any JSON value in the place of any other in a run's files: every reader answers, or says in a line why not."""

import copy
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import process_put_back
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmbench import quantities
from cmbench.cli import _follow, main
from cmbench.rundir import losses
from cmbench.rundir.annotations import annotate
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.overview import glance
from cmbench.rundir.snapshots import AlbumReader
from cmbench.tui.widgets.run_preview import preview
from cmbench.views import report
from cmbench.views.run import RunView

ODD = [None, True, -1, 0, 2**63 - 1, 2**64 - 1, 1e308, -1e308, 0.5, "", "²", "\u202e[b]\x1b[31m", "x" * 500, [], {}]
VALUES = st.one_of(
    st.sampled_from([*ODD, [None], [[]], {"value": {}}, {"step": "x"}]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
        max_leaves=6,
    ),
)
SAMPLED = ("meta.json", "state.json", "metrics.jsonl")
WHOLE = bool(os.environ.get("CMBENCH_TORTURE"))
EXAMPLES = int(os.environ.get("CMBENCH_EXAMPLES", "200" if WHOLE else "10"))
CALM = settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a value another may be put: it, its fields, and theirs."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, own in inner:
        yield from places(own, (*place, key))


def with_value(whole: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a value with another at a place."""
    if not place:
        return value
    changed = copy.deepcopy(whole)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def damaged(draw: Callable[[st.SearchStrategy], Any], content: bytes, is_log: bool) -> bytes:
    """Return the content of a file with any value in the place of any."""
    lines = content.splitlines() if is_log else [content]
    for _ in range(draw(st.integers(1, 3))):
        i = draw(st.integers(0, len(lines) - 1))
        row = json.loads(lines[i])
        lines[i] = json.dumps(with_value(row, draw(st.sampled_from(list(places(row)))), draw(VALUES))).encode()
    return b"\n".join(lines) + b"\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory, _trained) -> RunDir:
    """A finished run that was steered, resumed, noted, sampled and measured."""
    run = RunDir(Path(shutil.copytree(_trained.path, tmp_path_factory.mktemp("any") / "run")))
    annotate(run, "a note", ["a", "b"])
    rows = [
        {"segment": 1, "step": 3, "time": 2e9, "kind": "warning", "text": "x", "bins": [1]},
        *({**{"segment": 1, "step": 4, "time": 2e9}, **row} for row in steered()),
        {"segment": 1, "step": 5, "time": 2e9, "kind": "resumed", "chosen": True, "abandoned": [10]},
        {"segment": 1, "step": 5, "time": 2e9, "kind": "initialised", "source": {"recipe": "r"}, "error": 0.1},
        {"segment": 1, "step": 5, "time": 2e9, "kind": "diverged", "what": "loss", "tangent_norm": 3.0},
        {"segment": 1, "step": 5, "time": 2e9, "kind": "failed", "error": "x"},
    ]
    with run.events.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    meta = read_json(run.meta)
    meta |= {"teacher": {"step": 3, "ema": "0.5", "recipe": "r"}, "start": {"step": 3, "ema": "0.5", "error": 0.5}}
    run.meta.write_text(json.dumps(meta))
    with process_put_back():
        sys.argv = ["cmbench", *map(str, measured(run))]
        assert main.exit_code() == 0
    return run


def steered() -> list[dict[str, Any]]:
    """Return answers to requests."""
    asked = {"kind": "request", "action": "set", "result": "done", "id": "7"}
    files = {"kind": "request", "action": "snapshot", "result": "done", "files": ["x"], "id": "8"}
    return [{**asked, "settings": {"optimizer.lr": 0.5}}, files]


def measured(run: RunDir) -> list[object]:
    """Return the arguments of a command that measures it."""
    return ["eval", run.path, "--n", 2, "--repeats", 2, "--steps", 1, "--measures", "sliced_wasserstein"]


@pytest.fixture
def answers(monkeypatch, capsys, tmp_path, put_back) -> Callable[..., None]:
    """Run a command, which may say that it cannot, and may not fail otherwise."""
    monkeypatch.setenv("CMBENCH_DEBUG", "1")
    monkeypatch.setattr(_follow.status, "is_live", lambda run: False)  # else a run that seems to live is waited for

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["cmbench", *map(str, arguments)])
        code = main.exit_code()
        said = capsys.readouterr()
        assert code in (0, 2, 4), said.err

    return call


def changed_file(data: st.DataObject, files: list[Path]) -> tuple[Path, bytes]:
    """Damage a file, and return which and what it was."""
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    path.write_bytes(damaged(data.draw, content, path.suffix == ".jsonl"))
    return path, content


@pytest.mark.parametrize("name", ["status.json", "meta.json", "annotations.json"])
def test_tables_take_odd_values_everywhere(run, answers, name):
    path = run.path / name
    content = path.read_bytes()
    whole = json.loads(content)
    try:
        for i, place in enumerate(places(whole)):
            for j, value in enumerate((None, "x", [3], {"x": {}}, -1, 1e308)):
                path.write_text(json.dumps(with_value(whole, place, value)))
                glance(run)
                if WHOLE or (i + j) % 3 == 0:
                    answers("show", run.path, "--runs-dir", run.path.parent)
    finally:
        path.write_bytes(content)


@given(st.data())
@CALM
def test_views_take_any_value(run, answers, data):
    files = sorted(path for path in run.path.rglob("*.json*") if path.name != "teacher.json")
    path, content = changed_file(data, files)
    try:
        options = ["--runs-dir", run.path.parent]
        for name in ("ls", "show"):
            answers(name, *([run.path] if name == "show" else []), *options)
            answers(name, "--json", *([run.path] if name == "show" else []), *options)
        for form in ("--plain", "--json", "--ascii"):
            answers("watch", run.path, form, *options)
        for form in ("--plain", "--json", "--csv=-"):
            answers("compare", run.path, form, *options)
        answers("compare", "--filter", "tag:a step>3 loss<9", "--plain", *options)
        screens(run)
    finally:
        path.write_bytes(content)


def screens(run: RunDir) -> None:
    """Do what the screens do with a run's files."""
    view = RunView(run)
    while view.read() or view.series.behind:
        pass
    for axis in ("step", "images", "time", "wall", "forwards"):
        view.marks(axis)
        view.x_end(axis)
        for key in view.keys:
            view.line(key, axis)
    report.header(view, 3.0, False, False, 120)
    report.lines_of(view, False, 100)
    for keys in quantities.charts(view.keys):
        report.note_of(view, keys)
    assert (view.edges, view.noise_levels, view.settings, view.alerts) is not None
    preview(glance(run), read_json(run.meta) or {})
    losses.course(run, 10)
    AlbumReader(run).read()


@given(st.data())
@CALM
def test_so_do_samples_and_measures(run, answers, tmp_path, data):
    files = sorted(path for path in run.path.rglob("*.json*") if path.name in SAMPLED or path.parent.name[0] == "e")
    path, content = changed_file(data, files)
    kept = {path: path.read_bytes() for path in run.evaluations.iterdir()}
    try:
        answers("sample", run.path, "--n", 2, "--out", tmp_path / "samples.png")
        answers(*measured(run))
    finally:
        for own in run.evaluations.iterdir():
            own.write_bytes(kept[own]) if own in kept else own.unlink()
        path.write_bytes(content)
