"""What may lie in the place of a file."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def sparse(path: Path) -> None:
    """Make a file of a terabyte that takes no room."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def long_line(path: Path) -> None:
    """Make a file of a line of 100 MB between two of the old ones."""
    old = path.read_bytes().partition(b"\n")
    with path.open("wb") as file:
        file.write(old[0] + b"\n")
        for _ in range(100):
            file.write(b" " * 1_000_000)
        file.write(b"\n" + old[2])


def bound(path: Path) -> None:
    """Make a socket: its path is short enough from its own folder alone."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "device": lambda path: os.mknod(path, 0o20644, os.makedev(1, 5)),  # zeros without end
    "linked device": lambda path: path.symlink_to("/dev/zero"),
    "linked terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "socket": bound,
    "sparse": sparse,
    "long line": long_line,
}
