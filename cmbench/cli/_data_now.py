"""The data that a checkpoint is measured against, beside those that it was trained on. No torch."""

from collections.abc import Mapping

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.errors import ConflictError
from cmbench.pictures import listing
from cmbench.rundir import fingerprints, places
from cmbench.rundir.fields import text
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address


def content(run: RunDir, step: int, given: Mapping[str, str], other_data: bool) -> tuple[str, str]:
    """Return what tells the data of now from others, as files and run tell, and in what they differ from before.

    Each is empty where it is not known, or nothing differs.

    Files that are not there at all, or that nobody consented to look at, are taken for those of before: what was found
    of them stays true.

    Args:
        run: the run.
        step: of the checkpoint.
        given: places that the command names anew.
        other_data: the data may be others than those that it was trained on.

    Raises:
        ConflictError: they are others, and may not be.
    """
    then = fingerprints.recorded(run, step)
    known = text(then.get("content")) or ""
    consent.moved(given)
    table = places.in_force(run, recipes.load(run.recipe).tables(), given)["data"]
    now = listing.look(table) if consent.may_look(table, listing.ROOT) else None
    if now is None:
        return known, ""
    if not fingerprints.differs(known, now.content):
        return now.content, ""
    why = fingerprints.difference(then, fingerprints.of_files(then, now.content, now.pictures, now.names))
    if not other_data:
        raise _others(run, why)
    return now.content, why


def _others(run: RunDir, why: str) -> ConflictError:
    """Return the refusal to measure a run against data that are others than those that it was trained on."""
    again = f"cmbench eval {address(run)}"
    return ConflictError(
        f"{run.name}: its data are others now: {why} (where those of before are elsewhere: {again} --set "
        f"data.root=FOLDER; to measure against these: {again} --other-data)"
    )
