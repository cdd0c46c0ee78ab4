"""The data of a resumed run: those that it was trained on, or a refusal that names the way out."""

from collections.abc import Mapping
from typing import Any

from cmbench.contracts import Data
from cmbench.engine import build, fingerprint
from cmbench.errors import ConflictError, UsageError
from cmbench.recipe import Recipe
from cmbench.rundir import fingerprints
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address


def data_as_before(run: RunDir, recipe: Recipe, step: int | None, others_allowed: bool) -> tuple[Data, list[str]]:
    """Build the data of a run, and return them with lines for the journal.

    Args:
        run: the run.
        recipe: its own, complete, with places as they are now.
        step: of the checkpoint from which it resumes; None for the newest.
        others_allowed: the data may differ from those that it was trained on, if the network accepts them.

    Raises:
        ConflictError: the data differ, and may not.
        UsageError: the data cannot be built, because they or the device are missing.
    """
    again = f"cmbench resume {address(run)}"
    data = _built(run, recipe, again)
    then, now, meta = fingerprints.recorded(run, step), fingerprint.of(recipe, data), read_json(run.meta) or {}
    known = {**fingerprints.of_meta(meta), **then}
    why = fingerprints.difference(known, now)
    if why and (allowed := _of_network(recipe, known, now)):
        raise ConflictError(f"{run.name}: its data have changed: {why}; allowed: {allowed}, as its network has")
    if why and not others_allowed:
        moved = f"if the former data have moved: {again} --set data.root=FOLDER; " if "root" in recipe.data else ""
        raise ConflictError(
            f"{run.name}: its data have changed: {why} ({moved}to train on these from here on: {again} --other-data)"
        )
    if why:
        return data, [f"data: {why}; it is trained on these from here on, as was asked for"]
    return data, [] if then else ["data: the run had no fingerprint of its data; it is taken from the present data"]


def _built(run: RunDir, recipe: Recipe, again: str) -> Data:
    try:
        device = build.device_of(recipe.train.device)
    except UsageError as error:
        raise UsageError(f"{run.recipe}: {error} ({again} --set train.device=cpu)") from None
    try:
        return build.data(recipe, device)
    except UsageError as error:
        moved = f" (where they moved: {again} --set data.root=FOLDER)" if "data.root: no " in str(error) else ""
        raise UsageError(f"{run.recipe}: {error}{moved}") from error


def _of_network(recipe: Recipe, known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what the network requires of the data and they do not meet; empty if they fit."""
    needed = ["shape", *(["classes"] if build.is_conditional(recipe) else [])]
    wrong = [key for key in needed if key in known and known[key] != now[key]]
    return " and ".join(
        f"samples of shape {known[key]}" if key == "shape" else f"{known[key]} classes" for key in wrong
    )
