"""Settings that a run was given while it trained: which have led to a checkpoint, and which come after it.

They stand in the journal as answered requests, {"kind": "request", "action": "set", "result": "done", "settings": ...},
and hold from the step after theirs.
"""

from collections.abc import Iterable
from typing import Any

from cmbench.rundir.fields import whole
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import OPENING, parts, that_count


def read(run: RunDir) -> list[Row]:
    """Return the rows of a run's journal that tell of settings, and those that open segments."""
    return Tail(run.events, [OPENING, b'"settings"']).read()


def is_setting(row: Row) -> bool:
    """Return whether a row of the journal is a setting that was made."""
    made = row.get("kind") == "request" and row.get("action") == "set" and row.get("result") == "done"
    kinds = {"settings": dict, "id": str}
    whole_step = whole(row.get("step")) is not None
    return made and whole_step and all(isinstance(row.get(key), kind) for key, kind in kinds.items())


def in_force(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the settings of a run that differ from its recipe by now, such as {"optimizer.lr": 1e-4}.

    Args:
        rows: of the journal, with those that were superseded and those that open segments.
    """
    return {key: value for _, key, value in course(rows)}


def course(rows: Iterable[Row]) -> list[tuple[int, str, Any]]:
    """Return what a run was given in its order: the step after which it holds, the key, the value. Rows as above."""
    made = filter(is_setting, that_count(rows))
    return [(row["step"], key, value) for row in made for key, value in row["settings"].items()]


def at(rows: Iterable[Row], step: int) -> tuple[list[Row], list[Row]]:
    """Split all settings of a run at the checkpoint of a step: those in force there, and those to be made again.

    Args:
        rows: of the journal, with those that were superseded and those that open segments.
        step: from which the run is resumed.

    Returns:
        Both in the order in which they are made. A setting that has been made in several segments is there once, one
        of steps that a later segment abandons not at all.
    """
    rows = list(rows)
    made: dict[tuple[str, int], Row] = {}
    for part in parts(rows):
        if part.abandons:
            made = {key: other for key, other in made.items() if part.spares(other)}
        for row in filter(is_setting, part.rows):
            if not row.get("replayed"):
                made = {_key(other): other for other in without_keys_of(row, made.values())}
            made[_key(row)] = row  # one that was made before keeps its place
    counts = {_key(row) for row in that_count([*rows, {"first_step": step + 1}]) if is_setting(row)}
    ordered = sorted(made.values(), key=lambda row: row["step"])
    return [row for row in ordered if _key(row) in counts], [row for row in ordered if _key(row) not in counts]


def _key(setting: Row) -> tuple[str, int]:
    """Return what stays the same when a setting is made again. The id alone is what someone called a file."""
    return setting["id"], setting["step"]


def without_keys_of(setting: Row, others: Iterable[Row]) -> list[Row]:
    """Let a new setting replace, for its keys, those of later steps, which an earlier segment was given."""
    left = []
    for other in others:
        if other["step"] > setting["step"]:
            kept = {key: value for key, value in other["settings"].items() if key not in setting["settings"]}
            other = {**other, "settings": kept}
        if other["settings"]:
            left.append(other)
    return left
