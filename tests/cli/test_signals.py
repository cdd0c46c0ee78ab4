"""Which signals stop a run, and which end its process."""

import os
import signal
import sys

import pytest

from cmbench.cli import _train
from cmbench.cli._processes import Accepted, Ended, Processes
from cmbench.engine import runner
from cmbench.rundir import launch
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.select import all_runs

STOPS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"]
ANNOUNCED = STOPS[3:]
pytestmark = pytest.mark.usefixtures("put_back")


class Run:
    """What the handlers know of a run."""

    def __init__(self):
        self.asked = []
        _train._stop_on_signals(self)

    def request_stop(self, reason):
        self.asked.append(reason)


@pytest.fixture(autouse=True)
def _as_a_shell_starts_it(put_back):
    for name in STOPS:
        signal.signal(signal.Signals[name], signal.SIG_DFL)


@pytest.mark.parametrize("name", STOPS)
def test_each_of_them_asks_for_a_stop(name):
    run = Run()
    os.kill(os.getpid(), signal.Signals[name])
    assert run.asked == [name]


@pytest.mark.parametrize("name", STOPS[:3])
def test_after_one_by_hand_the_next_ends_the_process(name):
    run = Run()
    os.kill(os.getpid(), signal.Signals[name])
    assert [signal.getsignal(signal.Signals[each]) for each in STOPS[:3]] == [signal.SIG_DFL] * 3
    assert run.asked == [name]


@pytest.mark.parametrize("name", ANNOUNCED)
def test_what_a_batch_system_sends_again_and_again_never_ends_the_process(name):
    run = Run()
    for each in (name, name, *ANNOUNCED):
        os.kill(os.getpid(), signal.Signals[each])
    assert run.asked == [name, name, *ANNOUNCED]
    os.kill(os.getpid(), signal.SIGTERM)  # the first by hand stops, too
    assert run.asked[-1] == "SIGTERM"


@pytest.mark.parametrize("name", STOPS)
def test_what_is_ignored_stays_ignored(name):
    """As nohup does it for SIGHUP."""
    signal.signal(signal.Signals[name], signal.SIG_IGN)
    run = Run()
    os.kill(os.getpid(), signal.Signals[name])
    assert run.asked == []


@pytest.mark.parametrize("name", ANNOUNCED)
def test_what_is_announced_while_a_run_is_built_stops_it_at_its_first_step(home, cmbench, monkeypatch, name):
    build = runner.create

    def create(*given):
        os.kill(os.getpid(), signal.Signals[name])
        return build(*given)

    monkeypatch.setattr(runner, "create", create)
    outcome = cmbench("run", "tiny.toml", "--foreground")
    assert (outcome.code, outcome.err) == (75, "")
    (run,) = all_runs(home / "runs")
    assert steps_of_checkpoints(run) == [0]
    assert cmbench("resume", run.name, "--foreground").code == 0


# Listens as a trainer does, and ends when it has heard so many.
LISTENS = """
import signal, sys
heard = []
for name in sys.argv[2:]:
    signal.signal(signal.Signals[name], lambda number, frame: heard.append(signal.Signals(number).name))
print("a-run", flush=True)
while len(heard) < int(sys.argv[1]):
    signal.pause()
sys.exit(" ".join(sorted(heard)))
"""


@pytest.mark.parametrize("sent", [[name] for name in STOPS] + [[name, "SIGTERM"] for name in ANNOUNCED])
def test_whoever_has_trainers_of_its_own_passes_on_what_asks_for_an_end(monkeypatch, sent):
    """Two, so that none is left behind; each comes as itself, for after what is announced the first by hand stops."""
    command = [sys.executable, "-c", LISTENS, str(len(sent)), *STOPS]
    monkeypatch.setattr(launch, "command", lambda *arguments: command)
    processes, accepted, ended = Processes([[], [], []], at_once=2), 0, []
    for event in processes.events():
        accepted += isinstance(event, Accepted)
        if isinstance(event, Ended):
            ended.append(event.error)
        elif accepted == 2:
            for name in sent:
                os.kill(os.getpid(), signal.Signals[name])
    assert processes.stopped
    assert ended == [" ".join(sorted(sent))] * 2
    assert signal.getsignal(signal.Signals[sent[0]]) is signal.SIG_DFL
