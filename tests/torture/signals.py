"""Each signal that a shell, a batch system or a crash sends, at many places of a run and of its resume."""

import os
import random
import signal
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced
from torture._operations import Operation

STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # with a checkpoint
PASSES = ("SIGCHLD", "SIGURG", "SIGWINCH", "SIGCONT", "SIGPIPE", "SIGXFSZ")  # the run goes on
ENDS = ("SIGQUIT", "SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO")
ENDS += ("SIGPWR", "SIGSYS", "SIGTRAP", "SIGSTKFLT", "SIGKILL")  # at once, as a crash


class Sent(NamedTuple):
    """A signal before the operation of a number."""

    name: str
    number: int
    start: str | None


def cases(count: int, seed: int) -> list[Sent]:
    chance = random.Random(seed)
    names = [name for name in (*STOPS, *PASSES, *ENDS) if hasattr(signal, name)]
    found = []
    for i in range(count):
        start = chance.choice((None, "killed"))
        found.append(Sent(names[i % len(names)], chance.choice(_runs.in_training(start)), start))
    return found


def check(case: Sent) -> str:
    number = getattr(signal, case.name)

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


def spoilt():
    """Let the first signal do nothing."""
    from cmbench.engine.runner import Runner

    return replaced(Runner, "request_stop", lambda self, reason: None)


ATTACK = Attack(
    "signals",
    "Signals that ask a run to end stop it with a checkpoint and exit code 75; after any other it goes on, or is "
    "resumed as if nothing had happened.",
    tries=54,
    short=4,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="exit code",
)
