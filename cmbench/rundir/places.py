"""The places in a run's recipe as they are now: the data may have moved, and the device may have changed. No torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmbench.rundir.fields import table, text
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Tail

KEYS = ("data.root", "train.device")  # may be changed when a run is resumed

# The meaning of [data] before it had such keys. A run's recipe has every default, so one without them is older.
_BEFORE = {"images": {"reader": "torchvision", "layout": "classes"}}


def named(run: RunDir) -> dict[str, str]:
    """Return the places that resumes of a run have changed, such as {"data.root": "/new"}, from its journal."""
    found: dict[str, str] = {}
    for row in Tail(run.events, [b'"places"']).read():
        given = table(row.get("places"))
        found |= {key: given[key] for key in KEYS if isinstance(given.get(key), str)}
    return found


def in_force(run: RunDir, tables: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the tables of a run's recipe with its places as they are now.

    Args:
        run: the run.
        tables: of its recipe.toml.
        given: places that this command changes.
    """
    placed = {key: dict(value) if isinstance(value, dict) else value for key, value in tables.items()}
    data = table(placed.get("data"))
    kind = data.get("kind")
    if isinstance(kind, str):
        data = {**_BEFORE.get(kind, {}), **data}
    root, began = data.get("root"), text((read_json(run.meta) or {}).get("directory"))
    if kind == "images" and isinstance(root, str) and not root.startswith("~") and began and Path(began).is_absolute():
        data["root"] = os.path.normpath(
            Path(began) / root
        )  # in older runs it may be relative to where the run was started
    placed["data"] = data
    for key, value in {**named(run), **(given or {})}.items():
        name, _, own = key.partition(".")
        if isinstance(placed.get(name), dict) and (name != "data" or own in placed[name]):
            placed[name][own] = value
    return placed
