"""Settings that were changed while a run trained: those made before a checkpoint, and those made after it.

The journal has them as answered requests, {"kind": "request", "action": "set", "result": "done", "settings": ...}.
They hold from the step after their own.
"""

from collections.abc import Iterable
from typing import Any

from cmbench.rundir.fields import whole
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import OPENING, parts, that_count


def read(run: RunDir) -> list[Row]:
    """Return the rows of a run's journal that contain settings, and those that open segments."""
    return Tail(run.events, [OPENING, b'"settings"']).read()


def is_setting(row: Row) -> bool:
    """Return whether a row of the journal is a setting that took effect."""
    made = row.get("kind") == "request" and row.get("action") == "set" and row.get("result") == "done"
    kinds = {"settings": dict, "id": str}
    whole_step = whole(row.get("step")) is not None
    return made and whole_step and all(isinstance(row.get(key), kind) for key, kind in kinds.items())


def in_force(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the settings of a run that now differ from its recipe, such as {"optimizer.lr": 1e-4}.

    Args:
        rows: of the journal, including superseded ones and those that open segments.
    """
    return {key: value for _, key, value in course(rows)}


def steps(run: RunDir, given: int) -> int:
    """Return the number of training steps of a run whose recipe has `given`: a resume may have changed it."""
    return whole(in_force(read(run)).get("train.steps")) or given


def course(rows: Iterable[Row]) -> list[tuple[int, str, Any]]:
    """Return the settings of a run in order: (step after which it holds, key, value). Rows as for `in_force`."""
    made = filter(is_setting, that_count(rows))
    return [(row["step"], key, value) for row in made for key, value in row["settings"].items()]


def at(rows: Iterable[Row], step: int) -> tuple[list[Row], list[Row]]:
    """Split all settings of a run at the checkpoint of a step: those in force there, and those to be made again.

    Args:
        rows: of the journal, including superseded ones and those that open segments.
        step: from which the run is resumed.

    Returns:
        Both lists in the order in which the settings are made. A setting made in several segments appears once. A
        setting of steps that a later segment abandons does not appear.
    """
    rows = list(rows)
    made: dict[tuple[str, int], Row] = {}
    for part in parts(rows):
        if part.abandons:
            made = {key: other for key, other in made.items() if part.spares(other)}
        for row in filter(is_setting, part.rows):
            if not row.get("replayed"):
                made = {_key(other): other for other in without_keys_of(row, made.values())}
            made[_key(row)] = row  # an earlier setting keeps its place
    counts = {_key(row) for row in that_count([*rows, {"first_step": step + 1}]) if is_setting(row)}
    ordered = sorted(made.values(), key=lambda row: row["step"])
    return [row for row in ordered if _key(row) in counts], [row for row in ordered if _key(row) not in counts]


def _key(setting: Row) -> tuple[str, int]:
    """Return what identifies a setting when it is made again. The id alone is only the name of a file."""
    return setting["id"], setting["step"]


def without_keys_of(setting: Row, others: Iterable[Row]) -> list[Row]:
    """Remove the keys of a new setting from settings of later steps, which an earlier segment had."""
    left = []
    for other in others:
        if other["step"] > setting["step"]:
            kept = {key: value for key, value in other["settings"].items() if key not in setting["settings"]}
            other = {**other, "settings": kept}
        if other["settings"]:
            left.append(other)
    return left
