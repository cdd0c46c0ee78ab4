"""Run directories and working directories of strangers, which want to be executed, imported, obeyed or followed."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
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


class Trap(NamedTuple):
    """What a stranger has laid, and the command that walks into it."""

    trap: str
    command: str


def _bait(folder: Path) -> str:
    """Return Python that leaves a mark when it runs."""
    return f"open({str(folder / 'OWNED')!r}, 'a').close()\n"


def _component(folder: Path) -> str:
    return _bait(folder) + "class Config: pass\nclass Network: pass\nNetwork.__init__ = lambda *a, **k: 1 / 0\n"


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _own_class(table: str, old: str, module: str = "evil") -> Callable[[Path, Path], None]:
    def lay(folder: Path, run: Path) -> None:
        for place in (folder, run, folder / "elsewhere"):
            target = place / (module.replace(".", "/") + ".py")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_component(folder))
        _edit(run / "recipe.toml", f'kind = "{old}"', f'kind = "{module}:Network"')
        _directory(folder / "elsewhere")(folder, run)

    return lay


def _directory(there: Path) -> Callable[[Path, Path], None]:
    def lay(folder: Path, run: Path) -> None:
        meta = json.loads((run / "meta.json").read_text())
        (run / "meta.json").write_text(json.dumps({**meta, "directory": str(there)}))

    return lay


def _shadowing(folder: Path, run: Path) -> None:
    """Modules in meta.json's directory that are called as those that are imported late."""
    there = folder / "elsewhere"
    there.mkdir()
    for name in (
        "plotext",
        "matplotlib",
        "psutil",
        "sitecustomize",
        "usercustomize",
        "textual_serve",
        "tomli_w",
        "evil",
    ):
        (there / f"{name}.py").write_text(_bait(folder))
    _directory(there)(folder, run)


def _git(where: str) -> Callable[[Path, Path], None]:
    def lay(folder: Path, run: Path) -> None:
        there = {"directory": folder / "elsewhere", "run": run, "runs": folder / "runs"}[where]
        there.mkdir(exist_ok=True)
        subprocess.run(["git", "init", "-q", str(there)], check=True, env=_commands.environment(folder))
        script = folder / "hook.sh"
        script.write_text(f"#!/bin/sh\ntouch {folder}/OWNED\n")
        script.chmod(0o755)
        with (there / ".git" / "config").open("a") as config:
            config.write(
                f'[core]\nfsmonitor = "{script}"\nhooksPath = "{folder}"\npager = "{script}"\nsshCommand = "{script}"\n'
            )
            config.write(f'[diff]\nexternal = "{script}"\n[filter "x"]\nclean = "{script}"\nprocess = "{script}"\n')
        (there / ".git" / "info").mkdir(exist_ok=True)
        (there / ".git" / "info" / "attributes").write_text("* filter=x\n")
        _directory(there)(folder, run)

    return lay


class _Pickled:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return open, (str(self.path), "a")


def _pickle(folder: Path, run: Path) -> None:
    for path in sorted((run / "checkpoints").rglob("*.safetensors")):
        path.write_bytes(pickle.dumps(_Pickled(folder / "OWNED")))
    for name in ("model.pt", "model.pkl", "state.pkl", "optimizer.bin"):
        for step in (run / "checkpoints").iterdir():
            (step / name).write_bytes(pickle.dumps(_Pickled(folder / "OWNED")))


def _kept(name: str) -> Callable[[Path, Path], None]:
    """A run's own copy of another run's weights, with a class of a stranger."""

    def lay(folder: Path, run: Path) -> None:
        kept = run / name
        kept.mkdir()
        (folder / "evil.py").write_text(_component(folder))
        newest = sorted((run / "checkpoints").iterdir())[-1]
        shutil.copy(newest / "model.safetensors", kept / "model.safetensors")
        import tomli

        recipe = tomli.loads((run / "recipe.toml").read_text())
        recipe["network"] = {"kind": "evil:Network"}
        about = {"sha256": None, "shape": [2], "classes": 1, "step": 1, "ema": "none", "recipe": recipe}
        (kept / "teacher.json").write_text(json.dumps(about))
        if name == "teacher":
            _edit(run / "recipe.toml", "[objective]", '[teacher]\nkind = "run"\nrun = "x"\n\n[objective]')
            _edit(run / "recipe.toml", 'kind = "ct"', 'kind = "cd"')
        else:
            _edit(run / "recipe.toml", "[objective]", '[start]\nrun = "x"\n\n[objective]')

    return lay


def _teacher_class(folder: Path, run: Path) -> None:
    (folder / "evil.py").write_text(_component(folder))
    _edit(run / "recipe.toml", "[objective]", '[teacher]\nkind = "evil:Network"\n\n[objective]')


def _extends(folder: Path, run: Path) -> None:
    (folder / "evil.py").write_text(_component(folder))
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "parent.toml").write_text('[network]\nkind = "evil:Network"\n')
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(
        f'extends = "{folder}/elsewhere/parent.toml"\n' + re.sub(r"\[network\][^\[]*", "", text)
    )


def _stdlib(folder: Path, run: Path) -> None:
    """A module that does something when it is imported, and lies in the library."""
    _edit(run / "recipe.toml", 'kind = "mlp"', 'kind = "this:s"')


HTML = "<script>alert('OWNED')</script><img src=x onerror=alert(1)>\"'{{7*191}}{% raw %}"


def _html(folder: Path, run: Path) -> None:
    (run / "annotations.json").write_text(json.dumps({"note": HTML, "tags": [HTML, 'x" onload=alert(1) y="']}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"segment": 1, "step": 9, "time": 1.0, HTML: 1.5, "loss": 1.0}) + "\n")
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"segment": 1, "step": 9, "time": 1.0, "kind": "warning", "text": HTML}) + "\n")
    meta = json.loads((run / "meta.json").read_text())
    (run / "meta.json").write_text(json.dumps({**meta, "host": HTML, "device": HTML}))
    run.rename(run.with_name("tiny<script>alert(1)<!--"))


TRAPS: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = {
    "a network's class": (_own_class("network", "mlp"), (*ENTER, *(name for name in COMMANDS if name not in ENTER))),
    "an objective's class": (_own_class("objective", "ct"), ENTER),
    "a data set's class": (_own_class("data", "mixtures"), ENTER),
    "a class in a package": (_own_class("network", "mlp", "runs.evil"), ENTER),
    "a teacher's class": (_teacher_class, ENTER),
    "a module of the library": (_stdlib, ENTER),
    "modules of meta.json's directory": (_shadowing, ("resume", "resume best", "sample", "eval")),
    "git in meta.json's directory": (_git("directory"), ("resume", "resume best")),
    "git in the run": (_git("run"), ("enter and resume", "resume")),
    "git in the runs folder": (_git("runs"), ("resume", "run beside it")),
    "pickles": (_pickle, ("sample", "eval", "resume", "teacher", "start")),
    "a kept teacher": (_kept("teacher"), ("resume", "show", "eval")),
    "kept first weights": (_kept("start"), ("resume", "show", "eval")),
    "extends": (_extends, ENTER),
    "HTML and templates": (_html, ("page",)),
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
    ended = _commands.cmbench(folder, *arguments, cwd=run if name == "." else folder, seconds=90)
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
        "cmbench",
        "tomli",
        "pydantic",
        "signal",
    ):
        (folder / f"{name}.py").write_text(_bait(folder))
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
    ended = _commands.cmbench(folder, "compare", str(run), str(run), "--html", "page.html", seconds=120, memory=None)
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
    short=len(TRAPS),
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="executed what a stranger laid",
)
