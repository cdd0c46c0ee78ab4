"""The errors that a user sees, each with its exit code. They print one line of text, never a traceback."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

FULL = (errno.ENOSPC, errno.EDQUOT)  # the system's errors for a full disk
_LONGEST_NAME = 200  # characters of a name; finding the nearest to a text of megabytes takes seconds
STOPPED = 75  # EX_TEMPFAIL: stopped with a checkpoint, can be resumed


class CmbenchError(Exception):
    """A failure whose message alone explains it."""

    exit_code = 1


class UsageError(CmbenchError):
    """A recipe or an argument cannot be used as given."""

    exit_code = 2


class NoDerivativeError(UsageError, NotImplementedError):
    """A network has no derivative by the recipe's method."""


class DivergedError(CmbenchError):
    """Training met a loss or gradient that is not finite."""

    exit_code = 3


class NotFoundError(CmbenchError):
    """There is no such run, or it has no checkpoint."""

    exit_code = 4


class ConflictError(CmbenchError):
    """A run is live, locked or already there."""

    exit_code = 5


class StoppedError(CmbenchError):
    """A run cannot continue now, but can be resumed as it is."""

    exit_code = STOPPED


@contextmanager
def prefixing(where: str) -> Iterator[None]:
    """Put `where` (usually a file) in front of the usage errors raised in the block."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


@contextmanager
def refusing_write_errors(path: object) -> Iterator[None]:
    """Turn a system error about writing to `path` into a usage error."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None


@contextmanager
def stopping_on_write_errors(path: object) -> Iterator[None]:
    """As `refusing_write_errors`, for an existing run: on a full or failing disk the run stops."""
    try:
        with refusing_write_errors(path):
            yield
    except UsageError as error:
        if isinstance(cause := error.__context__, OSError) and cause.errno in (*FULL, errno.EIO):
            raise StoppedError(str(error)) from None
        raise


def did_you_mean(found: str, allowed: Iterable[str], least: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or an empty string if none is at least so close."""
    close = get_close_matches(found, list(allowed), n=1, cutoff=least) if len(found) <= _LONGEST_NAME else []
    return f"; did you mean '{close[0]}'?" if close else ""
