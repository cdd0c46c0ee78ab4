"""Write runs that are long, many or wide, and measure the commands that look at little of them.

    python benchmarks/long_runs.py [ROWS] [RUNS] [METRICS]

A run of ROWS rows (2,000,000) for `sample`, `resume` and `watch --plain`, beside one of a hundred rows and beside
Python and torch alone; RUNS runs (10,000) for `ls` and an idle browser; a run of METRICS metrics (500), 20,000 rows of
them, until its dashboard shows curves. Prints seconds, those of the processor and the largest size in memory.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil

METRICS = ("loss", "unweighted_loss", "weight", "tangent_norm", "grad_norm", "r", "lr", "N", "forwards", "images_per_s")
EVERY = 100  # steps between rows
SETTINGS = ["train.steps=20", "checkpoint.every=20", "snapshot.every=0", "evaluate.every=0", "log.every=10"]
CURVE = re.compile(b"\xe2[\xa0-\xa3][\x80-\xbf]")  # braille, of which charts are made
RESAVE = """
import sys
from cmbench.engine import checkpoint
from cmbench.rundir import checkpoints
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
run, step = RunDir(__import__("pathlib").Path(sys.argv[1])), int(sys.argv[2])
(old,) = steps_of_checkpoints(run)
checkpoint.save(run, step, checkpoint.load(run, old), checkpoints.state(run, old)[0]["told"])
checkpoint.prune(run, 1, [])
"""


def call(*arguments: object, cwd: Path | None = None) -> tuple[float, float, float]:
    """Run Python with arguments; return the seconds that passed, those of the processor, and the largest size in MB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=said, stderr=said, cwd=cwd)
        _, status, used = os.wait4(process.pid, 0)
        passed = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{arguments} ended with {process.returncode}: {said.read().decode()[-2000:]}")
    return passed, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def report(what: str, found: tuple[float, float, float]) -> None:
    """Print a line of the table."""
    print(f"{what:<44} {found[0]:8.2f} s  {found[1]:8.2f} s  {found[2]:8.0f} MB", flush=True)


def rows(n: int, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the lines of a log: losses that fall, one of quality behind every fiftieth row."""
    yield b'{"segment":1,"first_step":1}\n'
    for i in range(1, n + 1):
        place: dict[str, Any] = {"segment": 1, "step": EVERY * i, "time": 1.7e9 + i, "images": 256 * EVERY * i}
        values = {name: (1 + (i * (7 + j)) % 101 / 997) * i**-0.25 for j, name in enumerate(names)}
        yield orjson.dumps({**place, **values}) + b"\n"
        if i % 50 == 0:
            yield orjson.dumps({**place, "sw_1step": i**-0.25}) + b"\n"


def trained(folder: Path, n: int) -> Path:
    """Train a few steps and return the run, moved to the step after so many rows, which can be resumed for a step."""
    recipe = Path(__file__).parent.parent / "recipes" / "ct_edm_ring.toml"
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    call("-m", "cmbench", "run", recipe, "--foreground", "--runs-dir", folder, *changes)
    (run,) = (path.parent for path in folder.glob("*/status.json") if not path.parent.is_symlink())
    call("-c", RESAVE, run, EVERY * n)
    with (run / "metrics.jsonl").open("wb") as file:
        file.writelines(rows(n, METRICS))
    recipe_file = run / "recipe.toml"
    recipe_file.write_text(recipe_file.read_text().replace("steps = 20\n", f"steps = {EVERY * n + 1}\n"))
    status = orjson.loads((run / "status.json").read_bytes())
    (run / "status.json").write_bytes(orjson.dumps({**status, "state": "stopped", "step": EVERY * n}))
    return run


def many(folder: Path, n: int) -> None:
    """Write runs that have finished, as far as tables look at them."""
    for i in range(n):
        run = folder / f"run-{i:05}"
        run.mkdir(parents=True)
        (run / "recipe.toml").write_text(f'name = "run"\nseed = {i}\n')
        status = {"state": "finished", "step": 100, "of": 100, "heartbeat": 1.7e9 + i, "pid": 1, "pid_start": 0.0}
        figures = {"last": {"loss": 1 / (i + 1)}, "best": {"sw_1step": {"value": 1 / (i + 1), "step": 100}}}
        (run / "status.json").write_bytes(orjson.dumps({**status, **figures}))


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self.start = time.perf_counter()
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            os.environ.update(TERM="xterm-256color", LANG="C.UTF-8", COLUMNS="160", LINES="45")
            os.execv(sys.executable, [sys.executable, "-m", "cmbench", *map(str, arguments)])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))

    def read(self, seconds: float, until: re.Pattern[bytes] | None = None) -> float:
        """Take what it shows for so long, or until there is something; return the seconds since its start."""
        end, shown = time.perf_counter() + seconds, b""
        while (left := end - time.perf_counter()) > 0:
            if select.select([self._terminal], [], [], left)[0]:
                shown = shown[-8:] + os.read(self._terminal, 1 << 16)
                if until is not None and until.search(shown):
                    break
        return time.perf_counter() - self.start

    def processor(self) -> float:
        """Return the seconds of the processor so far."""
        used = psutil.Process(self.pid).cpu_times()
        return used.user + used.system

    def close(self) -> float:
        """End it, and return its largest size in MB."""
        os.kill(self.pid, signal.SIGKILL)
        return os.wait4(self.pid, 0)[2].ru_maxrss / 1024


def first_curve(run: Path) -> tuple[float, float, float]:
    """Open a dashboard and wait for a curve."""
    screen = Screen("watch", run)
    passed = screen.read(120, until=CURVE)
    return passed, screen.processor(), screen.close()


def idle(folder: Path, seconds: float = 20.0) -> tuple[float, float, float]:
    """Open the browser, leave it alone, and return for how long, and what it took."""
    screen = Screen("watch", "--runs-dir", folder)
    screen.read(20)
    before = screen.processor()
    screen.read(seconds)
    used = screen.processor() - before
    return seconds, used, screen.close()


def main(n: int, runs: int, metrics: int) -> None:
    """Write, measure and print."""
    print(f"{'':<44} {'passed':>10}  {'processor':>10}  {'largest':>11}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report("python", call("-c", ""))
        report("python with torch", call("-c", "import torch, torchvision"))
        for n_rows in (100, n):
            run = trained(folder / str(n_rows), n_rows)
            size = (run / "metrics.jsonl").stat().st_size / 1e6
            of = f"{n_rows:,} rows"
            print(f"a run of {of}, {size:,.0f} MB")
            report(f"watch --plain, {of}", call("-m", "cmbench", "watch", run, "--plain"))
            report(f"show, {of}", call("-m", "cmbench", "show", run))
            report(f"sample, {of}", call("-m", "cmbench", "sample", run, "--n", 4, "--out", folder / "samples.png"))
            report(f"resume for one step, {of}", call("-m", "cmbench", "resume", run, "--foreground"))
        many(folder / "many", runs)
        report(f"ls, {runs:,} runs", call("-m", "cmbench", "ls", "--runs-dir", folder / "many"))
        report(f"ls --json, {runs:,} runs", call("-m", "cmbench", "ls", "--json", "--runs-dir", folder / "many"))
        report(f"browser left alone, {runs:,} runs", idle(folder / "many"))
        many(folder / "wide", 1)
        wide = folder / "wide" / "run-00000"
        with (wide / "metrics.jsonl").open("wb") as file:
            file.writelines(rows(20_000, [*METRICS, *(f"layer_{i}_norm" for i in range(metrics - len(METRICS)))]))
        report(f"dashboard until a curve, {metrics} metrics", first_curve(wide))


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [2_000_000, 10_000, 500][len(given) :]))
