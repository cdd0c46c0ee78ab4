"""`python -m cmbench`; cmbench also starts its own processes by this file's path.

Python puts the working directory, or the folder of this file, in front of its own library. A random.py there, from any
run or download, would hide the library's. So these folders leave the path before anything is imported.
"""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


def _leave_out(*folders: str) -> None:
    """Remove folders from the start of the path, where Python and empty parts of PYTHONPATH put them."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    front = slice(0, 1 + len(given))
    sys.path[front] = [entry for entry in sys.path[front] if (entry in given and entry) or entry not in folders]


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # it was removed
        return ""


_leave_out("", _working_directory(), os.path.join(_ROOT, "cmbench"))  # noqa: PTH118
if not __package__:  # started by its path: import this cmbench and no other
    sys.path.insert(0, _ROOT)
    import cmbench  # noqa: F401

    del sys.path[0]
if _ROOT not in sys.path:
    sys.path.append(_ROOT)

from cmbench.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
