"""What strangers lay into a run directory, or beside it, to be executed, imported or obeyed."""

import json
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from torture import _commands

Trap = Callable[[Path, Path], None]  # of a user's folder and a run


def threads(found: object) -> Trap:
    """Let meta.json ask for threads that no machine has, or for something else."""

    def lay(folder: Path, run: Path) -> None:
        meta = json.loads((run / "meta.json").read_text())
        (run / "meta.json").write_text(json.dumps({**meta, "threads": found}))

    return lay


def bait(folder: Path) -> str:
    """Return Python that leaves a mark when it runs."""
    return f"open({str(folder / 'OWNED')!r}, 'a').close()\n"


def _component(folder: Path) -> str:
    return bait(folder) + "class Config: pass\nclass Network: pass\nNetwork.__init__ = lambda *a, **k: 1 / 0\n"


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def own_class(table: str, old: str, module: str = "evil") -> Trap:
    """Name a class of a stranger's in the recipe, whose module lies wherever it may be looked for."""

    def lay(folder: Path, run: Path) -> None:
        for place in (folder, run, folder / "elsewhere"):
            target = place / (module.replace(".", "/") + ".py")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_component(folder))
        _edit(run / "recipe.toml", f'kind = "{old}"', f'kind = "{module}:Network"')
        _directory(folder / "elsewhere")(folder, run)

    return lay


def _directory(there: Path) -> Trap:
    def lay(folder: Path, run: Path) -> None:
        meta = json.loads((run / "meta.json").read_text())
        (run / "meta.json").write_text(json.dumps({**meta, "directory": str(there)}))

    return lay


def shadowing(folder: Path, run: Path) -> None:
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
        (there / f"{name}.py").write_text(bait(folder))
    _directory(there)(folder, run)


def git(where: str) -> Trap:
    """Lay a repository whose settings run a script."""

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


def pickles(folder: Path, run: Path) -> None:
    """Put pickles in the place of weights, and beside them."""
    for path in sorted((run / "checkpoints").rglob("*.safetensors")):
        path.write_bytes(pickle.dumps(_Pickled(folder / "OWNED")))
    for name in ("model.pt", "model.pkl", "state.pkl", "optimizer.bin"):
        for step in (run / "checkpoints").iterdir():
            (step / name).write_bytes(pickle.dumps(_Pickled(folder / "OWNED")))


def kept(name: str) -> Trap:
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


def teacher_class(folder: Path, run: Path) -> None:
    """Name a stranger's class as teacher."""
    (folder / "evil.py").write_text(_component(folder))
    _edit(run / "recipe.toml", "[objective]", '[teacher]\nkind = "evil:Network"\n\n[objective]')


def extends(folder: Path, run: Path) -> None:
    """Let the recipe extend one that names a stranger's class."""
    (folder / "evil.py").write_text(_component(folder))
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "parent.toml").write_text('[network]\nkind = "evil:Network"\n')
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(
        f'extends = "{folder}/elsewhere/parent.toml"\n' + re.sub(r"\[network\][^\[]*", "", text)
    )


def of_the_library(folder: Path, run: Path) -> None:
    """A module that does something when it is imported, and lies in the library."""
    _edit(run / "recipe.toml", 'kind = "mlp"', 'kind = "this:s"')


HTML = "<script>alert('OWNED')</script><img src=x onerror=alert(1)>\"'{{7*191}}{% raw %}"


def html(folder: Path, run: Path) -> None:
    """Write scripts and templates into all that a page shows."""
    (run / "annotations.json").write_text(json.dumps({"note": HTML, "tags": [HTML, 'x" onload=alert(1) y="']}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"segment": 1, "step": 9, "time": 1.0, HTML: 1.5, "loss": 1.0}) + "\n")
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"segment": 1, "step": 9, "time": 1.0, "kind": "warning", "text": HTML}) + "\n")
    meta = json.loads((run / "meta.json").read_text())
    (run / "meta.json").write_text(json.dumps({**meta, "host": HTML, "device": HTML}))
    run.rename(run.with_name("tiny<script>alert(1)<!--"))
