"""Commit and changes of a working directory, whatever its repository wants to have run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cmbench.engine.repository import look

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="wants git")


def git(folder: Path, *arguments: str) -> str:
    name = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **name}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def repository(folder: Path, *options: str) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", *options)
    (folder / "a.txt").write_text("one\n")
    (folder / "b.dat").write_text("one\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.mark.parametrize("options", [(), ("--object-format=sha256",)], ids=["sha1", "sha256"])
def test_commit_and_changes(tmp_path, options):
    folder = repository(tmp_path / "r", *options)
    clean = {"commit": git(folder, "rev-parse", "HEAD"), "dirty": False}
    dirty = {**clean, "dirty": True}
    (folder / "inside").mkdir()
    (folder / "x.log").touch()
    os.utime(folder / "a.txt", (0, 0))
    assert look(folder) == clean
    assert look(folder / "inside") == clean
    (folder / "unknown").touch()
    assert look(folder) == dirty
    (folder / ".git" / "info" / "exclude").write_text("unknown\n")
    assert look(folder) == clean
    (folder / "a.txt").write_text("two\n")
    assert look(folder) == dirty
    git(folder, "commit", "-q", "-a", "-m", "second")
    assert look(folder) == {"commit": git(folder, "rev-parse", "HEAD"), "dirty": False}
    (folder / "a.txt").unlink()
    assert look(folder)["dirty"] is True
    git(folder, "checkout", "-q", "a.txt")
    (folder / "a.txt").chmod(0o755)
    assert look(folder)["dirty"] is True
    git(folder, "config", "core.fileMode", "false")
    assert look(folder)["dirty"] is False


def test_a_second_worktree(tmp_path):
    folder = repository(tmp_path / "r")
    git(folder, "worktree", "add", "-q", "../second", "-b", "other")
    assert look(tmp_path / "second") == {"commit": git(folder, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "second" / "a.txt").write_text("two\n")
    assert look(tmp_path / "second")["dirty"] is True
    assert look(folder)["dirty"] is False


def test_no_repository_and_one_without_commits(tmp_path):
    assert look(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert look(tmp_path) is None


def evil_repository(tmp_path: Path) -> tuple[Path, Path]:
    """Make a repository that names a program in every place that git knows, and return the file that it would leave."""
    folder, ran = repository(tmp_path / "evil"), tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{ran}'\ncat\n")
    program.chmod(0o755)
    text = "a.txt filter=evil diff=evil\n*.dat filter=slow diff=evil\n"
    (folder / ".gitattributes").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "attributes")
    (folder / ".git" / "info" / "attributes").write_text(text)
    settings = {
        "core.fsmonitor": program,
        "core.untrackedCache": "true",
        "core.pager": program,
        "core.sshCommand": program,
        "core.editor": program,
        "core.askPass": program,
        "core.alternateRefsCommand": program,
        "core.hooksPath": tmp_path / "hooks",
        "diff.external": program,
        "diff.evil.command": program,
        "diff.evil.textconv": program,
        "filter.evil.clean": program,
        "filter.evil.smudge": program,
        "filter.slow.process": program,
        "filter.slow.required": "true",
        "alias.status": f"!{program}",
        "alias.rev-parse": f"!{program}",
        "alias.config": f"!{program}",
        "pager.status": program,
        "gpg.program": program,
        "credential.helper": f"!{program}",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{program}",
        "protocol.ext.allow": "always",
        "protocol.allow": "always",
        "status.submoduleSummary": "true",
        "include.path": tmp_path / "more",
    }
    (tmp_path / "more").write_text(f"[core]\nfsmonitor = {program}\n")
    git(folder, "config", "core.repositoryformatversion", "1")
    for key, value in settings.items():
        git(folder, "config", key, str(value))
    for hooks in (tmp_path / "hooks", folder / ".git" / "hooks"):
        hooks.mkdir(exist_ok=True)
        for hook in ("post-index-change", "fsmonitor-watchman", "pre-commit", "post-checkout", "reference-transaction"):
            shutil.copy(program, hooks / hook)
    ran.unlink(missing_ok=True)
    for name in ("a.txt", "b.dat"):
        os.utime(folder / name, (0, 0))  # so that their contents are looked at
    return folder, ran


def test_nothing_of_what_a_repository_names_is_run(tmp_path):
    folder, ran = evil_repository(tmp_path)
    assert look(folder)["dirty"] is False
    (folder / "a.txt").write_text("two\n")
    assert look(folder)["dirty"] is True
    assert not ran.exists(), ran.read_text()
    subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, check=False)
    assert ran.exists()  # as git by itself does


def test_an_object_that_was_never_fetched_is_not_fetched(tmp_path):
    folder, ran = evil_repository(tmp_path)
    git(folder, "config", "--unset", "core.fsmonitor")
    git(folder, "config", "--unset-all", "include.path")
    tree = subprocess.run(["git", "cat-file", "-p", "HEAD"], cwd=folder, capture_output=True, text=True).stdout.split()[
        1
    ]
    ran.unlink(missing_ok=True)
    (folder / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    assert look(folder)["dirty"] is None
    assert not ran.exists(), ran.read_text()


def test_a_submodule_is_not_entered(tmp_path):
    folder, ran = evil_repository(tmp_path)
    outer = repository(tmp_path / "outer")
    shutil.move(folder, outer / "evil")
    git(outer, "-c", "core.fsmonitor=false", "add", "evil")
    git(outer, "commit", "-q", "-m", "with it")
    ran.unlink(missing_ok=True)
    assert look(outer)["dirty"] is False
    assert not ran.exists(), ran.read_text()
