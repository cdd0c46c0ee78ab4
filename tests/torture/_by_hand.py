"""What is too big or wants too many rights for every time.

python tests/torture/_by_hand.py power_cut 20     # as root: ext4 images cut off while a run trains, mounted, resumed
python tests/torture/_by_hand.py rows 10000000    # CPU-seconds and memory of each view, for so many rows
python tests/torture/_by_hand.py line 100         # the same with a line of so many megabytes in each log
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])
sys.path.append(str(Path(__file__).parents[2]))

import torch  # noqa: E402

from torture import _commands, _runs  # noqa: E402

LONG = (
    "--set",
    "train.steps=400",
    "--set",
    "checkpoint.every=7",
    "--set",
    "snapshot.every=40",
    "--set",
    "evaluate.every=0",
)
CMBENCH = (sys.executable, "-m", "cmbench")


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """Mount an image, and yield where."""
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,commit=1", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def power_cut(cuts: int) -> int:
    """Copy the image below a file system while a run trains on it, resume from each, and return how many failed."""
    chance, failed = random.Random(0), 0
    with _commands.workplace() as folder, tempfile.TemporaryDirectory() as place:
        environment = {**_commands.environment(folder), "OMP_NUM_THREADS": "1"}
        train = [*CMBENCH, "run", str(folder / "tiny.toml"), "--foreground", *LONG, "--runs-dir"]
        subprocess.run([*train, str(folder / "runs")], env=environment, check=True, capture_output=True)
        (whole,) = _runs.runs_of(folder / "runs")
        image = Path(place, "image")
        with image.open("wb") as file:
            file.truncate(96 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        with mounted(image, Path(place, "disk")) as disk:
            trainer = subprocess.Popen([*train, str(disk / "runs")], env=environment, stdout=subprocess.DEVNULL)
            while not _runs.runs_of(disk / "runs"):
                time.sleep(0.001)
            for i in range(cuts):
                time.sleep(chance.uniform(0.0, 0.3))
                trainer.send_signal(signal.SIGSTOP)  # it is the power that goes, in the middle of nothing
                shutil.copyfile(image, Path(place, f"cut{i}"))
                trainer.send_signal(signal.SIGCONT)
            trainer.wait()
        for i in range(cuts):
            with mounted(Path(place, f"cut{i}"), Path(place, "after")) as after:
                told = _resumed(after, whole, environment)
            failed += "equal" not in told and "no run" not in told
            print(f"cut {i + 1}: {told}", flush=True)
            Path(place, f"cut{i}").unlink()
    return failed


def _resumed(disk: Path, whole: Path, environment: dict[str, str]) -> str:
    runs = _runs.runs_of(disk / "runs")
    if not runs:
        return "no run yet"
    steps = sorted(path.name for path in (runs[0] / "checkpoints").glob("[0-9]*"))
    done = subprocess.run(
        [*CMBENCH, "resume", str(runs[0]), "--foreground"], env=environment, capture_output=True, text=True
    )
    if done.returncode not in (0, 5):
        return f"newest checkpoint {steps[-1:]}, resume ended with {done.returncode}: {done.stderr[-300:]}"
    mine, theirs = _runs.outcome(runs[0]), _runs.outcome(whole)
    wrong = [key for key in theirs if mine.get(key) != theirs[key]]
    return f"newest checkpoint {steps[-1:]}, {'equal bit for bit' if not wrong else f'differs in {wrong}'}"


def views(label: str, run: Path, folder: Path) -> None:
    """Print what each view of a run takes."""
    commands = (
        ("ls",),
        ("show", str(run)),
        ("watch", str(run)),
        ("watch", str(run), "--plain"),
        ("sample", str(run), "--n", "4"),
        ("compare", str(run), str(run), "--plain"),
        ("resume", str(run), "--foreground"),
    )
    for command in commands:
        began, most = time.monotonic(), 0
        process = subprocess.Popen(
            [*CMBENCH, *command], cwd=folder, env=_commands.environment(folder), stdout=subprocess.DEVNULL
        )
        while True:
            most = max(most, _largest(process.pid))
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            if found:
                break
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        print(
            f"{label}: {command[0]:<8} {'--plain' if '--plain' in command else '':<8} exit {process.returncode}, "
            f"{usage.ru_utime + usage.ru_stime:.1f} CPU-s, {time.monotonic() - began:.1f} s, {most:.0f} MB",
            flush=True,
        )


def _largest(pid: int) -> float:
    """Return the most memory that a process has had, in MB, without what it was forked from."""
    with contextlib.suppress(OSError, IndexError):
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024
    return 0.0


def rows(count: int) -> int:
    """Give a stopped run so many rows of metrics, and look at it."""
    with _commands.workplace(_runs.templates() / "stopped") as folder:
        run = folder / "runs" / _runs.RUN
        row = '{"segment":1,"step":%d,"time":%f,"images":%d,"loss":%f,"grad_norm":0.5,"lr":0.01,"forwards":9}\n'
        with (run / "metrics.jsonl").open("w") as file:
            file.write('{"segment":1,"first_step":1}\n')
            for first in range(0, count, 10_000):
                steps = range(first, min(count, first + 10_000))
                # Several rows a step, so that all of them belong to the nine steps of its checkpoint.
                file.write("".join(row % (1 + i * 9 // count, 1e9 + i, i, 1 / (1 + i)) for i in steps))
        views(f"{count:,} rows", run, folder)
    return 0


def line(megabytes: int) -> int:
    """Give each log of a stopped run a line of so many megabytes, and look at it."""
    for name in ("metrics.jsonl", "profiles.jsonl", "events.jsonl", "console.log"):
        with _commands.workplace(_runs.templates() / "stopped") as folder:
            run = folder / "runs" / _runs.RUN
            with (run / name).open("ab") as file:
                file.write(b'{"segment":1,"step":9,"kind":"warning","text":"')
                for _ in range(megabytes):
                    file.write(b"x" * (1 << 20))
                file.write(b'"}\n')
            views(f"{name}, {megabytes} MB", run, folder)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("power_cut", "rows", "line"):
        sys.exit(__doc__)
    torch.set_num_threads(1)
    sys.exit(globals()[sys.argv[1]](int(sys.argv[2])))
