"""What long work tells of itself, so that a command can show it. The engine knows no screen: it tells `told()`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Count = Callable[[int], object]  # is told how many more things are done


class Progress:
    """Is told what is computed, figure by figure. This one tells nobody."""

    def expect(self, figures: int) -> None:
        """Expect so many more figures."""

    def begin(self, what: str) -> None:
        """Note that the next figure is at work, so that the one before it is done."""

    def counting(self, what: str, of: int, done: int = 0, unit: str = "") -> AbstractContextManager[Count]:
        """Return a context for `of` things of one kind, such as pictures; within it, tell how many more are done.

        `done` of them were done before. With a `unit` the speed is shown, in units a second.
        """
        return nullcontext(lambda n: None)


_told: ContextVar[Progress] = ContextVar("told", default=Progress())  # noqa: B039 - it has no state


def told() -> Progress:
    """Return what is told of the work in this context."""
    return _told.get()


@contextmanager
def telling(progress: Progress) -> Iterator[Progress]:
    """Let `progress` be told of the work in the block."""
    token = _told.set(progress)
    try:
        yield progress
    finally:
        _told.reset(token)
