"""The data that a checkpoint is measured against, compared with its training data. No torch."""

from collections.abc import Mapping
from typing import Any

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.arrays import choice
from cmbench.errors import ConflictError
from cmbench.pictures import listing, packed
from cmbench.rundir import fingerprints, places
from cmbench.rundir.fields import text
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address


def content(run: RunDir, step: int, given: Mapping[str, str], other_data: bool) -> tuple[str, str]:
    """Return what identifies the current data, from files and run, and how they differ from the training data.

    Each is empty if it is not known, or if nothing differs.

    Missing files, and files without consent to read them, are taken as unchanged: the recorded facts stay valid.

    Args:
        run: the run.
        step: of the checkpoint.
        given: new places from the command.
        other_data: whether the data may differ from the training data.

    Raises:
        ConflictError: the data differ, and may not.
    """
    then = fingerprints.recorded(run, step)
    known = text(then.get("content")) or ""
    consent.moved(given)
    table = places.in_force(run, recipes.load(run.recipe).tables(), given)["data"]
    now = _look(table) if consent.may_look(table, listing.ROOT if table.get("kind") == "images" else None) else None
    if now is None:
        return known, ""
    if not fingerprints.differs(known, now.content):
        return now.content, ""
    why = fingerprints.difference(then, fingerprints.of_files(then, now.content, now.pictures, now.names))
    if not other_data:
        raise _others(run, why)
    return now.content, why


def _look(table: Mapping[str, Any]) -> listing.Found | None:
    """Look at the files that a run's [data] names; None if they are missing, or if it names none."""
    kind = table.get("kind")
    if kind == "arrays":
        found = choice.look(table)
        return None if found is None else listing.Found(*found)
    if kind == "edm":
        pictures = packed.look(table)
        return None if pictures is None else listing.Found(*pictures)
    return listing.look(table)


def _others(run: RunDir, why: str) -> ConflictError:
    """Return the refusal to measure a run against data other than its training data."""
    again = f"cmbench eval {address(run)}"
    return ConflictError(
        f"{run.name}: its data have changed: {why} (if the former data are elsewhere: {again} --set "
        f"data.root=FOLDER; to measure against these: {again} --other-data)"
    )
