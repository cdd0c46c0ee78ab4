"""Each signal that a shell, a batch system or a crash sends, at many places of a run and of its resume.

Also those that ask for an end, to an ablation, whose trainers are processes of their own.
"""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _processes, _runs
from torture._attack import Attack, replaced
from torture._operations import Operation

STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # with a checkpoint
PASSES = ("SIGCHLD", "SIGURG", "SIGWINCH", "SIGCONT", "SIGPIPE", "SIGXFSZ")  # the run goes on
ENDS = ("SIGQUIT", "SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO")
ENDS += ("SIGPWR", "SIGSYS", "SIGTRAP", "SIGSTKFLT", "SIGKILL")  # at once, as a crash
ABLATION = "ablation"
ABLATE = ("ablate", "tiny.toml", "--drop", "tangent_warmup", "--jobs", "2")
ENDLESS = ("objective={kind='sct'}", "path.kind=trigflow", "train.steps=100000000", "log.every=1")
RARELY = ("snapshot.every=0", "evaluate.every=0", "profile.every=0", "checkpoint.every=0")


class Sent(NamedTuple):
    """A signal before the operation of a number; to an ablation, once its trainers train."""

    name: str
    number: int
    start: str | None


def cases(count: int, seed: int) -> list[Sent]:
    chance = random.Random(seed)
    names = [name for name in (*STOPS, *PASSES, *ENDS) if hasattr(signal, name)]
    found = [Sent(STOPS[(seed + i) % len(STOPS)], 0, ABLATION) for i in range(3, 3 + count // 18)]
    for i in range(count - len(found)):
        start = chance.choice((None, "killed"))
        found.append(Sent(names[i % len(names)], chance.choice(_runs.in_training(start)), start))
    return found


def check(case: Sent) -> str:
    number = getattr(signal, case.name)
    if case.start == ABLATION:
        return _ablation(case.name)

    def send(operation: Operation) -> None:
        if operation.number == case.number:
            os.kill(os.getpid(), number)

    with _commands.workplace(case.start and _runs.templates() / case.start) as folder:
        ended = _runs.attempt(folder, case.start, send)
        wanted = {75} if case.name in STOPS else {0} if case.name in PASSES else {-number}
        if ended.code not in wanted:
            return f"exit code {ended.code}, allowed: {wanted}: {ended.err[-200:]}"
        if case.name in STOPS:
            (run,) = _runs.runs_of(folder / "runs")
            if not _runs.events(run, "stopped"):
                return "it stopped without a word in the journal"
        return _runs.taken_up(folder)


def _ablation(name: str) -> str:
    with _commands.workplace() as folder:
        overrides = [part for override in (*ENDLESS, *RARELY) for part in ("--set", override)]

        def ablate() -> None:
            pid = os.getpid()
            threading.Thread(target=lambda: _when_two_train(folder / "runs", pid, name), daemon=True).start()
            _commands.call((*ABLATE, *overrides))

        ended = _processes.forked(ablate, folder, _commands.environment(folder), memory=None)
        try:
            return _of_trainers(folder / "runs", ended)
        finally:
            for pid in _trainers(folder / "runs"):
                os.kill(pid, signal.SIGKILL)


def _when_two_train(runs: Path, pid: int, name: str) -> None:
    while sum(bool(_runs.rows(run / "metrics.jsonl")) for run in _runs.runs_of(runs)) < 2:
        time.sleep(0.05)
    os.kill(pid, getattr(signal, name))


def _of_trainers(runs: Path, ended: _commands.Ended) -> str:
    if wrong := _commands.complaint(ended, {75}):
        return wrong
    if left := _trainers(runs):
        return f"left {len(left)} trainers behind"
    for run in _runs.runs_of(runs):
        if not _runs.events(run, "stopped") or not list((run / "checkpoints").iterdir()):
            return f"{run.name} stopped without a word in the journal, or without a checkpoint"
    return ""


def _trainers(runs: Path) -> list[int]:
    """Return the trainers that live."""
    found = [json.loads((run / "status.json").read_bytes())["pid"] for run in _runs.runs_of(runs)]
    return [pid for pid in found if Path(f"/proc/{pid}").exists()]


def spoilt():
    """Let the first signal do nothing."""
    from cmbench.engine.runner import Runner

    return replaced(Runner, "request_stop", lambda self, reason: None)


ATTACK = Attack(
    "signals",
    "Signals that ask a run or an ablation to end stop it with a checkpoint and exit code 75; after any other a run "
    "goes on, or is resumed as if nothing had happened.",
    tries=54,
    short=3,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="exit code",
)
