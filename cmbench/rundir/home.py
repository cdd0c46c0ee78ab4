"""Where the folder of a live run is, even after it was renamed."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cmbench.errors import CmbenchError
from cmbench.rundir.layout import RunDir


class GoneError(CmbenchError):
    """The folder of a live run was removed, or moved to where it cannot be found."""


class Home:
    """The folder of a run, held open, so that it is recognised under another name."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._has_recipe = run, False
        self._descriptor = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._own = os.fstat(self._descriptor)

    def find(self) -> RunDir:
        """Return the run where it is now.

        Raises:
            GoneError: the folder is not found, or is no longer a run, as while it is being removed.
        """
        if not self._is(self._run.path):
            found = next((path for path in self._candidates() if self._is(path)), None)
            if found is None:
                raise GoneError(f"{self._run.path}: the run's folder is gone: removed, or moved to another file system")
            self._run = RunDir(found)
        if self._has_recipe and _is_gone(self._run.recipe):
            raise GoneError(f"{self._run.path}: the run is gone: its recipe.toml was removed")
        return self._run

    def inside(self) -> RunDir:
        """Return the run by the open folder, so that a folder put in its place meanwhile is not touched.

        If the system cannot do this, return the run under the name where it was found.
        """
        held = Path(f"/proc/self/fd/{self._descriptor}")
        return RunDir(held) if held.exists() else self._run

    def expect_recipe(self) -> None:
        """From now on require a recipe in the folder: no command shows a run without one."""
        self._has_recipe = True

    def close(self) -> None:
        """Close the folder."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _is(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), self._own)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # unknown now; a failed write raises its own error
            return path == self._run.path

    def _candidates(self) -> Iterator[Path]:
        """Yield where the folder may be: first where the system says, then beside its old place."""
        with suppress(OSError):  # not Linux
            yield Path(f"/proc/self/fd/{self._descriptor}").readlink()
        with suppress(OSError):
            yield from [Path(entry.path) for entry in os.scandir(self._run.path.parent) if _is_folder(entry)]


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # unknown now
        return False
    return False


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return False
