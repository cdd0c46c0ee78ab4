import fcntl
import os
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest
from snapshot_runs import drive
from textual.app import App, ComposeResult

from cmbench.tui.widgets import pixels
from cmbench.tui.widgets.drawing import Pixels
from cmbench.tui.widgets.picture import PixelPicture

KITTY = {"TERM": "xterm-kitty"}


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(pixels, "_is_tty", lambda stream: True)


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        (KITTY, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "sixel"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "sixel"),
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, ""),
        ({**KITTY, "TMUX": "/tmp/tmux-0/default,1,0"}, ""),
        ({**KITTY, "CMBENCH_PIXELS": "off"}, ""),
        ({"TERM": "xterm", "CMBENCH_PIXELS": "sixel"}, "sixel"),
        ({"TERM": "xterm", "CMBENCH_PIXELS": "paint"}, ""),
        ({}, ""),
    ],
)
def test_the_protocol_goes_by_the_environment(terminal, environ, protocol):
    pytest.importorskip("textual_image")
    assert pixels.pixel_protocol(environ) == protocol


@pytest.mark.parametrize("window", [(0, 0, 0, 0), (24, 80, 0, 0), (24, 80, 640, 480)])
def test_the_terminal_is_asked_nothing(window):
    """A mute terminal would cost half a second, and a late answer would arrive as keys."""
    pytest.importorskip("textual_image")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *window))
    script = "from cmbench.tui.widgets.pixels import *; print(pixel_protocol(), *cell_size())"
    environ = {**os.environ, "TERM": "xterm-kitty"}
    for name in ("TMUX", "CMBENCH_PIXELS", "TEXTUAL_CELL_WIDTH", "TEXTUAL_CELL_HEIGHT"):
        environ.pop(name, None)
    subprocess.run([sys.executable, "-c", script], env=environ, stdin=theirs, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    written = os.read(ours, 1000).decode()
    os.close(ours)
    assert written.strip() == ("kitty 8 20" if window[2] else "kitty 10 20")


def test_without_a_terminal_there_are_no_pixels():
    assert pixels.pixel_protocol(KITTY) == ""


@pytest.mark.parametrize("error", [ImportError, ZeroDivisionError, OSError])
def test_a_failing_import_means_half_blocks(terminal, monkeypatch, error):
    class Failing:
        def find_spec(self, name, *_):
            if name.startswith("textual_image"):
                raise error

    for name in [n for n in sys.modules if n.startswith("textual_image")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    stdout = sys.__stdout__
    assert pixels.pixel_protocol(KITTY) == ""
    assert sys.__stdout__ is stdout


def test_pixels_are_sent_once_in_the_size_of_the_room(monkeypatch):
    tgp = pytest.importorskip("textual_image.renderable.tgp")
    sent = []
    monkeypatch.setattr(tgp, "_send_tgp_message", lambda **message: sent.append(message))

    class PixelApp(App[None]):
        def compose(self) -> ComposeResult:
            yield PixelPicture("kitty")

    def uploads():
        return sum("f" in message and message["m"] == 0 for message in sent)

    async def steps(pilot):
        picture = pilot.app.query_one(PixelPicture)
        drawing = Pixels(np.full((4, 8, 3), 200, dtype=np.uint8), None)
        picture.show("caption", drawing)
        await pilot.pause()
        assert picture._pixels.region.y == picture.region.y + 1
        image = picture._pixels.image
        cell = pixels.cell_size()
        assert image.size == (picture.size.width * cell[0], (picture.size.height - 1) * cell[1])
        assert image.getpixel((image.width // 2, image.height // 2)) == (200, 200, 200)
        count = uploads()
        assert count >= 1
        picture.show("caption", drawing)
        await pilot.pause()
        assert uploads() == count
        picture.show("caption", "damaged")
        await pilot.pause()
        assert not picture._pixels.display
        assert "damaged" in "\n".join(line.text for line in picture.render_lines(picture.region.reset_offset))

    drive(PixelApp(), steps, (40, 10))
