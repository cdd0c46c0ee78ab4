"""Many runs read by several processes are those that one process reads, in their order."""

import json
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from compared_runs import compared_run, losses
from waiting import PATIENCE

from cmbench.comparison import reading

HERE = os.getpid()
NAMES = [f"many-{i:02}" for i in range(2 * reading._MANY)]


@pytest.fixture
def runs(tmp_path):
    runs = [compared_run(tmp_path / "runs", name, {"loss": losses(seed=i)}) for i, name in enumerate(NAMES)]
    runs[3].metrics.write_bytes(b'{"step": "x"}\n\xff\n')
    runs[5].recipe.write_text("damaged = [")
    runs[7].meta.unlink()
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


class Dying:
    """Dies in the second run that a process of its own reads."""

    @staticmethod
    def read(run, letter):
        if os.getpid() != HERE and int(letter) >= len(os.sched_getaffinity(0)):
            os.kill(os.getpid(), signal.SIGKILL)
        return letter, os.getpid()


def _read_all(member, runs, letters):
    reading.Member = member
    return os.getpid(), reading.read_all(runs, letters)


def read_all(member, runs, letters):
    """Read in a process that begins anew, for of this one a test before may have left a thread: such never fork."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as others:
        return others.submit(_read_all, member, runs, letters).result(PATIENCE)


def test_they_are_read_by_others(runs):
    letters = [str(i) for i in range(len(runs))]
    reader, by_many = read_all(Read, runs, letters)
    assert [letter for letter, _ in by_many] == letters
    assert reader not in {process for _, process in by_many}
    reader, by_one = read_all(Read, runs[:2], letters[:2])
    assert by_one == [(letter, reader) for letter in letters[:2]]


def test_what_a_process_leaves_unread_is_read_here(runs):
    letters = [str(i) for i in range(len(runs))]
    reader, found = read_all(Dying, runs, letters)
    assert [letter for letter, _ in found] == letters
    n = len(os.sched_getaffinity(0))
    assert all((process == reader) == (int(letter) >= n) for letter, process in found)
