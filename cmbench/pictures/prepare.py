"""Pictures of any source, decoded once: taken from the cache, or made for it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from cmbench import caches, progress
from cmbench.errors import UsageError
from cmbench.pictures import cache, workers
from cmbench.pictures.cache import Prepared
from cmbench.pictures.shape import Maker, Source
from cmbench.pictures.workers import Decoded
from cmbench.text import shown

_RULES = 1  # changes when the same files become other pixels
_NAMED = 4  # unreadable pictures that a message names
_ENOUGH = 20  # unreadable pictures after which the search stops
_ELSEWHERE = f"{caches.PLACE}=FOLDER puts decoded pictures elsewhere"


def prepared(
    sources: Callable[[], Iterable[Source]],
    count: int,
    content: str,
    maker: Maker,
    where: str,
    processes: int | None = None,
) -> Prepared:
    """Return the pictures of a data set, from the cache if they have been decoded before.

    Processes that want the same pictures wait for the first of them to decode.

    Args:
        sources: returns the pictures in their order, each a name and a file or its content.
        count: number of pictures.
        content: a text that differs where the pictures differ.
        maker: what makes arrays of them.
        where: the key and the place of the data, for messages: "data.root: /pictures".
        processes: that decode; None for one a core.

    Raises:
        UsageError: pictures cannot be read, or the cache cannot be written.
        CmbenchError: a process that decoded has ended.
    """
    made_of = {"content": content, "rules": _RULES, **maker.as_dict()}
    wanted = cache.Wanted(made_of, (count, *maker.shape), maker.dtype)
    try:
        path = wanted.place()
    except RuntimeError:
        raise UsageError(f"data: there is no home folder for decoded pictures; {_ELSEWHERE}") from None
    try:
        if (found := cache.opened(path, wanted)) is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path, count):
            if (found := cache.opened(path, wanted)) is not None:
                return found  # another process has made it meanwhile
            parts = _counted(workers.decoded(sources(), maker, processes), count)
            cache.write(path, _refusing(parts, count, where), wanted, {"source": _text(where)})
    except OSError as error:
        what = f"{wanted.nbytes:,} bytes of decoded pictures cannot be written"
        raise UsageError(f"{error.filename or path}: {what}: {error.strerror or error}; {_ELSEWHERE}") from None
    if (found := cache.opened(path, wanted)) is None:
        raise UsageError(f"{path}: damaged as soon as it was written; {_ELSEWHERE}")
    return found


@contextmanager
def _alone(path: Path, count: int) -> Iterator[None]:
    """Let one process at a time make a file. Where the file system has no locks, all go on at once."""
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        with progress.told().counting("waiting for a process that decodes the same pictures", count):
            lock.acquire()
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()


def _counted(parts: Iterable[Decoded], count: int) -> Iterator[Decoded]:
    """Tell how many pictures are decoded."""
    with progress.told().counting("decoding pictures", count) as done:
        for part in parts:
            yield part
            done(len(part.rows))


def _refusing(parts: Iterable[Decoded], count: int, where: str) -> Iterator[Decoded]:
    """Yield decoded pictures as long as all can be read; at the end, or when many cannot, name those that cannot."""
    refused: list[str] = []
    for part in parts:
        refused += part.refused
        if len(refused) >= _ENOUGH:
            break
        yield part
    if refused:
        more = f"; and {len(refused[:_ENOUGH]) - _NAMED} more" if len(refused) > _NAMED else ""
        number = f"at least {_ENOUGH}" if len(refused) >= _ENOUGH else str(len(refused))
        named = "; ".join(printable(line) for line in refused[:_NAMED])
        raise UsageError(f"{where}: {number} of {count:,} pictures cannot be read: {named}{more}")


def _text(name: str) -> str:
    """Return a name as valid text: undecodable bytes become ?."""
    return name.encode(errors="replace").decode()


def printable(line: str) -> str:
    """Return a line with a file's name in printable form, for messages."""
    return line if line.isprintable() else shown(line, 200)
