"""Trainers as processes of their own: killed, stopped, left alone by a terminal that goes away."""

import fcntl
import os
import random
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from fake_runs import read_rows
from tiny import TINY, set_options
from waiting import PATIENCE, until

from cmbench import consent
from cmbench.engine import checkpoint, runner
from cmbench.rundir import control, status
from cmbench.rundir.files import read_json, write_atomically
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.select import all_runs

COMMAND = [sys.executable, "-m", "cmbench"]
LONG = ["train.steps=100000000", "log.every=10", "snapshot.every=0", "evaluate.every=0", "profile.every=0"]
LONG += ["checkpoint.every=0"]


def start_detached(*arguments: str) -> RunDir:
    done = subprocess.run([*COMMAND, *arguments, "--detach"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (name,) = done.stdout.split()
    return RunDir(Path("runs") / name)


def kill(run: RunDir) -> None:
    """End the run's trainer at once, if it is a process of its own and still the one that wrote the status."""
    now = read_json(run.status) or {}
    try:
        process = psutil.Process(now["pid"])
        if now["pid"] != os.getpid() and abs(process.create_time() - now["pid_start"]) < 1:
            process.send_signal(signal.SIGKILL)
    except (psutil.Error, KeyError):
        return


def is_at_rest(run: RunDir) -> bool:
    return not status.is_live(run)


@pytest.fixture(autouse=True)
def _none_left(home: Path, put_back: None) -> Iterator[None]:
    yield
    for run in all_runs(home / "runs"):
        kill(run)


class Terminal:
    """A command that runs on a terminal of its own, by default one that shows lines alone."""

    def __init__(self, *arguments: str, kind: str = "dumb") -> None:
        self.end, self._kept = os.openpty()  # kept open: a terminal that closes may lose its last characters
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self._kept)
        environment = {**os.environ, "TERM": kind}
        self.process = subprocess.Popen([*COMMAND, *arguments], **streams, env=environment, preexec_fn=self._lead)
        self.text = ""

    @staticmethod
    def _lead() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def read_until(self, wanted: str) -> str:
        until(lambda: wanted in self.text or not self._read(), lambda: self.text)
        assert wanted in self.text
        return self.text

    def _read(self) -> bool:
        """Read what there is; return whether more may come."""
        if select.select([self.end], [], [], 0.1)[0]:
            self.text += os.read(self.end, 65536).decode(errors="replace")
            return True
        return self.process.poll() is None

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def exit_code(self) -> int:
        os.close(self._kept)
        return self.process.wait(PATIENCE)


# Trains no further than the step in the file `held`, so that a kill never comes too late.
HELD = """
import time
from pathlib import Path

from cmbench.objectives import ct

class Config(ct.Config):
    pass

class Held(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        while step >= int(Path("held").read_text()):
            time.sleep(0.01)
        return super().loss(model, x_0, labels, step, random)
"""


def test_a_run_killed_three_times_ends_like_one_that_was_left_alone(home):
    (home / "own_held.py").write_text(HELD)
    (home / "tiny.toml").write_text(TINY.replace('kind = "ct"', 'kind = "own_held:Held"'))
    held = home / "held"
    held.write_text("150")
    overrides = ["train.steps=150", "checkpoint.every=1", "snapshot.every=0", "evaluate.every=0", "log.every=2"]
    unbroken = runner.create(consent.named(home / "tiny.toml", overrides), home / "unbroken", [])
    list(unbroken.records())

    chance = random.Random(0)
    write_atomically(held, b"50")
    run = start_detached("run", "tiny.toml", *set_options(overrides))
    segments = 1
    for lowest in (1, 15, 30):
        wanted = lowest + chance.randrange(10)
        until(lambda wanted=wanted: (steps_of_checkpoints(run) or [0])[-1] >= wanted)
        time.sleep(chance.uniform(0, 0.03))
        kill(run)
        until(lambda: is_at_rest(run))
        assert status.read(run)["state"] == "crashed"
        assert steps_of_checkpoints(run)[-1] < 150
        assert start_detached("resume", run.name).name == run.name
        segments += 1
    write_atomically(held, b"150")
    until(lambda: is_at_rest(run))
    assert status.read(run)["state"] == "finished"

    mine, theirs = checkpoint.load(run, 150), checkpoint.load(unbroken.run, 150)
    assert set(mine) == set(theirs)
    for group, tensors in theirs.items():
        assert all(torch.equal(mine[group][name], tensor) for name, tensor in tensors.items()), group
    losses = [(row["step"], row["loss"]) for row in read_rows(run.metrics)]
    assert losses == [(row["step"], row["loss"]) for row in read_rows(unbroken.run.metrics)]
    assert {row["segment"] for row in read_rows(run.metrics)} <= set(range(1, segments + 1))
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.long) for name in ("SIGUSR1", "SIGUSR2", "SIGXCPU"))]
)
def test_a_foreground_trainer_stops_on_a_signal_with_a_checkpoint(home, name):
    process = subprocess.Popen([*COMMAND, "run", "tiny.toml", *set_options(LONG)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(" step 10/" in line for line in process.stdout)
    process.send_signal(signal.Signals[name])
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(PATIENCE) == 75
    (run,) = all_runs(home / "runs")
    now = status.read(run)
    assert now["state"] == "stopped"
    assert now["checkpoint"] == now["step"] == steps_of_checkpoints(run)[-1]
    assert f"stopped at step {now['step']}: cmbench resume {run.name}" in rest
    assert read_rows(run.events)[-1]["reason"] == name
    resumed = runner.resume(run)
    resumed.close()
    assert resumed.trainer.state.step == now["step"]


def test_ctrl_c_and_l_leave_a_run_to_itself_until_it_is_asked_to_stop(home, cmbench):
    terminal = Terminal("run", "tiny.toml", *set_options(LONG))
    terminal.read_until("step 10/")
    terminal.type("\x03")
    terminal.read_until("[l]eave")
    terminal.type("l\n")
    terminal.read_until("left running: cmbench watch")
    assert terminal.exit_code() == 0
    os.close(terminal.end)
    (run,) = all_runs(home / "runs")
    before = status.read(run)
    assert before["state"] == "running"
    until(lambda: status.read(run)["step"] > before["step"])

    assert "running" in cmbench("ls").out
    again = cmbench("resume", run.name)
    assert again.code == 5
    assert again.err == f"cmbench: {run.name}: is running (cmbench watch {run.name})\n"

    watcher = Terminal("watch", run.name, "--plain", "-n", "1")
    watcher.read_until("images/s")
    stopped = cmbench("stop", run.name)
    assert stopped.code == 0
    assert "stopped at step" in stopped.out
    watcher.read_until("stopped at step")
    assert watcher.exit_code() == 0
    os.close(watcher.end)
    now = status.read(run)
    assert now["state"] == "stopped"
    assert steps_of_checkpoints(run) == [now["step"]]
    kinds = [row["kind"] for row in read_rows(run.events)]
    assert kinds == ["started", "request", "checkpoint", "stopped"]
    assert not list(run.control.iterdir())
    assert "step 10/" in run.console.read_text()


def test_a_dashboard_that_is_left_leaves_the_trainer_running(home):
    terminal = Terminal("run", "tiny.toml", *set_options(LONG), kind="xterm-256color")
    terminal.read_until("tangent norm")  # a chart: rows have come
    terminal.type("q")
    terminal.read_until("left running: cmbench watch")
    assert terminal.exit_code() == 0
    os.close(terminal.end)
    (run,) = all_runs(home / "runs")
    before = status.read(run)
    assert before["state"] == "running"
    until(lambda: status.read(run)["step"] > before["step"])


def test_settings_are_refused_before_anything_is_trained(home, monkeypatch):
    monkeypatch.setenv("CMBENCH_CONFIG", str(home / "config.toml"))
    (home / "config.toml").write_text('theme = "blue"\n')
    terminal = Terminal("run", "tiny.toml", kind="xterm-256color")
    terminal.read_until("theme: found 'blue'")
    assert terminal.exit_code() == 2
    os.close(terminal.end)
    assert all_runs(home / "runs") == []


@pytest.mark.parametrize(("kind", "seen"), [("dumb", "step 10/"), ("xterm-256color", "tangent norm")])
def test_a_closed_terminal_does_not_end_the_trainer(home, kind, seen):
    terminal = Terminal("run", "tiny.toml", *set_options(LONG), kind=kind)
    terminal.read_until(seen)
    os.close(terminal.end)
    assert terminal.exit_code() != 0
    (run,) = all_runs(home / "runs")
    before = status.read(run)
    assert os.getsid(before["pid"]) == before["pid"]
    until(lambda: status.read(run)["step"] > before["step"])
    control.request(run, "stop")
    until(lambda: is_at_rest(run))
    assert status.read(run)["state"] == "stopped"
    assert steps_of_checkpoints(run)[-1] > before["step"]


def test_a_refused_recipe_is_one_line_on_the_terminal_too(home):
    terminal = Terminal("run", "tiny.toml", "--set", "network.kind=unet")
    text = terminal.read_until("allowed for points: 'mlp'\r\n")
    assert terminal.exit_code() == 2
    os.close(terminal.end)
    sign, refusal, _ = text.split("\r\n")
    assert sign.startswith("tiny.toml: starting")
    assert refusal.startswith("cmbench: tiny.toml: network.kind: found 'unet'")
    assert not (home / "runs").exists()


def test_views_do_not_import_torch(trained):
    script = """
import contextlib, io, sys
from cmbench.cli import main
commands = ["--help", "--version", "ls", "ls --json", "show", "show --json", "watch", "recipe list", "recipe --help"]
commands += [f"{name} --help" for name in ("run", "resume", "watch", "ls", "show", "sample", "stop", "ablate")]
commands += [f"{name} @latest" for name in ("pause", "continue", "checkpoint", "snapshot")]
commands += ["set @latest optimizer.lr=1e-4"]
commands += ["stop @latest", "resume @latest", "sample nothing", "run nothing", "run tiny.toml --set train.steps=0"]
for command in commands:
    sys.argv = ["cmbench", *command.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main.exit_code()
    heavy = {"torch", "torchvision", "sklearn", "scipy", "pandas"} & set(sys.modules)
    print(command, code, sorted(heavy), sep="|")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    answers = [line.split("|") for line in done.stdout.splitlines()]
    assert len(answers) == 27
    assert {heavy for _, _, heavy in answers} == {"[]"}
    codes = {command: int(code) for command, code, _ in answers}
    assert [codes[c] for c in ("ls", "show", "watch", "recipe list")] == [0, 0, 0, 0]
    assert {codes[c] for c in codes if c.endswith("@latest") or c.startswith("set ")} == {5}
    assert codes["sample nothing"] == 4
    assert {code for command, code in codes.items() if command.startswith("--") or command.endswith("--help")} == {0}


def test_python_m_cmbench_prints_its_version():
    from cmbench import __version__

    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"cmbench {__version__}\n", "")
