"""Selection of a run's checkpoint, and of an average of the weights in it. No torch."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cmbench.errors import NotFoundError, UsageError
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.segments import newest
from cmbench.text import shown

SCHEMA = 2  # of state.json; the first had no checksum of its own
AVERAGE = "ema_"  # the name of an average's group of tensors begins with it
_LENGTH = re.compile(r"(?=.{1,32}$)([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?")
GROUP = rf"model|objective|optimizer|means|profile|{AVERAGE}[0-9.e+-]{{1,32}}"  # names of groups


def choose(run: RunDir, wanted: str = "latest") -> int:
    """Return the step of the checkpoint that `wanted` means: "latest", "best" or a step.

    Raises:
        UsageError: `wanted` is none of the three.
        NotFoundError: the run has no such checkpoint.
    """
    steps = steps_of_checkpoints(run)
    if wanted not in ("latest", "best") and not re.fullmatch("[0-9]{1,18}", wanted):
        raise UsageError(f"--checkpoint: found {shown(wanted)}, allowed: a step, best or latest")
    if not steps:
        raise NotFoundError(f"{run.name}: no checkpoint yet")
    if wanted == "latest":
        return steps[-1]
    found = _best(run, steps) if wanted == "best" else int(wanted)
    if found not in steps:
        what = "no best checkpoint, since none was evaluated" if found is None else f"no checkpoint at step {found}"
        raise NotFoundError(f"{run.name}: {what}, allowed: {', '.join(map(str, steps))}")
    return found


def last(run: RunDir) -> int:
    """Return the step of the newest checkpoint, damaged or not; 0 if there is none."""
    return max(steps_of_checkpoints(run), default=0)


def sealed(state: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a state.json with its own checksum added."""
    return {**state, "checksum": _seal(state)}


def state(run: RunDir, step: int) -> tuple[dict[str, Any], str]:
    """Return the content of a checkpoint's state.json, and what is wrong with it (empty if nothing)."""
    found = read_json(run.checkpoint(step) / "state.json") or {}
    groups, seal = found.get("sha256"), found.pop("checksum", None)
    if not isinstance(groups, dict) or not run.needs <= groups.keys():
        return found, "missing or broken"
    if seal != _seal(found) and (seal is not None or found.get("schema", 1) != 1):  # the first schema had no checksum
        return found, "damaged: it differs from its own checksum"
    if not all(re.fullmatch(GROUP, name) and isinstance(own, str) for name, own in groups.items()):
        return found, "damaged: it names what no checkpoint has"
    if found.get("step", step) != step:
        return found, f"damaged: it is of step {shown(found['step'], 20)}"
    return found, ""


def checksums(run: RunDir, step: int) -> dict[str, str] | None:
    """Return the SHA-256 of each group of tensors of a checkpoint, or None if its state.json is broken."""
    found, why = state(run, step)
    return None if why else found["sha256"]


def _seal(state: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(state, in_order=True)).hexdigest()


def averages(groups: Iterable[str]) -> list[str]:
    """List the lengths of the averages among groups of tensors, in the recipe's order, e.g. ["0.999"]."""
    return [name.removeprefix(AVERAGE) for name in groups if name.startswith(AVERAGE)]


def ema_name(wanted: str, lengths: Sequence[str], key: str = "--ema") -> str:
    """Return the name of the wanted average: one of a checkpoint's lengths or "none"; "" means the first.

    A length may be written in another way: 0.10 means "0.1".

    Raises:
        UsageError: there is no such average; messages call `wanted` by `key`.
    """
    names = [*lengths, "none"]
    if wanted not in names and (meant := number(wanted)) is not None:
        wanted = next((name for name in lengths if number(name) == meant), wanted)
    if wanted and wanted not in names:
        raise UsageError(f"{key}: found {shown(wanted)}, allowed: {', '.join(names)}")
    return wanted or names[0]


def number(length: str) -> float | None:
    """Return a length as a number; None if it is none."""
    return float(length) if _LENGTH.fullmatch(length) else None


def group_of(ema: str) -> str:
    """Return the group of tensors of an average, or of the raw weights for "none"."""
    return "model" if ema == "none" else f"{AVERAGE}{ema}"


def _best(run: RunDir, steps: list[int]) -> int | None:
    """Return the step that the journal last called best, among the existing ones."""
    rows = (row for row in newest(run.events) if row.get("kind") == "checkpoint" and row.get("best"))
    return next((row["step"] for row in rows if row["step"] in steps), None)
