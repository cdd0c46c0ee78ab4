"""The dashboard on real pseudo-terminals: it ends with them, leaves them as they were, and sends few bytes.

Bytes are counted, never time: waiting only gives the viewer the chance to send what it should not.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from itertools import pairwise

import psutil
import pyte
import pytest
from live_runs import add, event, live_run, metrics, profile, write_status
from waiting import until

COMMAND = [sys.executable, "-m", "cmbench"]


class Terminal:
    """A command as the leader of a session on a terminal of its own.

    With `answers` it says when asked that it can tell its size as input; Textual then wants the mouse in pixels.
    """

    def __init__(self, *command: str, size: tuple[int, int] = (160, 45), answers: bool = False) -> None:
        self.end, self.slave = pty.openpty()
        self.resize(*size)
        self.modes = termios.tcgetattr(self.slave)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.slave)
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(command, **streams, env=environment, preexec_fn=self._lead)
        self.sent, self.answers = b"", answers
        self.screen = pyte.Screen(*(size if all(size) else (80, 24)))
        self._stream = pyte.ByteStream(self.screen)

    @staticmethod
    def _lead() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def drain(self, seconds: float = 0.05) -> bytes:
        """Return what comes until nothing has come for some time."""
        new = b""
        while select.select([self.end], [], [], seconds)[0]:
            new += os.read(self.end, 1 << 16)
        self.sent += new
        if self.answers and b"\x1b[?2048$p" in self.sent:
            self.answers = False
            self.type(b"\x1b[?2048;2$y")
        self._stream.feed(new.replace(b"\x1b[?u", b"").replace(b"\x1b[>1u", b"").replace(b"\x1b[<u", b""))
        return new

    def shows(self, text: str) -> bool:
        self.drain()
        return any(text in line for line in self.screen.display)

    def type(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def left(self) -> list[psutil.Process]:
        """Return the processes of the session that still live."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end_code(self) -> int:
        """Take what comes until nothing of the session is left, and return the exit code of its leader."""

        def has_ended() -> bool:
            if self.end is not None:
                self.drain(0.01)  # who writes more than the terminal holds waits until it is read
            return self.process.poll() is not None and not self.left()

        until(has_ended)
        return self.process.returncode

    def vanish(self) -> None:
        os.close(self.end)
        self.end = None

    def close(self) -> None:
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()
        for descriptor in (self.end, self.slave):
            if descriptor is not None:
                os.close(descriptor)


@pytest.fixture
def run(home, monkeypatch):
    monkeypatch.setenv("CMBENCH_CONFIG", str(home / "config.toml"))
    for name in ("NO_COLOR", "COLORTERM", "SSH_CONNECTION", "TMUX", "COLUMNS", "TEXTUAL_DRIVER"):
        monkeypatch.delenv(name, raising=False)
    (home / "config.toml").write_text("rate = 4\n")
    return live_run(home / "runs", host="elsewhere")  # whose load is not this machine's


@pytest.fixture
def terminal(run) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*before: str, **options: object) -> Terminal:
        made.append(Terminal(*before, *COMMAND, "watch", run.name, **options))
        until(lambda: made[-1].shows("40/1") and made[-1].shows("^p Palette"))
        return made[-1]

    yield start
    for each in made:
        each.close()


def switches(sent: bytes) -> dict[int, bool]:
    """Return the private modes that were switched, as they are at last: 25 the cursor, 1049 the other screen."""
    found = re.findall(rb"\x1b\[\?([\d;]+)([hl])", sent)
    return {int(mode): end == b"h" for modes, end in found for mode in modes.split(b";")}


def is_sane(terminal: Terminal) -> bool:
    """Whether modes are as they were: of line, screen, cursor, wrapping, mouse, focus, pasting, sizes and keyboard."""
    terminal.drain()
    now = switches(terminal.sent)
    asked = terminal.sent.count(b"\x1b[>1u"), terminal.sent.count(b"\x1b[<u")
    wrong = [mode for mode in (1049, 1000, 1002, 1003, 1006, 1015, 1016, 1004, 2004, 2048) if now.get(mode)]
    wrong += [mode for mode in (25, 7) if not now[mode]]
    return termios.tcgetattr(terminal.slave) == terminal.modes and not wrong and asked[0] <= asked[1]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
)
def test_a_signal_ends_the_viewer_and_leaves_the_terminal_as_it_was(terminal, number, code):
    shown = terminal(answers=True)
    assert termios.tcgetattr(shown.slave) != shown.modes
    until(lambda: not shown.drain() and {1049, 1016, 2048} <= {mode for mode, on in switches(shown.sent).items() if on})
    assert not is_sane(shown)
    shown.process.send_signal(number)
    assert shown.end_code() == code
    assert is_sane(shown)


def test_a_viewer_that_is_killed_under_a_shell_leaves_the_terminal_as_it_was(terminal):
    """The shell takes the terminal back, so that what puts it right stands in the background."""
    shown = terminal("bash", "-ic", '"$@"; read -r answer; exit $answer', "bash")
    (viewer,) = [process for process in shown.left() if process.cmdline()[1:2] == ["-m"]]
    viewer.send_signal(signal.SIGKILL)
    until(lambda: is_sane(shown))
    shown.type(b"7\n")
    assert shown.end_code() == 7


@pytest.mark.parametrize("keys", [b"q", b"\x03"])
def test_a_key_ends_it(terminal, keys):
    shown = terminal(size=(80, 24), answers=True)
    until(lambda: not shown.drain() and switches(shown.sent).get(1016))
    shown.type(keys)
    assert shown.end_code() == 0
    assert is_sane(shown)
    assert b"Traceback" not in shown.sent


@pytest.mark.parametrize("before", [(), ("sh", "-c", 'trap "" HUP; "$@"; exit 0', "sh")])
def test_a_terminal_that_vanishes_ends_it(terminal, before):
    """With the signal ignored, nobody tells the viewer: it must see by itself."""
    shown = terminal(*before)
    shown.vanish()
    shown.end_code()


def test_a_terminal_of_no_size_has_one_of_the_usual(terminal):
    shown = terminal(size=(0, 0))
    shown.resize(100, 30)
    shown.process.send_signal(signal.SIGWINCH)
    shown.resize(0, 0)
    shown.process.send_signal(signal.SIGWINCH)
    shown.type(b"q")
    assert shown.end_code() == 0
    assert is_sane(shown)
    assert b"Traceback" not in shown.sent


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "< /dev/null", "| cat"])
def test_without_a_terminal_at_both_ends_it_is_a_card(run, closed):
    done = Terminal("sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "watch", run.name)
    try:
        assert done.end_code() == 0
        text = done.sent.decode()
        assert ("live·000a  * running" in text) == (">" not in closed)
        assert "\x1b[?1049h" not in text
        assert "Traceback" not in text
    finally:
        done.close()


# What new rows cost at 160x45 in 256 colours: 487 bytes measured for a row of everything, and half as much again.
PER_ROW = 730


def test_few_bytes_for_a_row_and_none_for_nothing(run, terminal):
    shown = terminal()

    def sends_nothing_for_a_heartbeat() -> bool:
        write_status(run, host="elsewhere")
        return shown.drain(1.5) == b""  # six looks at the files

    until(sends_nothing_for_a_heartbeat)
    sent = [len(shown.sent)]
    for step in range(41, 49):
        add(run.metrics, metrics(step))
        add(run.profiles, profile(step))
        add(run.events, event(step, "checkpoint", folder=f"checkpoints/{step}"))
        write_status(run, step=step, host="elsewhere")
        until(lambda step=step: shown.shows(f"step {step}/1,000"))
        sent.append(len(shown.sent))
    until(sends_nothing_for_a_heartbeat)
    assert any("48 checkpoint 48" in line for line in shown.screen.display)
    # The median, for on a busy machine the last of the first screen comes with one of the rows.
    assert 0 < statistics.median(after - before for before, after in pairwise(sent)) <= PER_ROW
