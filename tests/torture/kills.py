"""SIGKILL before each file operation of a run and of a resume, or in the middle of a write."""

import os
import random
import signal
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced, sampled
from torture._operations import Operation

STARTS = (None, "stopped", "killed")  # a new run, or the resume of one


class Kill(NamedTuple):
    """A kill before the operation of a number, or with half of its bytes written."""

    start: str | None
    number: int
    torn: bool
    kind: str


def cases(count: int, seed: int) -> list[Kill]:
    found = []
    for start in STARTS:
        for operation in _runs.operations(start):
            found.append(Kill(start, operation.number, False, f"{operation.kind} {operation.path}"))
            if operation.kind == "write" and len(operation.data) > 1:
                found.append(Kill(start, operation.number, True, f"half of write {operation.path}"))
    return sampled(found, count, random.Random(seed))


def check(case: Kill) -> str:
    def kill(operation: Operation) -> None:
        if operation.number == case.number:
            if case.torn:
                os.write(operation.fd, operation.data[: len(operation.data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    with _commands.workplace(case.start and _runs.templates() / case.start) as folder:
        ended = _runs.attempt(folder, case.start, kill)
        if ended.code != -signal.SIGKILL:
            return f"it was not killed, but ended with {ended.code}: {ended.err[-200:]}"
        return _runs.taken_up(folder)


def spoilt():
    """Flip one bit of what a resume loads."""
    from cmbench.engine.state import State

    load = State.load

    def wrong(self, step, groups):
        load(self, step, groups)
        first = next(self.model.parameters()).data.view(-1)
        first[:1].copy_(first[:1].nextafter(first.new_tensor([9.0])))

    return replaced(State, "load", wrong)


ATTACK = Attack(
    "kills",
    "A run that is killed at any instant is resumed as if nothing had happened: its weights and rows are equal bit for "
    "bit, and nothing is left behind.",
    tries=300,
    short=2,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="differs from an unbroken run",
)
