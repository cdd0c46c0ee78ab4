"""A status tells of the trainer as it truly is: running, lost or crashed."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from waiting import until

from cmbench.rundir import status
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir

ELSEWHERE = {"host": "elsewhere", "pid": 1, "pid_start": 0.0}


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def write(run: RunDir, silent: float = 0.0, **fields: object) -> None:
    now = {"state": "running", "step": 5, **status.owner(), **fields}
    run.status.write_bytes(to_json({**now, "heartbeat": time.time() - silent}))


def state(run: RunDir) -> str:
    found = status.read(run)["state"]
    assert status.is_live(run) == (found in ("starting", "running", "paused", "lost"))
    return found


def test_a_heartbeat_is_the_time_of_writing(run):
    before = time.time()
    status.write(run, {"state": "running", "step": 7, **status.owner()})
    written = read_json(run.status)
    assert before <= written["heartbeat"] <= time.time()
    assert status.read(run) == written


@pytest.mark.parametrize("judged", ["starting", "running", "paused"])
def test_a_live_process_runs_however_silent_it_is(run, judged):
    write(run, state=judged, silent=10_000)
    assert state(run) == judged


def test_a_folder_that_is_not_there_is_gone(run):
    write(run)
    run.status.unlink()
    assert state(run) == "starting"
    assert state(RunDir(run.path / "none")) == "gone"


@pytest.fixture
def ended():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = psutil.Process(process.pid).create_time()
    process.stdin.close()
    return process, start


def test_a_dead_process_has_crashed(run, ended):
    process, start = ended
    process.wait()
    write(run, pid=process.pid, pid_start=start)
    assert state(run) == "crashed"


def test_so_has_one_that_nobody_has_waited_for(run, ended):
    process, start = ended
    write(run, pid=process.pid, pid_start=start)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert state(run) == "crashed"
    process.wait()


def test_another_process_with_the_same_number_is_not_the_trainer(run):
    write(run, pid_start=status.owner()["pid_start"] - 100)
    assert state(run) == "crashed"
    write(run, pid_start=status.owner()["pid_start"])
    assert state(run) == "running"


@pytest.mark.parametrize(
    ("silent", "judged"), [(0, "running"), (50, "running"), (70, "lost"), (590, "lost"), (610, "crashed")]
)
def test_a_trainer_on_another_host_is_judged_by_its_heartbeat(run, silent, judged):
    write(run, silent=silent, **ELSEWHERE)
    assert state(run) == judged


@pytest.mark.parametrize("final", ["finished", "stopped", "diverged", "failed"])
def test_what_has_ended_stays_as_it_is(run, final):
    write(run, silent=1e6, state=final, **ELSEWHERE)
    assert state(run) == final
    write(run, state=final, pid=2**22 + 1)
    assert state(run) == final


def test_without_a_status_a_run_starts_until_it_is_too_old(run):
    assert state(run) == "starting"
    run.status.write_bytes(b'{"state": "run')
    assert state(run) == "unreadable"
    run.status.unlink()
    os.utime(run.path, (time.time() - 700,) * 2)
    assert state(run) == "crashed"
