"""A folder that the user names and that comes to be as a whole, or not at all. No torch."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cmbench.errors import UsageError, refusing_write_errors
from cmbench.rundir.files import fsync_folder, lives


def check(path: Path, option: str) -> None:
    """Refuse what `made` would refuse, before the content takes long to compute.

    Raises:
        UsageError: there is something at the path that is no empty folder; the message names `option`.
    """
    with refusing_write_errors(f"{option} {path}"):
        _refuse_taken(path, option)
        place = _nearest(path)
        if not place.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def made(path: Path, option: str) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`, which gets that name after the block, with all its files synced.

    If the block fails, nothing is left, neither of the folder nor of missing parents that were made for it.

    Raises:
        UsageError: the place cannot be written, or is taken by then; the message names `option`.
    """
    check(path, option)
    where, final = f"{option} {path}", _resolved(path)
    with refusing_write_errors(where):
        with parents_of(final):
            _remove_leftovers(final)
            temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
            try:
                temporary.mkdir()
                yield temporary
                _sync(temporary)
                _refuse_taken(path, option)
                temporary.rename(final)  # also onto an empty folder
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        fsync_folder(final.parent)


@contextmanager
def parents_of(final: Path) -> Iterator[None]:
    """Make the missing parents of an absolute path. If the block fails, they are removed, unless something is in them.

    Raises:
        OSError: one cannot be made.
    """
    missing = [parent for parent in final.parents if not parent.exists()]
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def _refuse_taken(path: Path, option: str) -> None:
    final = _resolved(path)
    if not final.name:
        raise UsageError(f"{option} {path}: found the root, allowed: a new folder")
    if final.is_dir():
        if any(final.iterdir()):
            raise UsageError(f"{option} {path}: found a folder that is not empty, allowed: a new or an empty one")
        _refuse_irreplaceable(final, option, path)
    elif os.path.lexists(final):
        raise UsageError(f"{option} {path}: found something that is no folder, allowed: a new or an empty folder")


def _refuse_irreplaceable(final: Path, option: str, path: Path) -> None:
    """Refuse an empty folder that another cannot take the place of. Raises UsageError."""
    inside = path / "export"
    if final.samefile("."):  # it would stay the working directory, without a name
        raise UsageError(f"{option} {path}: found the working directory, allowed: a folder in it, such as {inside}")
    if final.is_mount():
        raise UsageError(f"{option} {path}: found where a disk is mounted, allowed: a folder in it, such as {inside}")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (ValueError, RuntimeError) as error:  # a zero byte; links in a circle
        raise OSError(errno.EINVAL, str(error)) from None


def _nearest(path: Path) -> Path:
    """Return the nearest parent that exists."""
    return next(parent for parent in _resolved(path).parents if parent.exists())


def _remove_leftovers(final: Path) -> None:
    """Remove temporary folders that killed commands left for this name."""
    pattern = re.compile(rf"\.{re.escape(final.name)}\.([0-9]{{1,7}})\.tmp")
    for entry in final.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not lives(int(match[1])) and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make a folder durable with all that it holds."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(place) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(place))
