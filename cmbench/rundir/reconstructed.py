"""Averages that `cmbench ema` has made of kept ones: where they lie, and which belong to a checkpoint. No torch."""

import os
from pathlib import Path

from cmbench.rundir import checkpoints
from cmbench.rundir.checkpoints import AVERAGE
from cmbench.rundir.fields import table
from cmbench.rundir.layout import RECONSTRUCTED, ReconstructedAverages, RunDir


def place(run: RunDir, length: str) -> ReconstructedAverages:
    """Return where reconstructed averages of a length lie, e.g. "0.02"."""
    return ReconstructedAverages(run.path, length)


def folder(run: RunDir, step: int, group: str) -> Path:
    """Return the folder of a reconstructed average, given by its group of tensors."""
    return place(run, group.removeprefix(AVERAGE)).checkpoint(step)


def checksums(run: RunDir, step: int) -> dict[str, str] | None:
    """Return the SHA-256 of each group of a checkpoint, and of the averages reconstructed for it, after its own.

    Those of an abandoned checkpoint of the same step do not belong to it. None if its state.json is broken.
    """
    own = checkpoints.checksums(run, step)
    return None if own is None else {**own, **_made(run, step, own)}


def _made(run: RunDir, step: int, own: dict[str, str]) -> dict[str, str]:
    """Return the SHA-256 of the averages that were made for a checkpoint, shortest first."""
    found = {}
    for length in sorted(_lengths(run), key=float):
        state, why = checkpoints.state(place(run, length), step)
        group = f"{AVERAGE}{length}"
        is_of_it = not why and table(state.get("told")).get("model") == own.get("model", "")
        if is_of_it and group in state["sha256"] and group not in own:
            found[group] = state["sha256"][group]
    return found


def _lengths(run: RunDir) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(run.averages / RECONSTRUCTED)]
    except OSError:
        return []
    return [name for name in names if checkpoints.number(name) is not None]
