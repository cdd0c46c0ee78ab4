"""Run directories and working directories of strangers, which want to be executed, imported, obeyed or followed."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs, _traps
from torture._attack import Attack, replaced

COMMANDS = {
    "ls": ("ls",),
    "show": ("show", "RUN"),
    "watch": ("watch", "RUN"),
    "follow": ("watch", "RUN", "--plain"),
    "compare": ("compare", "RUN", "RUN", "--plain"),
    "sample": ("sample", "RUN", "--device", "cpu"),
    "eval": ("eval", "RUN", "--n", "32", "--repeats", "1", "--steps", "1"),
    "resume": ("resume", "RUN", "--foreground"),
    "resume best": ("resume", "RUN", "--foreground", "--checkpoint", "best"),
    "stop": ("stop", "RUN"),
    "teacher": (
        "run",
        "tiny.toml",
        "--foreground",
        "--set",
        "teacher.kind=run",
        "--set",
        "teacher.run=RUN",
        "--set",
        "objective.kind=cd",
    ),
    "start": ("run", "tiny.toml", "--foreground", "--set", "start.run=RUN"),
}
ENTER = ("sample", "resume", "teacher", "start", "eval", "show", "watch")  # the likeliest first

ALL = (*ENTER, *(name for name in COMMANDS if name not in ENTER))


class Trap(NamedTuple):
    """What a stranger has laid, and the command that walks into it."""

    trap: str
    command: str


TRAPS: dict[str, tuple[_traps.Trap, tuple[str, ...]]] = {
    "a network's class": (
        _traps.own_class("network", "mlp"),
        (*ENTER, *(name for name in COMMANDS if name not in ENTER)),
    ),
    "an objective's class": (_traps.own_class("objective", "ct"), ENTER),
    "a data set's class": (_traps.own_class("data", "mixtures"), ENTER),
    "a class in a package": (_traps.own_class("network", "mlp", "runs.evil"), ENTER),
    "a teacher's class": (_traps.teacher_class, ENTER),
    "a module of the library": (_traps.of_the_library, ENTER),
    "modules of meta.json's directory": (_traps.shadowing, ("resume", "resume best", "sample", "eval")),
    "git in meta.json's directory": (_traps.git("directory"), ("resume", "resume best")),
    "git in the run": (_traps.git("run"), ("enter and resume", "resume")),
    "git in the runs folder": (_traps.git("runs"), ("resume", "run beside it")),
    "pickles": (_traps.pickles, ("sample", "eval", "resume", "teacher", "start")),
    "a kept teacher": (_traps.kept("teacher"), ("resume", "show", "eval")),
    "kept first weights": (_traps.kept("start"), ("resume", "show", "eval")),
    "extends": (_traps.extends, ENTER),
    "too many threads": (_traps.threads(99_999_999), ("resume",)),
    "threads that are none": (_traps.threads("x"), ("resume", "resume best")),
    "HTML and templates": (_traps.html, ("page",)),
    "a library's name in the working directory": (lambda folder, run: None, ("modules",)),
}


def cases(count: int, seed: int) -> list[Trap]:
    found = [Trap(trap, command) for trap, (_, commands) in TRAPS.items() for command in commands]
    found = found[seed % len(found) :] + found[: seed % len(found)]
    if count < len(found):  # one of each trap before a second
        found.sort(key=lambda case: TRAPS[case.trap][1].index(case.command))
    return (found * (count // len(found) + 1))[:count]


def check(case: Trap) -> str:
    with _commands.workplace(_runs.templates() / "stopped") as folder:
        run = folder / "runs" / _runs.RUN
        TRAPS[case.trap][0](folder, run)
        wrong = _walked(case, folder, run)
        if (folder / "OWNED").exists():
            return f"executed what a stranger laid; {wrong or 'no complaint'}"
        return wrong


def _walked(case: Trap, folder: Path, run: Path) -> str:
    if case.command == "modules":
        return _shadowed(folder)
    if case.command == "page":
        return _page(folder)
    if case.command == "run beside it":
        return _commands.complaint(_runs.train(folder), {0})
    arguments = COMMANDS["resume" if case.command.startswith("enter") else case.command]
    name = "." if case.command.startswith("enter") else str(run)
    arguments = tuple(part.replace("RUN", name) for part in arguments)
    ended = _commands.cmbench(folder, *arguments, cwd=run if name == "." else folder)
    if "Beautiful is better than ugly" in ended.out:
        return "imported a module of the library for a stranger"
    return _commands.complaint(ended, {0, 2, 3, 4, 5})


def _shadowed(folder: Path) -> str:
    """Run `python -m cmbench` where files are called as the library's."""
    for name in (
        "random",
        "typing",
        "json",
        "typer",
        "torch",
        "rich",
        "numpy",
        "tomli",
        "pydantic",
        "signal",
    ):
        (folder / f"{name}.py").write_text(_traps.bait(folder))
    environment = _commands.environment(folder)
    done = subprocess.run(
        [sys.executable, "-m", "cmbench", "ls"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-200:]}"


class _Reader(HTMLParser):
    """Collects what a page would execute or load."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            remote = name in ("src", "href", "data", "action") and not (value or "").startswith(("data:", "#"))
            if name.startswith("on") or remote or tag in ("iframe", "object", "embed", "link", "base"):
                self.active.append(f"<{tag} {name}={value!r:.60}>")


def _page(folder: Path) -> str:
    (run,) = (folder / "runs").glob("tiny*")
    ended = _commands.cmbench(folder, "compare", str(run), str(run), "--html", "page.html", memory=None)
    if ended.code:
        return _commands.complaint(ended, {0})
    text = (folder / "page.html").read_text()
    reader = _Reader()
    reader.feed(text)
    if reader.active:
        return f"the page would obey {', '.join(reader.active)}"
    if "alert('OWNED')</script>" in text or "1337" in re.sub(r"data:[^\"']*", "", text):
        return "the page holds what was written to be obeyed"
    return ""


def spoilt():
    """Import whatever a recipe names, before anyone is asked."""
    from cmbench import recipe

    check_tables = recipe.check_tables

    def wrong(tables, where):
        for found in Path.cwd().glob("evil.py"):
            exec(found.read_text(), {})
        return check_tables(tables, where)

    return replaced(recipe, "check_tables", wrong)


ATTACK = Attack(
    "foreign",
    "A run directory is data: nothing in it, nor in the folder that it names, is executed, imported or obeyed, and no "
    "pickle is read.",
    tries=sum(len(commands) for _, commands in TRAPS.values()),
    short=8,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="executed what a stranger laid",
)
