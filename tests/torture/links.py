"""Folders and files of a run that are links to somewhere else, where there are other people's things."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced

# Names that tempt whoever cleans up by patterns.
THINGS = {
    ".ssh/id_ed25519": b"a key",
    ".git/config": b"[core]",
    ".cache/x.tmp": b"a cache",
    ".notes.tmp": b"of an editor",
    ".thesis.old/1.tex": b"a thesis",
    ".hidden.json.4711.tmp": b"{}",
    "2024-budget.json": b'{"money": 1}',
    "2024/photo.png": b"a photo",
    "20250101/photo.png": b"a photo of a day",
    "20250102/model.safetensors": b"a model of a day",
    "00000011/plan.txt": b"the plan of the eleventh",
    "00000001_family.png": b"another photo",
    "abandoned-plans/plan.txt": b"a plan",
    "12 things.txt": b"a list",
}


class Layout(NamedTuple):
    """What of a run is a link, how, and whether the run must work with it (or may refuse, in one line)."""

    name: str
    works: bool
    template: str = "killed"
    arguments: tuple[str, ...] = ()


def _folder(name: str) -> Callable[[Path, Path], None]:
    """Move a folder of the run elsewhere, among other things, and leave a link."""

    def arrange(run: Path, outside: Path) -> None:
        for path in sorted((run / name).iterdir()) if (run / name).is_dir() else ():
            path.rename(outside / path.name)
        if (run / name).is_dir():
            (run / name).rmdir()
        (run / name).symlink_to(outside)

    return arrange


def _file(name: str) -> Callable[[Path, Path], None]:
    """Leave a link to somebody's file in the place of one of the run."""

    def arrange(run: Path, outside: Path) -> None:
        theirs = outside / "theirs"
        theirs.write_bytes((run / name).read_bytes() if (run / name).is_file() else b"not yours\n")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(theirs)

    return arrange


def _run(run: Path, outside: Path) -> None:
    shutil.move(run, outside / run.name)
    run.symlink_to(outside / run.name)


def _runs_folder(run: Path, outside: Path) -> None:
    runs = run.parent
    for path in runs.iterdir():
        shutil.move(path, outside / path.name)
    runs.rmdir()
    runs.symlink_to(outside)


def _step(run: Path, outside: Path) -> None:
    _folder("checkpoints/00000005")(run, outside)


def _latest(run: Path, outside: Path) -> None:
    (run.parent / "latest").unlink()
    (run.parent / "latest").symlink_to(outside)


LAYOUTS: dict[Layout, Callable[[Path, Path], None]] = {
    Layout("checkpoints", True): _folder("checkpoints"),
    Layout("checkpoints", True, "stopped"): _folder("checkpoints"),
    Layout("snapshots", True): _folder("snapshots"),
    Layout("control", True): _folder("control"),
    Layout("checkpoints/abandoned", True, "stopped", ("--checkpoint", "5")): _folder("checkpoints/abandoned"),
    Layout("snapshots/abandoned", True, "stopped", ("--checkpoint", "5")): _folder("snapshots/abandoned"),
    Layout("checkpoints", True, "stopped", ("--checkpoint", "5")): _folder("checkpoints"),
    Layout("snapshots", True, "stopped", ("--checkpoint", "5")): _folder("snapshots"),
    Layout("the run", True): _run,
    Layout("the runs folder", True): _runs_folder,
    Layout("latest", True): _latest,
    Layout("metrics.jsonl", False): _file("metrics.jsonl"),
    Layout("profiles.jsonl", False): _file("profiles.jsonl"),
    Layout("events.jsonl", False): _file("events.jsonl"),
    Layout("console.log", False): _file("console.log"),
    Layout("status.json", True): _file("status.json"),
    Layout("meta.json", False): _file("meta.json"),
    Layout("recipe.toml", False): _file("recipe.toml"),
    Layout("lock", False): _file("lock"),
    Layout("checkpoints/00000005", False): _step,
    Layout("checkpoints/.00000010.tmp", False): _folder("checkpoints/.00000010.tmp"),
    Layout("checkpoints/.00000010.old", False): _folder("checkpoints/.00000010.old"),
    Layout("checkpoints/00000010", False): _folder("checkpoints/00000010"),
    Layout("checkpoints/00000005.damaged", False): _folder("checkpoints/00000005.damaged"),
    Layout("snapshots/00000012_1step.png", False): _file("snapshots/00000012_1step.png"),
    Layout("control/1-0000.json", False): _file("control/1-0000.json"),
}


def cases(count: int, seed: int) -> list[Layout]:
    layouts = list(LAYOUTS)
    return [layouts[(i + seed) % len(layouts)] for i in range(count)]


def check(case: Layout) -> str:
    with _commands.workplace(_runs.templates() / case.template) as folder:
        run, outside = folder / "runs" / _runs.RUN, folder / "outside"
        for name, content in THINGS.items():
            (outside / name).parent.mkdir(parents=True, exist_ok=True)
            (outside / name).write_bytes(content)
        LAYOUTS[case](run, outside)
        theirs = [*THINGS, *(["theirs"] if (outside / "theirs").exists() else [])]
        before = {name: _told(outside / name) for name in theirs}
        ended = _runs.train(folder, None, "resume", str(run), "--foreground", *case.arguments)
        changed = [name for name in theirs if _told(outside / name) != before[name]]
        if changed:
            return f"not ours, and touched: {', '.join(changed)}"
        if wrong := _commands.complaint(ended, {0} if case.works else {0, 2, 4, 5}):
            return wrong
        return "" if ended.code else _runs.difference(run.resolve())


def _told(path: Path) -> object:
    return (path.read_bytes(), os.lstat(path).st_mode) if path.is_file() else None


def spoilt():
    """Remove by patterns at each checkpoint."""
    from cmbench.engine.recorder import Recorder

    save = Recorder.checkpoint

    def wrong(self, *arguments, **options):
        for path in self.run.checkpoints.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        return save(self, *arguments, **options)

    return replaced(Recorder, "checkpoint", wrong)


ATTACK = Attack(
    "links",
    "Folders of a run may be links to another disk; nothing there that is not the run's is changed or removed, and a "
    "log that is a link is refused.",
    tries=len(LAYOUTS),
    short=5,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="not ours, and touched",
)
