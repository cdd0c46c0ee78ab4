"""Record a session in a terminal of its own, and write it as the moving picture of the README.

    python scripts/recording.py docs/images/session.gif

A shell runs `cmbench run cd_edm_ring` in an empty folder; keys are typed by a timetable. What the terminal shows is
read by pyte several times a second and drawn cell by cell.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 130, 38
SIZE = 12  # pixels of a letter
EVERY = 0.5  # seconds between frames while it is recorded
SHOWN = 250  # milliseconds of a frame when it is played
LAST = 4000  # milliseconds of the last frame
FOREGROUND, BACKGROUND = "#d8dee9", "#14161b"
# Seconds to wait, then what is typed.
TIMETABLE = [
    (1.0, "cmbench run cd_edm_ring --set train.steps=1500 --set snapshot.every=250 --set log.every=25\r"),
    (22.0, "p"),
    (5.0, "\x1b"),
    (4.0, "i"),
    (5.0, "\x1b"),
    (6.0, "q"),
    (2.0, "cmbench sample --steps 1\r"),
    (12.0, ""),
]
# pyte has one screen: leaving the other one clears it.
_OTHER_SCREEN, _CLEARED = b"\x1b[?1049l", b"\x1b[0m\x1b[2J\x1b[H"
_NAMED = {
    "black": "#2e3440", "red": "#bf616a", "green": "#a3be8c", "brown": "#ebcb8b",
    "blue": "#81a1c1", "magenta": "#b48ead", "cyan": "#88c0d0", "white": "#e5e9f0",
}  # fmt: skip


def main() -> None:
    """Record, draw, and write the file that the command line names."""
    frames = [drawn(screen) for screen in recorded()]
    durations = [SHOWN] * (len(frames) - 1) + [LAST]
    palette = _above_each_other(frames[:: max(1, len(frames) // 8)]).quantize(128)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pictures[0].save(sys.argv[1], save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


def recorded() -> Iterator[pyte.Screen]:
    """Yield what the terminal shows, every so often and where it has changed, while the timetable is typed."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    with tempfile.TemporaryDirectory() as folder:
        shell, terminal = _shell(Path(folder))
        before = ""
        for seconds, keys in TIMETABLE:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                _read(terminal, stream, time.monotonic() + EVERY)
                now = "\n".join(screen.display)
                if now != before:
                    before = now
                    yield screen
            for key in keys:
                os.write(terminal, key.encode())
                _read(terminal, stream, time.monotonic() + 0.02)
        shell.terminate()


def _shell(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    bin = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"PATH": bin, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PS1": "$ ", "HOME": str(folder)}
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        start_new_session=True, env={**os.environ, **settings},
    )  # fmt: skip
    os.close(theirs)
    return shell, ours


def _read(terminal: int, stream: pyte.ByteStream, until: float) -> None:
    """Feed what the terminal prints until a moment comes."""
    while (left := until - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            data = os.read(terminal, 1 << 16)
            stream.feed(data.replace(_OTHER_SCREEN, _CLEARED))


def drawn(screen: pyte.Screen) -> Image.Image:
    """Return a picture of a screen."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf"), SIZE)
    width, height = round(font.getlength("M")), SIZE + 4
    picture = Image.new("RGB", (COLUMNS * width, ROWS * height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for y in range(ROWS):
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            front, back = _colour(cell.fg, FOREGROUND), _colour(cell.bg, BACKGROUND)
            front, back = (back, front) if cell.reverse else (front, back)
            place = (x * width, y * height, (x + 1) * width - 1, (y + 1) * height - 1)
            if back != BACKGROUND:
                draw.rectangle(place, back)
            if "\u2800" <= cell.data[:1] <= "\u28ff":  # which few fonts have
                _draw_braille(draw, place, ord(cell.data) - 0x2800, front)
            elif cell.data.strip():
                draw.text((x * width, y * height + 1), cell.data, front, font)
    return picture


def _draw_braille(draw: ImageDraw.ImageDraw, place: tuple[int, int, int, int], dots: int, colour: str) -> None:
    left, top, right, bottom = place
    for i, (column, row) in enumerate(((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))):
        if dots >> i & 1:
            x = left + (right - left) * (1 + 2 * column) // 4
            y = top + (bottom - top) * (1 + 2 * row) // 8
            draw.rectangle((x, y, x + 1, y + 1), colour)


def _above_each_other(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return all pictures as one: its colours are those of all."""
    whole = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    for i, picture in enumerate(pictures):
        whole.paste(picture, (0, i * picture.height))
    return whole


def _colour(name: str, otherwise: str) -> str:
    if name == "default":
        return otherwise
    return _NAMED.get(name.removeprefix("bright"), f"#{name}" if len(name) == 6 else otherwise)


if __name__ == "__main__":
    main()
