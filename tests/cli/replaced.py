"""Put something else in the place of each file of a run in turn, and run every command that reads runs.

    python replaced.py KIND FOLDER [EVERY]

FOLDER holds a good run, `good`, and copies of it are made; of its files every sixth is replaced where EVERY is 6. A
command that takes minutes, or much memory, or ends in a traceback, ends this with a word.
"""

import asyncio
import contextlib
import faulthandler
import io
import resource
import shutil
import sys
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parent.parent))

from other_kinds import KINDS

from cmbench.cli import main
from cmbench.rundir.layout import RunDir
from cmbench.tui.app import CmbenchApp
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.recipe import RecipeScreen
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.screens.snapshots import SnapshotsScreen

ROOM = 1 << 30  # bytes beside what the libraries take: less than half of what a sparse file or a device would fill
LONG = 600  # seconds, on a machine that does much else


def files_of(run: Path) -> list[Path]:
    """Return a run's files, of many alike one."""
    found = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != "lock"]
    return [path for i, path in enumerate(found) if path.suffix not in [p.suffix for p in found[:i]] or _is_own(path)]


def _is_own(path: Path) -> bool:
    return path.suffix in (".json", ".jsonl", ".toml")


def command(*arguments: object) -> str:
    """Run a command and return what it printed; the exit code is one for a mistake at worst."""
    sys.argv = ["cmbench", *map(str, arguments)]
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main.exit_code()
    if code not in (0, 2, 4):
        raise SystemExit(f"{sys.argv}: exit code {code}: {_text(said)[-2000:]}")
    return _text(said)


def _text(said: io.TextIOWrapper) -> str:
    said.seek(0)
    return said.read()


def read_by_commands(folder: Path, run: Path, place: Path) -> None:
    """Run the commands; where the good run is asked for too, it is told of."""
    options = ["--runs-dir", folder]
    for text in (command("ls", *options), command("ls", "--json", *options)):
        assert "good" in text, text
    command("show", run, *options)
    command("watch", run, "--plain", *options)
    command("watch", run, *options)
    assert "0.0" in command("compare", folder / "good", run, "--plain", *options)
    if place.name in ("recipe.toml", "meta.json", "metrics.jsonl", "state.json") or "safetensors" in place.name:
        command("sample", run, "--n", 2, "--out", folder.parent / "samples.png", *options)
        command("eval", run, "--n", 2, "--repeats", 2, "--steps", 1, "--measures", "sliced_wasserstein", *options)


async def read_by_screens(folder: Path, runs: list[Path]) -> None:
    """Open the browser, and of each run the dashboard, snapshots and recipe."""
    app = CmbenchApp(folder)
    async with app.run_test(size=(160, 45)) as pilot:
        for _ in range(600):
            await pilot.pause(0.05)
            if isinstance(app.screen, RunsScreen) and len(app.screen._glances) == len(runs) + 1:
                break
        else:
            raise SystemExit(f"{len(app.screen._glances)} of {len(runs) + 1} runs in the browser")
        for run in runs:
            faulthandler.dump_traceback_later(LONG, exit=True, file=sys.__stderr__)
            for screen in (DashboardScreen, SnapshotsScreen, RecipeScreen):
                await app.push_screen(screen(RunDir(run)))
                await pilot.pause(0.1)
                if reading := [worker for worker in app.workers if worker.group == "read"]:
                    await app.workers.wait_for_complete(reading)
                app.pop_screen()
                await pilot.pause()


def run_all(kind: str, folder: Path, every: int = 1) -> None:
    """Replace file by file."""
    good, bad = folder / "good", []
    command("eval", good, "--n", 2, "--repeats", 2, "--steps", 1, "--runs-dir", folder)  # so that there is an answer
    command("show", good, "--runs-dir", folder)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + ROOM,) * 2)
    names = [path.relative_to(good) for path in files_of(good)][::every]
    for name in names:
        run = folder / f"bad-{str(name).replace('/', '-')}"
        shutil.copytree(good, run)
        bad.append(run)
        if kind != "long line":
            (run / name).unlink()
        KINDS[kind](run / name)
        faulthandler.dump_traceback_later(LONG, exit=True, file=sys.__stderr__)
        read_by_commands(folder, run, name)
        faulthandler.cancel_dump_traceback_later()
    faulthandler.dump_traceback_later(LONG, exit=True, file=sys.__stderr__)
    asyncio.run(read_by_screens(folder, bad))
    print(f"{len(names)} files, {kind}: done")


if __name__ == "__main__":
    run_all(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
