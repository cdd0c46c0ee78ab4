"""A trainer of its own: what it says to its starter arrives as it was said, and where there is none a line says why."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from waiting import until

from cmbench.cli._processes import Processes
from cmbench.errors import UsageError
from cmbench.rundir import launch
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import portable

NOT_UTF8 = os.fsdecode(b"nu\xff")

# A trainer whose only act is its answer.
ACCEPTS = """
import sys
from pathlib import Path
from cmbench.rundir import launch
from cmbench.rundir.layout import RunDir
launch.accept(RunDir(Path(sys.argv[1])))
"""
REFUSES = """
import sys
from cmbench.errors import UsageError
from cmbench.rundir import launch
launch.refuse(UsageError(f"{sys.argv[1]}: no"))
"""


@pytest.fixture
def trainer(monkeypatch):
    started = []

    def be(script):
        monkeypatch.setattr(launch, "command", lambda *arguments: [sys.executable, "-c", script, arguments[0]])

    def start(*arguments, **options):
        started.append(begin(*arguments, **options))
        return started[-1]

    begin = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    yield be
    for process in started:
        process.wait()


@pytest.mark.parametrize("name", ["runs", NOT_UTF8, "two\nlines", "\U0001f600"])
def test_a_run_is_found_and_a_refusal_is_read_whatever_the_bytes_of_the_path(tmp_path, trainer, name):
    folder = tmp_path / name
    folder.mkdir()
    trainer(ACCEPTS)
    assert launch.start_detached([str(folder)]).path == folder.resolve()
    trainer(REFUSES)
    with pytest.raises(launch.RefusedError) as refused:
        launch.start_detached([str(folder)])
    assert (str(refused.value), refused.value.exit_code) == (f"{folder}: no", 2)


def test_a_path_that_no_recipe_can_hold_is_told(tmp_path):
    run = RunDir(tmp_path / NOT_UTF8 / "x")
    run.path.mkdir(parents=True)
    run.recipe.touch()
    assert portable(run, "x") == "x"
    with pytest.raises(UsageError, match=r"x: its path is not UTF-8, .*; allowed: its name"):
        portable(run, str(run.path))


def _fails(*arguments, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("module", "name"),
    [(tempfile, "TemporaryFile"), (subprocess, "Popen"), (tempfile, "TemporaryDirectory"), (Path, "write_bytes")],
)
def test_where_no_trainer_can_be_started_a_line_says_why(monkeypatch, module, name):
    open_files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    monkeypatch.setattr(module, name, _fails)
    with pytest.raises(launch.RefusedError, match="no trainer can be started: No space left on device"):
        launch.start_detached(["x"])
    if name in ("TemporaryFile", "Popen"):
        with pytest.raises(launch.RefusedError, match="no trainer can be started: No space left on device"):
            list(Processes([["x"]]).events())
    if open_files:
        assert len(list(Path("/proc/self/fd").iterdir())) == open_files


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        (["run", "recipes/ct_edm.toml", "--set", "seed=1"], "ct_edm.toml"),
        (["run", "--from", "runs/ct_edm-1@200"], "ct_edm-1@200"),
        (["resume", "/somewhere/ct_edm-1"], "ct_edm-1"),
        (["run"], ""),
    ],
)
def test_what_a_command_trains_has_a_name_for_people(arguments, subject):
    assert launch.subject_of(arguments) == subject


TALKS = """
import sys, time
print("decoding pictures: 1 of 2", flush=True)
print("decoding", end="", flush=True)
sys.stdin.read()
time.sleep(600)
"""


def test_the_last_whole_line_of_a_trainer_that_starts_is_heard(trainer):
    trainer(TALKS)
    start = launch.Start(["x"])
    until(lambda: start.said() == "decoding pictures: 1 of 2")
    start.cancel()
    assert start.said() == ""
