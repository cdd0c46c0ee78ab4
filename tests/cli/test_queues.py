"""Runs of chosen names that a queue starts, ends and starts again: `cmbench run --name NAME --or-resume`."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fake_runs import read_rows
from killed import KilledError, Killer
from test_processes import LONG, Terminal, kill
from tiny import TINY, set_options
from waiting import PATIENCE, until

from cmbench import consent
from cmbench.engine import checkpoint, runner
from cmbench.errors import ConflictError
from cmbench.rundir import status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import LATEST, RunDir, steps_of_checkpoints
from cmbench.rundir.lock import hold
from cmbench.rundir.segments import that_count
from cmbench.rundir.select import all_runs

COMMAND = [sys.executable, "-m", "cmbench"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "clusters.md"
NAMED = ["run", "tiny.toml", "--name", "mine", "--foreground"]
OR_RESUME = [*NAMED, "--or-resume"]

# In its first three segments it waits at steps 20, 40 and 60 until it is asked to stop, or killed.
HELD = """
import signal
import time
from pathlib import Path

from cmbench.objectives import ct

class Config(ct.Config):
    pass

def wait():
    asked = []
    for each in (signal.SIGUSR1, signal.SIGTERM):
        before = signal.getsignal(each)
        signal.signal(each, lambda number, frame, before=before: (asked.append(number), before(number, frame)))
    while not asked:
        time.sleep(0.01)

class Held(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        log = Path("runs/mine/metrics.jsonl")
        segment = log.read_text().count("first_step") if log.exists() else 4
        if segment <= 3 and step >= 20 * segment and not getattr(self, "has_waited", False):
            self.has_waited = True
            wait()
        return super().loss(model, x_0, labels, step, random)
"""
EVERY_ROW = ["train.steps=80", "log.every=1", "checkpoint.every=7", "snapshot.every=0", "evaluate.every=0"]


@pytest.fixture
def mine(home: Path) -> Iterator[RunDir]:
    """The run of the name that the tests choose, not there yet."""
    run = RunDir(home / "runs" / "mine")
    yield run
    kill(run)


@pytest.mark.long
def test_a_queue_that_ends_a_run_three_times_gets_what_a_run_left_alone_is(home, mine, put_back):
    (script,) = (text for text in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL) if "requeue.sh" in text)
    (home / "requeue.sh").write_text(script)
    (home / "own_held.py").write_text(HELD)
    (home / "tiny.toml").write_text(TINY.replace('kind = "ct"', 'kind = "own_held:Held"'))
    command = [*COMMAND, *OR_RESUME, *set_options(EVERY_ROW)]
    done = subprocess.run(
        ["bash", "requeue.sh", "runs/mine", *command], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    told = re.findall(r"(.*): exit code (\d+)", done.stdout)
    assert told == [("USR1", "75"), ("TERM", "75"), ("KILL", "137"), ("left alone", "0"), ("once more", "0")], done
    assert "mine: finished at step 80 already" in done.stdout
    assert [run.name for run in all_runs(home / "runs")] == ["mine"]
    assert status.read(mine)["segment"] == 4

    alone = runner.create(consent.named(home / "tiny.toml", EVERY_ROW), home / "alone", [])
    list(alone.records())
    ours, theirs = ([(r["step"], r["loss"]) for r in _counting(run)] for run in (mine, alone.run))
    assert [step for step, _ in ours] == list(range(1, 81))
    assert ours == theirs
    saved, whole = checkpoint.load(mine, 80), checkpoint.load(alone.run, 80)
    assert all(torch.equal(saved[group][name], whole[group][name]) for group in whole for name in whole[group])


def _counting(run: RunDir) -> list[dict]:
    return [row for row in that_count(read_rows(run.metrics)) if "loss" in row]


@pytest.mark.parametrize("block", re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_the_scripts_of_the_page_are_scripts(block):
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_script_for_slurm_passes_the_announcement_on_and_requeues(home):
    """With a trainer that stops on SIGUSR1 as ours does, and with Slurm's command in a file."""
    script, _ = (text for text in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL) if "#SBATCH" in text)
    (home / "bin").mkdir()
    for name, text in {
        "cmbench": 'trap "exit 75" USR1\necho "$@" > began\nwhile true; do sleep 0.05; done\n',
        "scontrol": 'echo "$@" >> requeued\n',
    }.items():
        (home / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (home / "bin" / name).chmod(0o755)
    place = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "-c", script], env=place)
    until((home / "began").exists)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE) == 75
    assert (home / "requeued").read_text() == "requeue 17\n"
    assert "--or-resume --host-gone --foreground" in (home / "began").read_text()


@pytest.mark.long
def test_the_script_for_slurm_on_two_nodes_stops_the_run_and_requeues(home):
    """Both nodes are this one, with a rank each."""
    _, script = (text for text in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL) if "#SBATCH" in text)
    given = " ".join(["tiny.toml", *set_options(LONG)])
    for theirs, ours in {"ct_edm_ring": given, "29500": str(20_000 + os.getpid() % 10_000), "node 8": "node 1"}.items():
        assert theirs in script
        script = script.replace(theirs, ours)
    (home / "bin").mkdir()
    for name, text in {
        "cmbench": f'exec {sys.executable} -m cmbench "$@"\n',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"\n',
        "srun": '"$@" &\n"$@" &\nwait\n',
        "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> requeued; fi\n',
    }.items():
        (home / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (home / "bin" / name).chmod(0o755)
    place = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    place |= {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "nodes"}
    place["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    ring = RunDir(home / "runs" / "ring")
    job = subprocess.Popen(["bash", "-c", script], env=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(read_rows(ring.metrics)) > 3 if ring.metrics.exists() else False)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE) == 0
    now = status.read(ring)
    assert (now["state"], now["ranks"], (home / "requeued").read_text()) == ("stopped", 2, "requeue 17\n")
    assert steps_of_checkpoints(ring)[-1] == now["step"]


def test_a_name_is_the_name_of_the_folder(cmbench, mine):
    done = cmbench(*NAMED)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "mine"
    assert (mine.path.parent / LATEST).resolve() == mine.path
    assert 'name = "tiny"' in mine.recipe.read_text()
    before = mine.events.read_bytes()
    again = cmbench(*NAMED)
    line = "cmbench: mine: this run exists; allowed: --or-resume to go on with it, or another --name\n"
    assert (again.code, again.out, again.err) == (5, "", line)
    assert mine.events.read_bytes() == before


def test_a_finished_run_is_done_and_a_longer_one_goes_on(cmbench, mine):
    assert cmbench(*OR_RESUME).code == 0
    before = mine.events.read_bytes()
    done = cmbench(*OR_RESUME)
    assert (done.code, done.out, done.err) == (0, "mine: finished at step 12 already (cmbench sample mine)\n", "")
    assert mine.events.read_bytes() == before
    longer = cmbench(*OR_RESUME, "--set", "train.steps=20")
    assert longer.code == 0
    assert "trains to step 20; N and mu follow 20 steps from here on" in longer.out
    assert status.read(mine)["step"] == 20
    for steps in (12, 20):  # the first command, and the last
        again = cmbench(*OR_RESUME, "--set", f"train.steps={steps}")
        assert (again.code, again.out.split(" already")[0]) == (0, "mine: finished at step 20")
    shorter = cmbench(*OR_RESUME, "--set", "train.steps=15")
    assert (shorter.code, shorter.out) == (5, "")
    assert "mine: train.steps is 20 there and 15 here" in shorter.err


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["optimizer.lr=1e-3"], ["optimizer.lr is 0.01 there and 0.001 here"]),
        (["seed=4", "network.width=8"], ["network.width is 16 there and 8 here, seed is 3 there and 4 here"]),
        (["objective={kind='ict'}"], ["objective.kind is 'ct' there and 'ict' here", "more keys differ"]),
        (["train.steps=20", "log.every=2"], ["log.every is 3 there and 2 here; choose"]),
    ],
)
def test_another_recipe_is_refused_in_one_line(cmbench, mine, overrides, keys):
    cmbench(*NAMED)
    before = mine.events.read_bytes()
    refused = cmbench(*OR_RESUME, *set_options(overrides))
    assert (refused.code, refused.out) == (5, "")
    assert refused.err.startswith("cmbench: mine: ")
    assert refused.err.count("\n") == 1
    assert [key for key in keys if key not in refused.err] == []
    assert mine.events.read_bytes() == before


def test_a_diverged_run_is_not_resumed(cmbench, mine):
    cmbench(*NAMED)
    status.write(mine, {**(read_json(mine.status) or {}), "state": "diverged"})
    before = mine.events.read_bytes()
    done = cmbench(*OR_RESUME)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("cmbench: mine: diverged at step 12, and would again")
    assert done.err.count("\n") == 1
    assert mine.events.read_bytes() == before


def test_a_live_run_is_left_alone(cmbench, mine):
    cmbench(*NAMED)
    live = {**(read_json(mine.status) or {}), **status.owner()}
    status.write(mine, {**live, "state": "running"})
    refused = cmbench(*OR_RESUME)
    assert (refused.code, refused.err) == (5, "cmbench: mine: is running (cmbench watch mine)\n")
    status.write(mine, {**live, "state": "stopped"})
    lock = hold(mine)
    refused = cmbench(*OR_RESUME)
    lock.release()
    assert (refused.code, refused.err) == (5, "cmbench: mine: a trainer works on this run (cmbench watch mine)\n")


def test_a_run_of_a_host_that_is_gone(cmbench, mine):
    cmbench(*NAMED)
    status.write(mine, {**(read_json(mine.status) or {}), "state": "running", "host": "other"})
    refused = cmbench(*OR_RESUME)
    assert refused.code == 5
    assert "if other is gone: cmbench resume mine --host-gone" in refused.err
    done = cmbench(*OR_RESUME, "--host-gone")
    assert done.code == 0, done.err
    assert "the trainer on other is assumed to be gone" in done.out


@pytest.mark.long
def test_two_at_the_same_instant(home, mine):
    """Four commands: one trains, the others are refused, whatever each has found."""
    command = [*COMMAND, *OR_RESUME, *set_options(["train.steps=100000000", "evaluate.every=0", "snapshot.every=0"])]
    commands = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
    until(lambda: sum(each.poll() is not None for each in commands) >= 3)
    until(lambda: read_rows(mine.metrics))
    (left,) = (each for each in commands if each.poll() is None)
    left.send_signal(signal.SIGUSR1)
    assert left.wait(PATIENCE) == 75
    assert sorted(each.returncode for each in commands) == [5, 5, 5, 75]
    for each in commands:
        assert each.stderr is not None
        said = each.stderr.read().decode()
        each.stderr.close()
        assert said.count("\n") == (each is not left), said
    assert status.read(mine)["state"] == "stopped"
    assert [run.name for run in all_runs(home / "runs")] == ["mine"]


@pytest.mark.parametrize("leftover", [False, True])
def test_one_of_many_gets_the_name(home, leftover):
    """Whatever the moment at which each finds the folder missing, half made, or left by a kill."""
    for i in range(30):
        folder = home / f"runs{i}"
        if leftover:
            (folder / "mine" / "checkpoints").mkdir(parents=True)
            (folder / "mine" / "meta.json").write_text("{}")
            (folder / "mine" / "lock").touch()
        together, held = threading.Barrier(6), list[object]()

        def claim(folder: Path = folder, together: threading.Barrier = together, held: list[object] = held) -> str:
            together.wait()
            try:
                run, lock = runner.claimed(folder, "tiny", "mine")
            except ConflictError as error:
                return str(error)
            run.recipe.touch()
            held.append(lock)
            return ""

        with ThreadPoolExecutor(6) as pool:
            said = [each.result() for each in [pool.submit(claim) for _ in range(6)]]
        assert said.count("") == len(held) == 1
        assert all("works on this run" in line or "this run exists" in line for line in said if line), said


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the dead close no files
@pytest.mark.parametrize("at", range(1, 26, 3))
def test_what_a_kill_leaves_of_a_run_in_the_making_is_started_anew(home, mine, put_back, at):
    given = consent.named(home / "tiny.toml")
    with pytest.MonkeyPatch.context() as patch:
        Killer(patch, at)
        try:
            runner.create(given, home / "runs", [], "mine").close()
        except KilledError:
            was_made = mine.recipe.exists()
        else:
            was_made = True
    gc.collect()
    if was_made:
        with pytest.raises(ConflictError, match="this run exists"):
            runner.create(given, home / "runs", [], "mine")
        return
    status_there = read_json(mine.status)
    if status_there:  # the process that was killed is this one, which lives
        status.write(mine, {**status_there, "pid": 2**22 + 1})
    made = runner.create(given, home / "runs", [], "mine")
    list(made.records())
    assert (made.exit_code, made.run.name) == (0, "mine")
    assert steps_of_checkpoints(mine)[-1] == 12


def test_a_folder_that_is_no_run_stays(cmbench, mine):
    mine.path.mkdir(parents=True)
    (mine.path / "thesis.tex").write_text("mine")
    for command in (NAMED, OR_RESUME):
        refused = cmbench(*command)
        assert (refused.code, refused.out) == (5, "")
        assert refused.err == f"cmbench: {mine.path}: exists, and is no run; choose another --name\n"
    assert [path.name for path in mine.path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tiny.toml", "--or-resume"], "--or-resume: found with no --name, allowed: with --name NAME and a recipe"),
        (["--from", "x", "--name", "y", "--or-resume"], "--or-resume: found with --from, allowed"),
        (["tiny.toml", "--host-gone"], "--host-gone: found without --or-resume"),
        (["tiny.toml", "--name", "a/b"], "--name: found 'a/b', allowed: letters, digits, _ and -"),
        (["tiny.toml", "--name", ""], "--name: found ''"),
        (["tiny.toml", "--name", "latest"], "not 'latest'"),
        (["tiny.toml", "--name", "x" * 65], "at most 64 characters"),
    ],
)
def test_what_is_refused_before_anything_is_written(cmbench, home, arguments, says):
    refused = cmbench("run", *arguments, "--foreground")
    assert (refused.code, refused.out) == (2, "")
    assert says in refused.err
    assert refused.err.count("\n") == 1
    assert not (home / "runs").exists()


def test_a_teacher_that_was_the_latest_run_stays_the_teacher(cmbench, home, teacher, mine):
    """@latest now means the run itself, and the teacher may be gone: the run keeps its copy."""
    own = ["objective={kind='cd'}", "teacher.kind=run", "teacher.run=@latest"]
    assert cmbench(*OR_RESUME, *set_options(own)).code == 0
    done = cmbench(*OR_RESUME, *set_options(own))
    assert (done.code, done.err) == (0, "")
    by_prefix = cmbench(*OR_RESUME, *set_options([*own[:2], f"teacher.run={teacher.name[:6]}"]))
    assert by_prefix.code == 0
    other = cmbench(*OR_RESUME, *set_options([*own[:2], "teacher.run=other"]))
    assert other.code == 5
    assert f"teacher.run is '{teacher.name}' there and 'other' here" in other.err


@pytest.mark.long
def test_a_detached_run_of_a_name_is_taken_up(home, mine):
    detached = [*COMMAND, *OR_RESUME[:-2], "--or-resume", "--detach"]
    for told in ("mine\n", "mine: finished at step 12 already (cmbench sample mine)\n"):
        done = subprocess.run(detached, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
        until(lambda: status.read(mine)["state"] == "finished")
    status.write(mine, {**(read_json(mine.status) or {}), "state": "stopped"})
    done = subprocess.run(detached, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "mine\n")
    until(lambda: status.read(mine)["state"] == "finished")
    assert status.read(mine)["segment"] == 2


@pytest.mark.parametrize(
    ("kind", "seen", "leave"), [("dumb", "step 10/", "\x03l\n"), ("xterm-256color", "tangent norm", "q")]
)
def test_a_run_of_a_name_is_followed_on_a_terminal(home, mine, cmbench, kind, seen, leave):
    for segment in (1, 2):
        terminal = Terminal("run", "tiny.toml", "--name", "mine", "--or-resume", *set_options(LONG), kind=kind)
        until(lambda segment=segment: mine.status.exists() and status.read(mine).get("segment") == segment)
        terminal.read_until(seen if segment == 1 or kind != "dumb" else "resumed after step")
        for key in leave:
            terminal.type(key)
            if key == "\x03":
                terminal.read_until("[l]eave")
        terminal.read_until("left running: cmbench watch mine")
        assert terminal.exit_code() == 0
        os.close(terminal.end)
        assert cmbench("stop", "mine").code == 0
    assert [run.name for run in all_runs(home / "runs")] == ["mine"]


def test_a_child_gets_a_name_too(cmbench, trained, mine):
    child = ["run", "--from", trained.name, "--set", "train.steps=15", "--name", "mine", "--foreground"]
    assert cmbench(*child).code == 0
    assert read_json(mine.meta)["parent"]["run"] == trained.name
    assert cmbench(*child).code == 5
