"""A file operation fails: the disk is full, the quota is used up, the device has an error; once, or from then on."""

import errno
import json
import os
import random
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced, sampled
from torture._operations import Operation

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
HOWS = ("once", "from then on", "short")  # short: half of a write is made, and no more from then on
KINDS = ("write", "fsync", "rename", "open", "mkdir")


class Fault(NamedTuple):
    """An error in place of the operation of a number."""

    start: str | None
    number: int
    code: int
    how: str
    kind: str


def cases(count: int, seed: int) -> list[Fault]:
    chance = random.Random(seed)
    found = []
    for start in (None, "killed"):
        for operation in _runs.operations(start):
            if operation.kind in KINDS:
                how = chance.choice(HOWS if operation.kind == "write" else HOWS[:2])
                name = f"{operation.kind} {operation.path}"
                found.append(Fault(start, operation.number, chance.choice(ERRORS), how, name))
    return sampled(found, count, chance)


def check(case: Fault) -> str:
    half: list[int] = []

    def fail(operation: Operation) -> int | None:
        hit = operation.number == case.number or (case.how != "once" and operation.number > case.number)
        if not hit or operation.kind not in KINDS:
            return None
        if case.how == "short" and not half and operation.kind == "write":
            half.append(1)
            return len(operation.data) // 2
        raise OSError(case.code, os.strerror(case.code), operation.path)

    with _commands.workplace(case.start and _runs.templates() / case.start) as folder:
        return _judged(case, folder, _runs.attempt(folder, case.start, fail))


def _judged(case: Fault, folder: Path, ended: _commands.Ended) -> str:
    runs = folder / "runs"
    # A write that is cut short does not say why.
    reasons = [os.strerror(code) for code in (ERRORS if case.how == "short" else (case.code,))]
    if wrong := _commands.complaint(ended, {0, 2, 75}):
        return wrong
    if ended.code and not _names(reasons, ended.err):
        return f"exit code {ended.code} without the reason on the terminal: {ended.err[-200:]!r}"
    state = _state(folder)
    if ended.code == 2 and not case.start and state != "none":
        return f"exit code 2 and a run that is {state}"
    if ended.code == 75 and case.how == "once" and state != "stopped":
        return f"exit code 75 and the run is {state}"
    if ended.code == 0 and (case.how == "once") and state != "finished":
        return f"exit code 0 and the run is {state}"
    if ended.code and (wrong := _continued(folder, state)):
        return wrong
    (run,) = _runs.runs_of(runs)
    return _losses(run, ended, reasons) or ("" if ended.code == 0 else _runs.debris(runs))


def _state(folder: Path) -> str:
    found = json.loads(_commands.cmbench(folder, "ls", "--json").out)["runs"]
    return found[0]["state"] if found else "none"


def _names(reasons: list[str], text: str) -> bool:
    return any(reason in text for reason in reasons)


def _continued(folder: Path, state: str) -> str:
    """Let there be space again, and bring the run to its end."""
    if state == "none":
        return _commands.complaint(_runs.train(folder), {0})
    (run,) = _runs.runs_of(folder / "runs")
    return _commands.complaint(_runs.resume(folder, run), {0})


def _losses(run: Path, ended: _commands.Ended, reasons: list[str]) -> str:
    """Return what is wrong at the end: other weights, a wrong row, or a row or picture that is missing in silence."""
    mine, theirs = _runs.outcome(run), _runs.outcome(_runs.unbroken())
    weights = [key for key in theirs if key.startswith("checkpoint") and mine.get(key) != theirs[key]]
    wrong = [name for name in ("metrics", "profiles") if any(row not in theirs[name] for row in mine[name])]
    if weights or wrong:
        return f"differs from an unbroken run in {', '.join(weights + wrong)}"
    missing = [key for key in theirs if mine.get(key) != theirs[key]]
    told = any(_names(reasons, str(row.get("text"))) for row in _runs.events(run, "warning"))
    if missing and not told and not _names(reasons, ended.err):
        return f"lost in silence: {', '.join(missing)}"
    return ""


def spoilt():
    """Let each write of weights change their last bit."""
    from cmbench.engine import checkpoint

    write = checkpoint.write_tensors

    def wrong(path, tensors):
        floats = {name: t.nextafter(t + 9) for name, t in tensors.items() if t.is_floating_point()}
        return write(path, {**tensors, **floats})

    return replaced(checkpoint, "write_tensors", wrong)


ATTACK = Attack(
    "disk_faults",
    "A full disk, a used-up quota or a failing device ends a run, if at all, with exit code 75 and the reason on the "
    "terminal; when there is space again it is resumed and ends equal bit for bit, and a row or picture that could not "
    "be written is told.",
    tries=60,
    short=2,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="differs from an unbroken run",
)
