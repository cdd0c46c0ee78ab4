"""The parent of a fork: which checkpoint of which run. No torch."""

import re
from dataclasses import dataclass
from typing import Any

from cmbench.errors import NotFoundError
from cmbench.rundir import checkpoints, status
from cmbench.rundir.fields import table, whole
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints


@dataclass(frozen=True)
class Parent:
    """Where a fork began: at a step of another run in the same folder."""

    run: RunDir
    step: int


def of_meta(run: RunDir, meta: dict[str, Any]) -> Parent | None:
    """Return the parent of a run, if it has one in the same folder."""
    told = table(meta.get("parent"))
    name, step = told.get("run"), whole(told.get("step"))
    if not isinstance(name, str) or step is None or not re.fullmatch(r"[^/\0]+", name) or name in (".", ".."):
        return None
    parent = RunDir(run.path.parent / name)
    return Parent(parent, step) if parent.recipe.is_file() else None


def of(run: RunDir) -> Parent | None:
    """Return the parent of a run, as `of_meta`."""
    return of_meta(run, read_json(run.meta) or {})


def split(text: str) -> tuple[str, str]:
    """Return run and step of RUN[@STEP]; without a step, "latest"."""
    match = re.fullmatch(r"(.+)@([0-9]+|best|latest)", text, re.DOTALL)
    return (match[1], match[2]) if match and match[1] != "@" else (text, "latest")


def nearest_checkpoint(run: RunDir, wanted: str) -> int:
    """Return the step of the last checkpoint up to a given step, or of "best" or "latest".

    Raises:
        NotFoundError: there is no such checkpoint.
        UsageError: `wanted` is not a step.
        ConflictError: the run was imported, and cannot be forked.
    """
    status.refuse_imported(run)
    if not re.fullmatch("[0-9]{1,18}", wanted):
        return checkpoints.choose(run, wanted)
    steps = steps_of_checkpoints(run)
    before = [step for step in steps if step <= int(wanted)]
    if not before:
        there = f"the first is at {steps[0]}" if steps else "it has none"
        raise NotFoundError(f"{run.name}: no checkpoint up to step {int(wanted)} to fork from: {there}")
    return before[-1]
