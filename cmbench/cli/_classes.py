"""Classes of a run by number and by name. No torch."""

from cmbench.errors import UsageError, nearest, shown
from cmbench.rundir import fingerprints
from cmbench.rundir.layout import RunDir


def label_of(wanted: str, classes: int, names: list[str]) -> int:
    """Return the number of the class that `--label` means: its number, or the name of its folder.

    "#3" is the number and "=3" the name, where folders are called by other numbers than their own.

    Raises:
        UsageError: there is no such class, or the text means two.
    """
    by_name = names.index(wanted.removeprefix("=")) if wanted.removeprefix("=") in names else None
    digits = wanted.removeprefix("#")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else None
    if wanted.startswith("#"):
        by_name = None
    if wanted.startswith("="):
        number = None
    if number is not None and number >= classes:
        number = None
    if number is not None and by_name is not None and number != by_name:
        raise UsageError(
            f"--label: found {shown(wanted)}, the number of class {shown(names[number])} and the name of class "
            f"{by_name}; allowed: '#{digits}' for the number, '={wanted}' for the name"
        )
    found = by_name if number is None else number
    if found is None:
        some = f", or a name: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else ""
        raise UsageError(f"--label: found {shown(wanted)}, allowed: 0 to {classes - 1}{some}{nearest(wanted, names)}")
    return found


def names_of(run: RunDir, step: int, classes: int) -> list[str]:
    """Return the names of the classes that a checkpoint was trained on; an empty list where they have none."""
    names = fingerprints.names(fingerprints.recorded(run, step))
    return names if len(names) == classes else []
