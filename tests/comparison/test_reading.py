"""Many runs read by several processes are those that one process reads, in their order."""

import json
import os
import signal
import threading

import pytest
from compared_runs import compared_run, losses
from waiting import until

from cmbench.comparison import reading

HERE = os.getpid()
NAMES = [f"many-{i:02}" for i in range(2 * reading._MANY)]


@pytest.fixture
def runs(tmp_path):
    runs = [compared_run(tmp_path / "runs", name, {"loss": losses(seed=i)}) for i, name in enumerate(NAMES)]
    runs[3].metrics.write_bytes(b'{"step": "x"}\n\xff\n')
    runs[5].recipe.write_text("damaged = [")
    runs[7].meta.unlink()
    until(lambda: threading.active_count() == 1, threading.enumerate)  # a progress bar's may still be ending
    return runs


def test_the_same_comparison(cmbench, runs, monkeypatch):
    def told() -> dict:
        outcome = cmbench("compare", *(run.path for run in runs), "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    by_many = told()
    monkeypatch.setattr(reading, "_CAN_FORK", False)
    assert by_many == told()
    assert [run["name"] for run in by_many["runs"]] == NAMES


class Read:
    @staticmethod
    def read(run, letter):
        return letter, os.getpid()


def test_they_are_read_by_others(runs, monkeypatch):
    monkeypatch.setattr(reading, "Member", Read)
    letters = [str(i) for i in range(len(runs))]
    by_many = reading.read_all(runs, letters)
    assert [letter for letter, _ in by_many] == letters
    assert os.getpid() not in {process for _, process in by_many}
    assert reading.read_all(runs[:2], letters[:2]) == [(letter, os.getpid()) for letter in letters[:2]]


class Dying:
    """Dies in the second run that a process of its own reads."""

    @staticmethod
    def read(run, letter):
        if os.getpid() != HERE and int(letter) >= len(os.sched_getaffinity(0)):
            os.kill(os.getpid(), signal.SIGKILL)
        return letter, os.getpid()


def test_what_a_process_leaves_unread_is_read_here(runs, monkeypatch):
    monkeypatch.setattr(reading, "Member", Dying)
    letters = [str(i) for i in range(len(runs))]
    found = reading.read_all(runs, letters)
    assert [letter for letter, _ in found] == letters
    n = len(os.sched_getaffinity(0))
    assert all((process == HERE) == (int(letter) >= n) for letter, process in found)
