"""The set-up: what is tested serves every Python, and an environment is made whole or not at all."""

import argparse
import ast
import importlib.util
import itertools
import json
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = script("install")


def pins(python: str) -> dict[str, str]:
    """Return the tested version of each package on a Python."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    here = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    found = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate(here)]
    assert len({each.name for each in found}) == len(found)
    return {each.name: str(each.specifier).removeprefix("==") for each in found}


@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_project_needs_is_pinned_within_its_bounds(python):
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    tested = pins(python)
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(tested[requirement.name]), requirement


def test_all_pythons_train_with_one_torch_of_any_build():
    assert {(pins(python)["torch"], pins(python)["torchvision"]) for python in PYTHONS} == {("2.14.1", "0.29.1")}
    assert Requirement("torch==2.14.1").specifier.contains("2.14.1+cpu")
    brought = [name for name in pins("3.11") if name.startswith(("nvidia-c", "nvidia-n", "cuda-", "triton"))]
    assert brought == []  # a build for CPUs brings none of them


def test_no_index_is_named():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]


def test_a_python_that_is_too_old_can_read_the_script():
    ast.parse((ROOT / "scripts" / "install.py").read_text(), feature_version=(3, 6))


def test_a_python_that_is_too_old_is_told_so(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(install.RefusedError, match=r"needs Python 3\.10 or newer; .* try make PYTHON="):
        install.check_python()


def test_the_pythons_found_run():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "pythons.py"], capture_output=True, text=True, check=True)
    versions = []
    for command in done.stdout.split():
        code = "import sys; print(sys.version_info[1])"
        versions.append(int(subprocess.run([command, "-c", code], capture_output=True, check=True).stdout))
    assert versions == sorted(set(versions))
    assert min(versions) >= 10


@pytest.fixture
def asked(tmp_path, monkeypatch) -> argparse.Namespace:
    """What the command line asked for; nothing is downloaded, and each environment is a folder with a file."""
    made: list[str] = []

    def fill(venv, wanted, pins):
        made.append(wanted["packages"])

    monkeypatch.setattr(install, "check_disk", lambda venv, needed: None)
    call = install.call
    monkeypatch.setattr(install, "call", lambda command: call([*command, "--without-pip"]))  # which takes seconds
    monkeypatch.setattr(install, "fill", fill)
    options = {"dev": False, "own_torch": False, "this_python": False, "packages": "tested", "made": made}
    return argparse.Namespace(venv=tmp_path / "venv", **options)


def test_an_environment_is_made_once_and_again_when_what_is_tested_changes(asked, monkeypatch, tmp_path):
    install.install(asked)
    assert (asked.venv / "bin" / "python").exists()
    assert not (asked.venv / ".begun").exists()
    install.install(asked)
    assert asked.made == ["tested"]
    asked.dev = True
    install.install(asked)
    asked.dev = False
    install.install(asked)  # more is there than is asked for
    assert asked.made == ["tested"] * 2
    (tmp_path / "other.txt").write_text("numpy==9.9\n")
    monkeypatch.setattr(install, "TESTED", tmp_path / "other.txt")
    install.install(asked)
    assert asked.made == ["tested"] * 3


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def fill_the_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("ends", [interrupt, fill_the_disk])
def test_what_is_interrupted_leaves_nothing(asked, monkeypatch, ends):
    with monkeypatch.context() as patch:
        patch.setattr(install, "fill", ends)
        with pytest.raises(install.RefusedError, match=r"interrupted; the same command goes on|No space left"):
            install.install(asked)
    assert not asked.venv.exists()
    install.install(asked)
    assert asked.made == ["tested"]


def change_what_is_tested(asked, monkeypatch, tmp_path):
    (tmp_path / "other.txt").write_text("numpy==9.9\n")
    monkeypatch.setattr(install, "TESTED", tmp_path / "other.txt")


def ask_for_developers_tools(asked, monkeypatch, tmp_path):
    asked.dev = True


def ask_for_another_python(asked, monkeypatch, tmp_path):
    stamp = asked.venv / ".installed"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "python": "3.10.0"}))
    asked.this_python = True


def ask_for_the_newest(asked, monkeypatch, tmp_path):
    asked.packages = "newest"


def refuse(*arguments):
    raise install.RefusedError("the package index cannot be reached")


class KilledError(BaseException):
    """Stands for an end after which nothing is done any more."""


def kill(*arguments, **options):
    raise KilledError


def everything(folder):
    return {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in folder.rglob("*") if p.name[:1] != "."}


UPDATES = [change_what_is_tested, ask_for_developers_tools]
REMAKES = [ask_for_another_python, ask_for_the_newest]


@pytest.mark.parametrize("change", [*UPDATES, *REMAKES])
@pytest.mark.parametrize("ends", [interrupt, fill_the_disk, refuse])
def test_an_environment_that_worked_outlasts_an_update_that_does_not_come_through(
    asked, monkeypatch, tmp_path, change, ends
):
    install.install(asked)
    (asked.venv / "bin" / "extra").write_text("mine")
    before = everything(asked.venv)
    change(asked, monkeypatch, tmp_path)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(install, "fill", ends)
            with pytest.raises(install.RefusedError):
                install.install(asked)
        assert everything(asked.venv) == before
    install.install(asked)  # takes it up
    install.install(asked)
    assert len(asked.made) == 2
    assert (asked.venv / "bin" / "extra").exists() == (change in UPDATES)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["venv"]


@pytest.mark.parametrize(
    ("change", "at"),
    [*((each, at) for each in REMAKES for at in ("mkdir", "touch", "fill", "write_stamp")), (UPDATES[0], "fill")],
)
def test_a_kill_leaves_an_environment_that_worked_to_the_next_call(asked, monkeypatch, tmp_path, change, at):
    install.install(asked)
    before = everything(asked.venv)
    change(asked, monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(install.Path if at in ("mkdir", "touch") else install, at, kill)
        patch.setattr(install, "settle", lambda *folders: None)  # nor does `finally` do anything
        patch.setattr(install, "remove", lambda folder: None)
        with pytest.raises(KilledError):
            install.install(asked)
    with monkeypatch.context() as patch:
        patch.setattr(install, "fill", refuse)
        with pytest.raises(install.RefusedError):
            install.install(asked)
    assert everything(asked.venv) == before
    install.install(asked)
    made = list(asked.made)
    install.install(asked)
    assert asked.made == made
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["venv"]


def test_a_kill_while_the_old_environment_is_removed_leaves_the_new_one(asked, monkeypatch, tmp_path):
    install.install(asked)
    asked.packages = "newest"
    with monkeypatch.context() as patch:
        patch.setattr(install.shutil, "rmtree", kill)
        with pytest.raises(KilledError):
            install.install(asked)
    assert (tmp_path / "venv.before").exists()
    install.install(asked)
    assert asked.made == ["tested", "newest"]
    assert [path.name for path in tmp_path.iterdir()] == ["venv"]


def test_an_environment_whose_python_is_gone_is_made_anew(asked):
    install.install(asked)
    (asked.venv / "bin" / "python").unlink()
    (asked.venv / "half").touch()
    install.install(asked)
    assert (asked.venv / "bin" / "python").exists()
    assert not (asked.venv / "half").exists()


def test_the_disk_is_asked_for_the_room_of_new_environments_alone(asked, monkeypatch, tmp_path):
    wanted = []
    monkeypatch.setattr(install, "check_disk", lambda venv, needed: wanted.append(needed))
    install.install(asked)
    for change in UPDATES:
        change(asked, monkeypatch, tmp_path)
        install.install(asked)
    assert wanted == [install.DISK]
    asked.packages = "newest"
    install.install(asked)
    assert wanted == [install.DISK] * 2


def test_an_environment_behind_a_link_is_made_and_remade_there(asked, tmp_path):
    (tmp_path / "disk").mkdir()
    asked.venv.symlink_to(tmp_path / "disk" / "venv")
    install.install(asked)
    asked.packages = "newest"
    install.install(asked)
    assert asked.venv.is_symlink()
    assert (asked.venv / "bin" / "python").exists()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["venv"]


def test_what_a_kill_left_half_installed_is_made_anew(asked):
    asked.venv.mkdir()
    (asked.venv / ".begun").touch()
    (asked.venv / "half").touch()
    install.install(asked)
    assert not (asked.venv / "half").exists()
    assert (asked.venv / "bin" / "python").exists()


def test_a_removal_that_is_interrupted_is_taken_up(asked, monkeypatch):
    install.install(asked)
    with monkeypatch.context() as patch:
        patch.setattr(install.shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            install.remove(asked.venv)
    assert (asked.venv / ".begun").exists()
    (asked.venv / "half").touch()
    install.install(asked)
    assert asked.made == ["tested"] * 2
    assert not (asked.venv / "half").exists()


def test_an_environment_of_another_python_is_made_anew_only_where_a_python_was_named(asked):
    install.install(asked)
    stamp = asked.venv / ".installed"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "python": "3.10.0"}))
    (asked.venv / "kept").touch()
    install.install(asked)
    assert (asked.venv / "kept").exists()
    asked.this_python = True
    install.install(asked)
    assert not (asked.venv / "kept").exists()


def test_what_somebody_else_made_is_used_and_never_removed(asked, monkeypatch):
    asked.venv.mkdir()
    with pytest.raises(install.RefusedError, match="is not a virtual environment"):
        install.install(asked)
    (asked.venv / "pyvenv.cfg").write_text("version = 3.1.4\n")
    (asked.venv / "bin").mkdir()
    (asked.venv / "bin" / "python").touch()
    with monkeypatch.context() as patch:
        patch.setattr(install, "fill", interrupt)
        with pytest.raises(install.RefusedError, match="interrupted"):
            install.install(asked)
    assert (asked.venv / "bin" / "python").exists()
    install.install(asked)
    asked.packages = "newest"
    install.install(asked)
    assert asked.made == ["tested", "newest"]
    assert (asked.venv / "pyvenv.cfg").read_text() == "version = 3.1.4\n"
    asked.this_python = True
    with pytest.raises(install.RefusedError, match="was not made by make, and for another Python"):
        install.install(asked)


def test_a_torch_of_ones_own_is_pinned_and_shared(asked, monkeypatch):
    asked.own_torch, filled = True, []
    monkeypatch.setattr(install, "fill", lambda venv, wanted, pins: filled.extend(pins))
    install.install(asked)
    assert {f"{name}==={metadata.version(name)}" for name in ("torch", "numpy")} <= set(filled)
    code = "import importlib.util as u; print(u.find_spec('torch').origin)"
    found = subprocess.run([asked.venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).samefile(importlib.util.find_spec("torch").origin)


def test_too_little_disk_is_said_before_anything_is_made(tmp_path):
    with pytest.raises(install.RefusedError, match=r"wants 9999999\.0 GB of disk, and .* GB free"):
        install.check_disk(tmp_path / "not" / "there", 9999999.0)


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("WARNING: Retrying ... NameResolutionError(...)\nERROR: No matching distribution found", "no network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Collecting a\nERROR: Cannot install a and b\nmore", "ERROR: Cannot install a and b"),
        ("", "without a word"),
    ],
)
def test_an_error_of_pip_is_one_line(output, line):
    said = install.reason(output)
    assert line in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("command", "said"),
    [("run", "stops with a checkpoint ..."), ("resume", "stops with a checkpoint ..."), ("watch", "goes on by itself")],
)
def test_what_an_interrupted_demo_says_of_its_run_is_so(monkeypatch, capfd, command, said):
    demo = script("demo")
    before = signal.getsignal(signal.SIGINT)
    prints = "import os, signal; os.kill(os.getppid(), signal.SIGINT)"
    monkeypatch.setattr(demo, "COMMAND", [sys.executable, "-c", prints])
    try:
        assert demo.follow([command, "x"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert said in capfd.readouterr().out
