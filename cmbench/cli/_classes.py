"""Classes of a run by number and by name. No torch."""

import re
from typing import TYPE_CHECKING

from cmbench.errors import UsageError, did_you_mean
from cmbench.rundir import fingerprints
from cmbench.rundir.layout import RunDir
from cmbench.text import shown

if TYPE_CHECKING:
    from cmbench.engine.weights import Trained


def label_of(wanted: str, classes: int, names: list[str]) -> int:
    """Return the number of the class that `--label` means: by its number, or by the name of its folder.

    If folders are named by numbers other than their own, "#3" means the number and "=3" the name.

    Raises:
        UsageError: there is no such class, or the text is ambiguous.
    """
    refuse_negative(wanted)
    digits, name = wanted.removeprefix("#"), wanted.removeprefix("=")
    by_name = names.index(name) if name in names and not wanted.startswith("#") else None
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 16 and not wanted.startswith("=")
    number = int(digits) if is_number and int(digits) < classes else None
    if number is not None and by_name is not None and number != by_name:
        raise UsageError(
            f"--label: found {shown(wanted)}, the number of class {shown(names[number])} and the name of class "
            f"{by_name}; allowed: '#{digits}' for the number, '={wanted}' for the name"
        )
    found = by_name if number is None else number
    if found is None:
        some = f", or a name: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else ""
        found_text = wanted if is_number else shown(wanted)
        raise UsageError(f"--label: found {found_text}, allowed: 0 to {classes - 1}{some}{did_you_mean(wanted, names)}")
    return found


def wanted(label: str | None, names: list[str], trained: "Trained") -> int | None:
    """Return the class that `--label` means for trained weights; None if none is given.

    Raises:
        UsageError: as `label_of`, or the run takes no labels.
    """
    from cmbench.engine.build import is_conditional

    if label is None:
        return None
    if not is_conditional(trained.recipe):
        raise UsageError("--label: the run is unconditional (network.class_conditional = false)")
    return label_of(label, trained.classes, names)


def refuse_negative(wanted: str) -> None:
    """Refuse a label that no run can have, before a run is read. Raises UsageError."""
    if re.fullmatch("-[0-9]+|", wanted):
        raise UsageError(f"--label: found {wanted or 'nothing'}, allowed: a number from 0, or the name of a class")


def names_of(run: RunDir, step: int, classes: int) -> list[str]:
    """Return the names of the classes that a checkpoint was trained on; an empty list if they have none."""
    names = fingerprints.names(fingerprints.recorded(run, step))
    return names if len(names) == classes else []
