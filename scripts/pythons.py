"""Print the Pythons of this machine that cmbench runs on, one a minor version, the oldest first.

`pythons.py oldest` and `pythons.py newest` print one of them. A name on the PATH counts only if it runs: pyenv puts
names there for Pythons that are not switched on. Those are looked for where pyenv keeps them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROBE = "import ensurepip, sys, venv; print(sys.version_info >= (3, 10) and sys.version_info[1] or '')"


def main() -> None:
    """Print what was asked for, or exit with one line."""
    found = pythons()
    if not found:
        sys.exit("cmbench: no Python 3.10 or newer with venv was found")
    chosen = {"oldest": found[:1], "newest": found[-1:]}.get(sys.argv[1] if len(sys.argv) > 1 else "", found)
    print(*chosen, sep="\n")


def pythons() -> list[str]:
    """Return a command for each minor version, the oldest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [f"python3.{minor}" for minor in range(10, 30)]
    candidates += [str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python"))] + ["python3"]
    by_minor: dict[int, str] = {}
    for command in candidates:
        if (minor := minor_of(command)) is not None:
            by_minor.setdefault(minor, command)
    return [by_minor[minor] for minor in sorted(by_minor)]


def minor_of(command: str) -> int | None:
    """Return the minor version of a Python that cmbench runs on, None of any other command."""
    try:
        done = subprocess.run([command, "-I", "-c", PROBE], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


if __name__ == "__main__":
    main()
