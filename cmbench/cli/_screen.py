"""The only output of the command line: everything is printed here, as text that cannot control a terminal.

Commands print with `line`, `text`, `data`, `table` and `show`. A gate replaces sys.stdout and sys.stderr: usage errors,
warnings and tracebacks pass through it. Only Rich prints colours and cursor movements, by a console whose texts are
made harmless. The dashboard has the terminal to itself.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from cmbench.errors import CmbenchError
from cmbench.rundir.files import to_json
from cmbench.text import brief, json_escaped, plain, plain_lines
from cmbench.words import tables

_MANY = 100  # rows of a table, from which its time matters
_READER_LEFT = 141  # the exit code of a shell for SIGPIPE


class LostOutputError(CmbenchError):
    """Output cannot be written. The message is empty if the reader of a pipe has left."""

    def __init__(self, error: OSError) -> None:
        left = isinstance(error, BrokenPipeError)
        super().__init__("" if left else f"stdout: cannot be written: {error.strerror or error}")
        self.exit_code = _READER_LEFT if left else 1


class _Stream(io.TextIOBase):
    """A standard stream that takes text as it is.

    If writing fails, it raises LostOutputError if it `tells`; otherwise the text is lost silently.
    """

    def __init__(self, beneath: TextIO, tells: bool) -> None:
        self._beneath, self._tells = beneath, tells

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._beneath.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return self._beneath.errors or "strict"

    def fileno(self) -> int:
        return self._beneath.fileno()

    def isatty(self) -> bool:
        return not self._beneath.closed and self._beneath.isatty()

    def write(self, text: str) -> int:
        with self._failing():
            self._beneath.write(text)
        return len(text)

    def flush(self) -> None:
        with self._failing():
            self._beneath.flush()

    def close(self) -> None:
        """Stay open: the stream beneath is not ours."""

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._tells:
                raise LostOutputError(error) from None


@contextmanager
def to_whoever_listens() -> Iterator[None]:
    """Stop printing but go on if the reader or the terminal has gone, or the disk is full."""
    try:
        yield
    except LostOutputError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Gate(_Stream):
    """A standard stream that only text passes. It claims to be no terminal, so that no library sends it styles."""

    def __init__(self, beneath: TextIO, tells: bool) -> None:
        super().__init__(beneath, tells)
        self.beyond = _Stream(beneath, tells)

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        is_progress = text.startswith("\r") and text != "\r\n"  # each update gets its own line
        return super().write(plain_lines("\n" + text[1:] if is_progress else text))


class _Console(Console):
    """A Rich console that makes control characters in texts visible, but keeps Rich's own sequences."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the parts that are printed."""
        for part in super().render(renderable, options):
            yield part if part.control or _is_harmless(part.text) else Segment(plain_lines(part.text), part.style)


def _is_harmless(text: str) -> bool:
    return text == "\n" or (text.isascii() and text.isprintable())


@contextmanager
def gate() -> Iterator[None]:
    """Let sys.stdout and sys.stderr take only text while the block runs."""
    before = sys.stdout, sys.stderr
    for name, tells in (("stdout", True), ("stderr", False)):
        stream = getattr(sys, name)
        if stream is None:  # closed when this process began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the process ends
        if isinstance(stream, io.TextIOWrapper):  # also shows characters that the encoding lacks
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Gate(stream, tells))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def fill_standard_streams() -> None:
    """Open closed standard streams; otherwise the next file that we open would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def drop_what_is_left() -> None:
    """Drop output that cannot be written; otherwise the interpreter complains when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stream(err: bool) -> TextIO:
    """Return stdout or stderr, past the gate."""
    stream = sys.stderr if err else sys.stdout
    return cast(TextIO, stream.beyond) if isinstance(stream, _Gate) else stream


def is_terminal(err: bool = False) -> bool:
    """Return whether what is printed reaches a terminal."""
    stream = _stream(err)
    return stream is not None and stream.isatty()


def console(err: bool = False) -> Console:
    """Return a console for tables and pictures; their texts are never interpreted."""
    return _Console(file=_stream(err), stderr=err, markup=False, highlight=False, emoji=False)


def line(text: object, err: bool = False) -> None:
    """Print a text as one line, whatever it contains."""
    _print(f"{plain(text)}\n", err)


def text(block: str, err: bool = False) -> None:
    """Print our own lines; any foreign text in them must already be on one line."""
    _print(f"{plain_lines(block)}\n", err)


def data(value: Any, indent: bool = False) -> None:
    """Print JSON."""
    _print(json_escaped(to_json(value, indent).decode()) + "\n", err=False)


def show(renderable: RenderableType) -> None:
    """Print a Rich renderable without folding its lines."""
    console().print(renderable, soft_wrap=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], spare: int = 0) -> None:
    """Print rows under headers; columns whose cells look like numbers are aligned to the right.

    If a terminal is too narrow, up to `spare` of the last columns are left out; beyond that, cells are folded.
    A file or another program gets every row whole, on one line.
    """
    own = console()
    headers, texts = [plain(header) for header in headers], [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headers, *texts, strict=True)]
    if not is_terminal():
        own.width = max(own.width, tables.width_of(widths))
    while spare and tables.width_of(widths) > own.width:
        spare, widths = spare - 1, widths[:-1]
    headers, texts = headers[: len(widths)], [row[: len(widths)] for row in texts]
    if len(texts) > _MANY and tables.width_of(widths) <= own.width and all(map(str.isprintable, chain(*texts))):
        right = [tables.is_numeric(column) for column in zip(*texts, strict=True)]
        head, *lines = tables.in_lines([list(headers), *texts], widths, right)
        if any(headers):
            own.print(Text(head, style="bold", no_wrap=True))
        text("\n".join(lines))
        return
    own.print(tables.laid_out(headers, texts, width=own.width))


def complain(message: object) -> None:
    """Print what went wrong: one line of bounded length to stderr."""
    line(f"cmbench: {brief(message)}", err=True)


def waiting(text: str) -> AbstractContextManager[object]:
    """Show a spinner and a text on a terminal while a block runs."""
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots", Text(plain(text)))
    return Live(spinner, console=console(err=True), transient=True, redirect_stdout=False, redirect_stderr=False)


def _print(text: str, err: bool) -> None:
    stream = _stream(err)
    if stream is not None:
        stream.write(text)
        stream.flush()
