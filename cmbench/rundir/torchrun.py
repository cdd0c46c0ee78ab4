"""Several ranks of one run, started by torchrun on this machine, as a trainer that accepts or refuses."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import psutil

from cmbench.rundir import launch
from cmbench.rundir.files import open_to_append, write_all
from cmbench.rundir.layout import RunDir

ARGUMENT = "--as-torchrun"  # `cmbench --as-torchrun ...` is torchrun, see engine/agent.py
_MOST_EARLY = 2**20  # bytes that are kept until there is a console.log
_LAST_OUTPUT = 5.0  # seconds to wait for output after torchrun has ended


def command(size: int, logs: Path, *arguments: str) -> list[str]:
    """Return the command line of torchrun for ranks of `cmbench <arguments>` here; it leaves a folder in `logs`."""
    given = ["--standalone", "--nproc-per-node", str(size), "--log-dir", str(logs)]
    _, *own = launch.command(*arguments)
    return launch.command(ARGUMENT, *given, "--", *own)


class Group:
    """Ranks of `cmbench <arguments>`, under torchrun in a session of its own, so that signals go through us alone.

    What they print goes to the run's console.log. If this process dies, torchrun stops them with a checkpoint.

    Attributes:
        ended_by: the signal that asked for an end before they had accepted.

    Raises:
        RefusedError: torchrun cannot be started.
    """

    def __init__(self, arguments: Sequence[str], size: int, environment: Mapping[str, str]) -> None:
        self.ended_by: int | None = None
        self._lead: psutil.Process | None = None  # once they have accepted
        self._announced: list[int] = []  # until they have accepted
        self._asked = False
        with ExitStack() as files, launch.starting():
            self._meeting = files.enter_context(launch.Meeting())
            self._process = subprocess.Popen(
                command(size, self._meeting.path / "log", *arguments, "--foreground"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**self._meeting.environment, **environment},
            )
            self._files = files.pop_all()
        assert self._process.stdout is not None
        self._output = _Output(self._process.stdout)

    def wait(self) -> RunDir:
        """Wait until rank 0 has accepted, and return its run.

        Raises:
            RefusedError: a rank has refused, in one line, or all ended without an answer.
        """
        answer = self._meeting.heard(self._process)
        if answer is None:
            code = self._end()
            raise launch.RefusedError(launch.last_words(self._output.early), max(1, code))
        if "run" not in answer:
            self._end()
            raise launch.RefusedError(answer["error"], answer["exit_code"])
        run = RunDir(Path(answer["run"]))
        self._output.go_to(run.console)
        with suppress(psutil.Error):
            self._lead = psutil.Process(answer["pid"])
        for number in self._announced:
            self.signal(number)
        return run

    def signal(self, number: int, by_hand: bool = False) -> None:
        """Pass on a signal that asks for an end, as if there were one rank.

        The first stops them with a checkpoint, the second by hand ends them at once. Before they have accepted, one by
        hand ends them, and one that announces an end waits.
        """
        if self._lead is None and not by_hand:
            self._announced.append(number)
        elif self._lead is None:
            self.ended_by = number
            self._process.terminate()
        elif by_hand and self._asked:
            self.kill()
        else:
            self._asked = self._asked or by_hand
            with suppress(psutil.Error):
                self._lead.send_signal(number)

    def kill(self) -> None:
        """End all ranks at once."""
        with suppress(psutil.Error):
            for rank in psutil.Process(self._process.pid).children():
                with suppress(psutil.Error):
                    rank.kill()

    def join(self) -> int:
        """Wait until torchrun and rank 0 have ended, and return the exit code of the ranks, as `agent.exit_code`."""
        code = self._end()
        if self._lead is not None:  # torchrun was killed, and its ranks are stopping
            psutil.wait_procs([self._lead])
        return code

    def _end(self) -> int:
        code = self._process.wait()
        self._output.join(_LAST_OUTPUT)
        self._files.close()
        return code


class _Output(threading.Thread):
    """Takes what ranks and torchrun print: into memory, and from `go_to` on into a file.

    Attributes:
        early: what came before there was a file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.early = b""
        self._stream, self._lock, self._file = stream, threading.Lock(), -1
        self.start()

    def run(self) -> None:
        """Copy line by line until all who print have ended."""
        with self._stream:
            for line in self._stream:
                with self._lock:
                    if self._file < 0:
                        self.early = (self.early + line)[-_MOST_EARLY:]
                    else:
                        self._write(line)

    def go_to(self, path: Path) -> None:
        """Write to a file from now on, first what came before."""
        with suppress(OSError), self._lock:
            self._file = open_to_append(path)
            self._write(self.early)

    def _write(self, content: bytes) -> None:
        with suppress(OSError):  # on a full disk the log has gaps
            write_all(self._file, content)
