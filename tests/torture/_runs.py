"""Runs to attack, made once, and whether a run came to the same end as an unbroken one."""

import functools
import json
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from cmbench.cli import main  # noqa: F401 - imported before the first fork
from torture import _commands, _operations
from torture._operations import Operation

TRAIN = ("run", "tiny.toml", "--foreground", "--set", "evaluate.true_error_n=4")
CLOCKS = {"time", "train_s", "images_per_s", "segment"}
RUN = "tiny-20260101-000000-0000"
PICTURE = r"[0-9]{8}_[0-9]+step\.(png|safetensors)"


@functools.cache
def templates() -> Path:
    """Return a folder of runs folders with one run each, made once: `finished`, `stopped` and `killed`."""
    folder = Path(tempfile.mkdtemp(dir=_commands.scratch()))
    _make(folder / "finished", None)
    _make(folder / "stopped", signal.SIGTERM)
    _make(folder / "killed", signal.SIGKILL)
    return folder


def _make(runs: Path, number: signal.Signals | None) -> None:
    """Train the tiny recipe to its end, or until its row of step 9 is written; a stop comes with a checkpoint."""

    def act(operation: Operation) -> None:
        if number and operation.path.endswith("metrics.jsonl") and b'"step":9' in operation.data:
            os.kill(os.getpid(), number)

    with _commands.workplace() as folder:
        ended = train(folder, act)
        wanted = {None: 0, signal.SIGTERM: 75, signal.SIGKILL: -9}[number]
        if ended.code != wanted:
            raise RuntimeError(f"a run to attack ended with {ended.code}: {ended.err}")
        shutil.copytree(folder / "runs", runs, symlinks=True)
    (run,) = runs_of(runs)
    run.rename(runs / RUN)
    (runs / "latest").unlink(missing_ok=True)
    (runs / "latest").symlink_to(RUN)


def train(folder: Path, before: Any = None, *arguments: str, **options: Any) -> _commands.Ended:
    """Train in a child that calls `before` at each of its operations on files in the runs folder."""

    def watched() -> None:
        if before is not None:
            _Clock().install()
            _operations.watch(folder / "runs", before)
        _commands.call(arguments or TRAIN)

    return _commands._processes.forked(watched, folder, _commands.environment(folder), **options)


class _Clock:
    """Time that passes by calls and by sleeps: what happens every second happens at the same place each time."""

    def __init__(self) -> None:
        self.now, self.really_sleep = 0.0, time.sleep

    def install(self) -> None:
        """Be this process's clock."""
        time.monotonic, time.sleep = self.read, self.sleep

    def read(self) -> float:
        """Return the time, a little later than before."""
        self.now += 0.002
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass, the most of it at once."""
        self.now += seconds
        self.really_sleep(min(seconds, 0.05))


def resume(folder: Path, run: Path, before: Any = None, **options: Any) -> _commands.Ended:
    """Resume a run in a child, as `train` trains."""
    return train(folder, before, "resume", str(run), "--foreground", **options)


@functools.cache
def operations(template: str | None) -> tuple[Operation, ...]:
    """Return what training does to files, from its start or from a template's end: the same each time but for names.

    Of their data the beginning alone is kept.
    """
    with _commands.workplace(template and templates() / template) as folder, (folder / "log").open("ab") as log:

        def note(operation: Operation) -> None:
            at = os.path.relpath(operation.path, folder / "runs")
            head = operation.data[:400].decode("latin-1")
            log.write(json.dumps([operation.number, operation.kind, at, head]).encode() + b"\n")
            log.flush()

        ended = resume(folder, folder / "runs" / RUN, note) if template else train(folder, note)
        if ended.code:
            raise RuntimeError(f"training ended with {ended.code}: {ended.err}")
        found = [json.loads(line) for line in (folder / "log").read_bytes().splitlines()]
    return tuple(Operation(number, kind, path, data=head.encode("latin-1")) for number, kind, path, head in found)


def in_training(start: str | None) -> range:
    """Return the numbers of operations while steps are made: after the journal says so, before the row of step 9."""
    found = operations(start)
    first = next(o.number for o in found if b'"kind":"started"' in o.data or b'"kind":"resumed"' in o.data)
    last = next(o.number for o in found if o.path.endswith("metrics.jsonl") and b'"step":9' in o.data)
    return range(first + 2, last + 1)


def attempt(folder: Path, start: str | None, before: Any) -> _commands.Ended:
    """Train a new run, or resume the template that lies in the folder."""
    return resume(folder, folder / "runs" / RUN, before) if start else train(folder, before)


def runs_of(folder: Path) -> list[Path]:
    """Return the runs of a folder."""
    return sorted(path.parent for path in folder.glob("*/recipe.toml") if not path.parent.is_symlink())


def unbroken() -> Path:
    """Return the run that others are compared with."""
    return templates() / "finished" / RUN


def outcome(run: Path) -> dict[str, Any]:
    """Return all that must be equal bit for bit: the last checkpoint, the rows without clocks, the snapshots.

    Read without the program's own readers, so that a mistake of these is no excuse.
    """
    folders = [path.parent for path in (run / "checkpoints").glob("*/state.json")]  # other folders may lie beside them
    steps = sorted(path.name for path in folders if path.name.isdigit() and len(path.name) == 8)
    last = run / "checkpoints" / steps[-1] if steps else None
    found: dict[str, Any] = {"checkpoint": steps[-1] if steps else None}
    if last is not None:
        found |= {f"checkpoint {path.name}": path.read_bytes() for path in sorted(last.glob("*.safetensors"))}
    found |= {name: rows(run / f"{name}.jsonl") for name in ("metrics", "profiles")}
    pictures = [path for path in sorted(run.glob("snapshots/*")) if re.fullmatch(PICTURE, path.name) and path.is_file()]
    return found | {f"snapshot {path.name}": path.read_bytes() for path in pictures}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log that count."""
    kept: list[dict[str, Any]] = []
    if not path.is_file():
        return kept
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if "first_step" in row:
            kept = [other for other in kept if other["step"] < row["first_step"]]
        else:
            kept.append(row)
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in kept]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the rows of the journal of one kind."""
    return [row for row in rows(run / "events.jsonl") if row.get("kind") == kind]


def difference(run: Path) -> str:
    """Return in what a run differs from the unbroken one, or an empty string."""
    mine, theirs = outcome(run), outcome(unbroken())
    wrong = [key for key in {**theirs, **mine} if mine.get(key) != theirs.get(key)]
    return f"differs from an unbroken run in {', '.join(wrong)}" if wrong else ""


def debris(runs: Path) -> str:
    """Return what a crash left behind that nobody removed, or an empty string."""
    found = [path for path in runs.iterdir() if path.name != "latest" and path not in runs_of(runs)]
    for run in runs_of(runs):
        found += [p for p in run.rglob("*") if p.name.startswith(".") or p.suffix in (".tmp", ".old")]
    return f"left behind: {', '.join(str(path.relative_to(runs)) for path in found)}" if found else ""


def taken_up(folder: Path, swept: bool = True) -> str:
    """Bring what a crash left in a runs folder to its end, and return what was lost; what is not a run yet is new.

    A run that ends is like an unbroken one, bit for bit. Where it is to be `swept`, nothing of a run that was not made
    may stay behind.
    """
    runs = folder / "runs"
    listed = _commands.cmbench(folder, "ls", "--json")
    if listed.code:
        return f"ls: {_commands.complaint(listed, {0})}"
    found = json.loads(listed.out)["runs"]
    if len(found) > 1:
        return f"{len(found)} runs where one was made"
    if not found:
        ended = train(folder)
    elif found[0]["state"] == "finished":
        ended = _commands.Ended(0, "", "")
    else:
        ended = resume(folder, Path(found[0]["path"]))
    if ended.code:
        return f"{'resume' if found else 'run'}: {_commands.complaint(ended, {0})}"
    (run,) = runs_of(runs)
    if not found:
        return difference(run) or (debris(runs) if swept else "")
    return difference(run) or (debris(runs) if found[0]["state"] != "finished" else "")
