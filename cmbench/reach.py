"""Which files the [data] of a recipe may use, and whether they are downloaded: as the user named, or consented to.

A run's recipe is only data. Its `root` and `download` are requests: to walk a folder, to make folders, to use the
network. They are granted if this user started a run with them, or typed them, or by --trust. Otherwise data are read
from their default place, and nothing is downloaded.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmbench.errors import UsageError
from cmbench.text import shown
from cmbench.trusted import Trusted

_named: set[str] = set()  # roots; "" stands for the default


def forget() -> None:
    """Forget what this process may read."""
    _named.clear()


def typed(tables: Mapping[str, Any]) -> None:
    """Allow this process the root that tables name, if any: as it is, and without .., as a new run writes it down."""
    if isinstance(root := _of(tables).get("root"), str):
        place = _absolute(root)
        _named.update((place, os.path.normpath(place)))


def named(tables: Mapping[str, Any]) -> None:
    """Allow this process the root of a recipe that the user named, even if it is the default."""
    typed(tables)
    if "root" not in _of(tables):
        _named.add("")


def remember(tables: Mapping[str, Any]) -> None:
    """Allow the root of a complete recipe from now on, because the user started a run with it."""
    if isinstance(root := _of(tables).get("root"), str):
        _trusted(_of(tables), root).keep(f"data {_absolute(root)}")


def allows(data: Mapping[str, Any], default: str | None) -> bool:
    """Return whether the root of a recipe's [data] is the default, or the user named it or consented to it."""
    root, place = data["root"], _absolute(data["root"])
    return place in _named or _is(place, default) or _trusted(data, root).is_kept()


def granted(data: Mapping[str, Any], default: str | None, trusting: bool) -> dict[str, Any]:
    """Return replacements for settings of a data set: no download, if there is no consent to it.

    Args:
        data: a complete recipe's [data], with a root.
        default: root if none is given; None for data that must be given one.
        trusting: whether --trust was given.

    Raises:
        UsageError: the root is not the default, and there is no consent to it.
    """
    root, place = data["root"], _absolute(data["root"])
    is_default = _is(place, default)
    trusted = _trusted(data, root)
    if place in _named or (is_default and "" in _named) or trusted.is_kept():
        return {}
    if trusting:
        print(f"cmbench: trusting data.root {shown(root, 200)}", file=sys.stderr, flush=True)
        trusted.keep(f"data {place}")
        return {}
    if not is_default:
        raise UsageError(
            f"data.root: found {shown(root, 200)}, which is not trusted: no run was started here with it; check it, "
            "then give --trust to read it (remembered)"
        )
    return {"download": False} if data.get("download") else {}


def _of(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    return data if isinstance(data := tables.get("data"), Mapping) else {}


def _is(place: str, default: str | None) -> bool:
    return default is not None and place == _absolute(default)


def _trusted(data: Mapping[str, Any], root: str) -> Trusted:
    return Trusted([b"data", str(data.get("name")).encode(), os.fsencode(_absolute(root))])


def _absolute(root: str) -> str:
    try:
        return str(Path(root).expanduser().absolute())
    except RuntimeError:  # no home folder
        return root
