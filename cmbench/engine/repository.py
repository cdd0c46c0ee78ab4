"""Commit and changes of a working directory, from git, without running any program that the repository names.

A repository's configuration may name programs for almost anything: a file monitor, filters, hooks, a command that
fetches missing objects. So git looks at the files from a temporary repository of ours. It has the other's objects and
index, and from its configuration only the settings for files on this disk. The user's own configuration still applies.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PATIENCE = 5  # seconds
_DISK = r"^core\.(filemode|symlinks|ignorecase|precomposeunicode|autocrlf|eol)$"
_SAFE = ["core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never", "submodule.recurse=false"]


def look(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirty flag of the repository that contains a folder; None without a repository of the user's.

    The flag is None if it cannot be determined, as in a repository that has not fetched all of its files.
    """
    try:
        asked = ["--show-toplevel", "--git-path", "objects", "--git-path", "index", "--git-path", "info/exclude"]
        commit, top, objects, index, exclude = _ask(folder, ["rev-parse", "HEAD", *asked], {}).splitlines()
        places = [folder / place for place in (objects, index, exclude)]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    try:
        return {"commit": commit, "dirty": bool(_changes(folder, commit, Path(top), *places))}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"commit": commit, "dirty": None}


def _changes(folder: Path, commit: str, top: Path, objects: Path, index: Path, exclude: Path) -> str:
    """Return a line for each changed or untracked file."""
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(temporary)
        for part in ("objects", "refs", "info"):
            (own / part).mkdir()
        (own / "HEAD").write_text(f"{commit}\n")
        (own / "config").write_text(_config(folder, sha256=len(commit) == 64))
        if exclude.is_file():
            shutil.copyfile(exclude, own / "info" / "exclude")
        variables = {
            "GIT_DIR": str(own),
            "GIT_WORK_TREE": str(top),
            "GIT_INDEX_FILE": str(index),
            "GIT_OBJECT_DIRECTORY": str(objects),
        }
        return _ask(top, ["status", "--porcelain", "--ignore-submodules=all"], variables)


def _config(folder: Path, sha256: bool) -> str:
    """Return the configuration of our temporary repository: settings for files on disk, and the object format."""
    version = "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n" if sha256 else ""
    try:
        lines = _ask(folder, ["config", "--get-regexp", _DISK], {}).splitlines()
    except subprocess.CalledProcessError:  # no such settings
        lines = []
    keys = [line.removeprefix("core.").partition(" ") for line in lines]
    allowed = ("true", "false", "input", "lf", "crlf", "native")
    return version + "[core]\nbare = false\n" + "".join(f"{k} = {v}\n" for k, _, v in keys if v in allowed)


def _ask(folder: Path, arguments: Sequence[str], variables: dict[str, str]) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "none"}
    safe = [part for setting in _SAFE for part in ("-c", setting)]
    command = ["git", "--no-pager", *safe, *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, **quiet, "GIT_NO_LAZY_FETCH": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=_PATIENCE,
    )
    return done.stdout
