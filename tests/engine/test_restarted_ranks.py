"""Ranks that are killed, that lack memory, or whose caller leaves: all of them end, and the run goes on from there."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
from fake_runs import read_rows
from test_ranks import ACTING, assert_near, own, planned, the_run, unbroken
from tiny import set_options
from torchrun import TESTS, cmbench_on, torchrun
from waiting import until

from cmbench import consent
from cmbench.engine import runner
from cmbench.rundir import status
from cmbench.rundir.layout import steps_of_checkpoints

assert own  # a fixture
pytestmark = [pytest.mark.usefixtures("put_back"), pytest.mark.long]

LEFT = """
import os, signal, sys
from pathlib import Path

from cmbench import consent
from cmbench.engine import ranks, runner, together

found = ranks.gather()
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once the first has ended, torchrun ends the others
if not found.leads:
    sys.exit(together.follow(found))
made = runner.create(consent.named(Path("tiny.toml"), sys.argv[2:]), None, ["cmbench"])
for record in (records := made.records()):
    if record.stream == sys.argv[1] and record.row["step"] == 6:
        break
records.close()
sys.exit(made.exit_code)
"""


def counted(rows: list[dict]) -> list[int]:
    """The steps of rows, as readers take them."""
    return [row["step"] for row in rows if "loss" in row]


def test_a_restart_trains_a_finished_run_further(own):
    """Its first attempt is killed, at a step after the former end."""
    made = runner.create(consent.named(own / "tiny.toml", ACTING), None, ["cmbench"])
    list(made.records())
    planned(13, 1, "kill")
    ended = cmbench_on(2, "resume", made.run.path, "--set", "train.steps=15", restarts=1)
    assert ended.returncode == 0, ended.stderr[-2000:]
    now = status.read(made.run)
    assert (now["state"], now["step"], Path("plan.json").exists()) == ("finished", 15, False)
    assert counted(read_rows(made.run.metrics)) == [2, 4, 6, 8, 10, 12, 14, 15]


def test_three_kills_are_three_restarts(own):
    """Each rank is killed, at a start too; the run is that of one rank that nothing disturbs."""
    (own / "plans.txt").write_text("3 1\n-1 1\n9 0\n")
    source = (own / "own_ranks.py").read_text()
    more = """
    def act(self, step):
        plans = Path("plans.txt").read_text().splitlines()
        if plans and plans[0].split() == [str(step), os.environ.get("RANK")]:
            Path("plans.txt").write_text("".join(f"{line}\\n" for line in plans[1:]))
            self.kill()
"""
    (own / "own_ranks.py").write_text(source + "\nclass Mortal(Acting):" + more)
    given = ["objective={kind='own_ranks:Mortal', mu_0=0.5}", "log.every=2"]
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(given), restarts=3)
    assert ended.returncode == 0, ended.stderr[-2000:]
    run = the_run()
    assert (own / "plans.txt").read_text() == ""
    assert status.read(run)["state"] == "finished"
    assert_near(run, unbroken(own), 1e-6)


def test_two_machines_begin_again_together(own):
    """Two agents; only one counts the restart. Both ranks meet again, whichever of them writes."""
    port = 20_000 + os.getpid() % 10_000
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    given = ["--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command = [*given, "--max-restarts", 2, "-m", "cmbench", "run", "tiny.toml", *set_options(ACTING)]
    planned(8, 1, "kill")
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *map(str, command)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [agent.wait() for agent in agents] == [0, 0]
    assert not Path("plan.json").exists()
    run = the_run()
    assert status.read(run)["state"] == "finished"
    assert_near(run, unbroken(own), 1e-6)
    assert Counter(row["kind"] for row in read_rows(run.events))["resumed"] == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_lacks_memory_is_named(own, rank):
    planned(8, rank, "lack")
    source = (own / "own_ranks.py").read_text()
    lack = "    def lack(self):\n        torch.empty(2**55)\n\n    def kill(self):"
    (own / "own_ranks.py").write_text(source.replace("    def kill(self):", lack))
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    assert ended.returncode == 1
    run = the_run()
    assert status.read(run)["state"] == "failed"
    error = read_rows(run.events)[-1]["error"]
    assert error.startswith(f"rank {rank} on ")
    assert "out of memory" in error
    assert "a lower train.batch_size needs less" in error
    assert error.endswith("checkpoint 5 is kept")
    assert f"after step 8: {error}" in ended.stdout
    assert "Traceback" not in ended.stdout
    again = runner.resume(run)
    list(again.records())
    assert_near(run, unbroken(own), 1e-6)


def test_a_rank_that_is_killed_while_another_pauses_does_not_stop_the_run(own):
    """torchrun ends the others by the signal that also stops a run: here it is none."""
    source = (own / "own_ranks.py").read_text()
    pause = """    def pause(self):
        (run,) = all_runs(Path("runs"))
        control.request(run, "checkpoint")
        control.request(run, "pause")
        self.slow = 0.3

    def kill(self):"""
    (own / "own_ranks.py").write_text(source.replace("    def kill(self):", pause))
    planned(6, 0, "pause")
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    command = ["--standalone", "--nproc-per-node", "2", "-m", "cmbench", "run", "tiny.toml", *set_options(ACTING)]
    agent = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *command], env=environment)
    until(lambda: Path("runs/latest").exists() and status.read(the_run())["state"] == "paused")
    for process in psutil.Process(agent.pid).children():
        if process.environ().get("RANK") == "1":
            process.send_signal(signal.SIGKILL)
    assert agent.wait() == 1
    run = the_run()
    assert status.read(run)["state"] == "crashed"
    assert steps_of_checkpoints(run)[-1] == 7
    assert "stopped" not in {row["kind"] for row in read_rows(run.events)}


@pytest.mark.parametrize("stream", ["metrics", "profiles", "events"])
def test_all_ranks_end_when_the_caller_of_the_first_leaves(own, stream):
    """At any row, also in the midst of a step's rows: the others may be about to draw their samples."""
    (own / "left.py").write_text(LEFT)
    given = [*ACTING, "profile.every=6"]
    ended = torchrun(2, own / "left.py", stream, *given)
    assert ended.stderr.count("exitcode  : 75") == 2, ended.stderr[-2000:]
    run = the_run()
    assert (status.read(run)["state"], steps_of_checkpoints(run)[-1]) == ("stopped", 6)
    list(runner.resume(run).records())
    made = runner.create(consent.named(own / "tiny.toml", given), own / "unbroken", ["cmbench"])
    list(made.records())
    assert_near(run, made.run, 1e-6)
