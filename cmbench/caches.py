"""Where things lie that can be made again: decoded pictures, and what was found by looking through long arrays."""

import os
from pathlib import Path

PLACE = "CMBENCH_CACHE_DIR"


def folder(kind: str) -> Path:
    """Return the folder of one kind of things, such as "pictures".

    It is in CMBENCH_CACHE_DIR, else in cmbench/ of an absolute XDG_CACHE_HOME or of ~/.cache.

    Raises:
        RuntimeError: there is no home folder.
    """
    if given := os.environ.get(PLACE):
        return Path(given).expanduser().absolute() / kind
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "cmbench" / kind
