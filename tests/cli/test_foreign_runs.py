"""A run directory is data: what its recipe names is imported for its own user, or with consent, and never else."""

import os
import py_compile
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import DISTILL, TINY, set_options
from waiting import until

from cmbench import consent, recipe
from cmbench.cli import _again
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir

# Leaves a mark when it is imported, and works.
MODULE = """
import pathlib
with pathlib.Path({mark!r}).open("a") as file:
    file.write("x")
from cmbench.config import Config
from cmbench.networks import mlp
class Network(mlp.Network):
    def __init__(self, config, shape, classes):
        super().__init__(mlp.Config(width=16, depth=1), shape, classes)
"""
OWN = ["network={kind='own_net:Network'}"]


@pytest.fixture
def mark(home: Path) -> Path:
    return home.with_name(f"{home.name}-mark")


def write_module(folder: Path, mark: Path, name: str = "own_net.py", more: str = "") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(MODULE.format(mark=str(mark)) + more)
    return file


def now_foreign(run: RunDir, kind: str = "own_net:Network") -> RunDir:
    """Let a run of the tiny recipe name a network of somebody's own."""
    text = run.recipe.read_text()
    run.recipe.write_text(re.sub(r"\[network\]\n(?:.+\n)+", f'[network]\nkind = "{kind}"\n', text))
    assert recipe.load(run.recipe).network == {"kind": kind}
    return run


def forget(name: str = "own_net") -> None:
    """Be a new process, as far as classes of one's own are concerned."""
    consent.forget()
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[module]


def stopped(run: RunDir) -> RunDir:
    """Let a run have been started here, and be stopped, and nothing be known of its samples."""
    shutil.rmtree(run.evaluations, ignore_errors=True)
    run.meta.write_bytes(to_json({**read_json(run.meta), "directory": str(Path.cwd())}))
    run.status.write_bytes(to_json({**(read_json(run.status) or {}), "state": "stopped"}))
    return run


def commands(run: RunDir) -> dict[str, list[str]]:
    return {
        "sample": ["sample", run.name],
        "export": ["export", run.name, "--as", "torch", "--out", "x"],
        "eval": ["eval", run.name, "--measures", "sliced_wasserstein", "--n", "8"],
        "resume": ["resume", run.name],
        "doctor": ["doctor", run.name],
        "doctor of the file": ["doctor", str(run.recipe)],
        "bench": ["bench", str(run.recipe), "--rounds", "1"],
        "check": ["recipe", "check", str(run.recipe)],
        "check of the source": ["recipe", "check", str(run.recipe_source)],
        "show": ["recipe", "show", str(run.recipe)],
        "schedules": ["recipe", "show", str(run.recipe), "--schedules"],
        "extends": ["recipe", "check", "extends.toml"],
        "run of the file": ["run", str(run.recipe)],
        "classifier": ["classifier", str(run.recipe), "--out", "x.safetensors"],
        "ablate": ["ablate", str(run.recipe), "--list"],
        "start": ["run", "tiny.toml", *set_options([f"start.run={run.name}"])],
    }


@pytest.mark.parametrize("command", commands(RunDir(Path("x"))))
def test_no_command_imports_what_a_foreign_run_names(cmbench, trained, home, mark, command):
    file = write_module(home, mark)
    stopped(now_foreign(trained))
    trained.recipe_source.write_text(trained.recipe.read_text())
    (home / "extends.toml").write_text(f'extends = "{trained.recipe}"')
    outcome = cmbench(*commands(trained)[command])
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    mentions = ("network.kind", "'own_net:Network'", str(file), "--trust")
    assert [part for part in mentions if part not in outcome.err] == []
    assert not mark.exists()
    assert "own_net" not in sys.modules
    assert str(home) not in sys.path


@pytest.mark.parametrize("named", ["run's", "linked", "extends"])
def test_a_link_out_of_a_run_directory_or_into_it_is_the_runs_recipe(cmbench, trained, home, mark, named):
    write_module(home, mark)
    now_foreign(trained)
    if named == "linked":
        (home / "mine.toml").symlink_to(trained.recipe)
    else:
        (home / "elsewhere").mkdir()
        trained.recipe.rename(home / "elsewhere" / "r.toml")
        trained.recipe.symlink_to(home / "elsewhere" / "r.toml")
        (home / "mine.toml").write_text(f'extends = "{trained.recipe}"')
    outcome = cmbench("recipe", "check", trained.recipe if named == "run's" else "mine.toml")
    assert outcome.code == 2
    assert "--trust" in outcome.err
    assert not mark.exists()


LEFT = {  # of a run directory that was handed over
    "samples/r.toml": (),
    "snapshots/deep/er/r.toml": (),
    "samples/r.toml of little": ("meta.json", "status.json", "events.jsonl", "metrics.jsonl", "lock", "control"),
    "recipe.toml": ("meta.json", "status.json", "events.jsonl", "metrics.jsonl", "lock", "checkpoints"),
}


@pytest.mark.parametrize("where", LEFT)
@pytest.mark.parametrize("how", ["named", "extends"])
def test_a_recipe_anywhere_in_a_run_directory_is_the_runs(cmbench, trained, home, mark, monkeypatch, where, how):
    write_module(home, mark)
    now_foreign(trained)
    for name in LEFT[where]:
        path = trained.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    file = trained.path / where.partition(" ")[0]
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(trained.recipe.read_text())
    (home / "mine.toml").write_text(f'extends = "{file}"')
    if how == "named":
        monkeypatch.syspath_prepend(home)
        monkeypatch.chdir(file.parent)
    outcome = cmbench("recipe", "check", file.name if how == "named" else "mine.toml")
    assert outcome.code == 2
    assert "'own_net:Network'" in outcome.err
    assert not mark.exists()


def test_what_lies_beside_a_folder_of_runs_is_the_users(cmbench, trained, home, mark):
    write_module(home, mark)
    (home / "meta.json").touch()
    (home / "recipes").mkdir()
    (home / "recipes" / "mine.toml").write_text('extends = "../inner/other.toml"')
    (home / "inner").mkdir()
    (home / "inner" / "other.toml").write_text(now_foreign(trained).recipe.read_text())
    assert cmbench("recipe", "check", "recipes/mine.toml").code == 0
    assert mark.exists()


@pytest.mark.parametrize("command", ["doctor", "doctor of the file", "bench", "check", "run of the file"])
def test_what_the_user_typed_over_a_runs_recipe_is_the_users(cmbench, trained, home, mark, command):
    write_module(home, mark)
    write_module(home, mark, "own_other.py")
    arguments = commands(stopped(now_foreign(trained, "own_other:Network")))[command]
    (typed,) = OWN
    assert cmbench(*arguments).code == 2
    assert not mark.exists()
    assert cmbench(*arguments, "--set", typed).code == 0
    assert mark.read_text() == "x"


@pytest.mark.parametrize("command", ["sample", "eval", "resume", "check", "doctor"])
def test_with_consent_it_is_imported_and_remembered_until_it_changes(cmbench, trained, home, mark, command):
    file = write_module(home, mark)
    stopped(now_foreign(trained))
    arguments = commands(trained)[command]
    refused = cmbench(*arguments)
    told = cmbench(*arguments, "--trust").err
    assert refused.code == 2
    assert told.startswith(f"cmbench: trusting 'own_net:Network', a class of {file}\n")
    assert mark.exists()
    forget()
    mark.unlink()
    stopped(trained)
    again = cmbench(*arguments)
    assert "trust" not in again.err
    assert mark.exists()
    forget()
    mark.unlink()
    stopped(trained)
    write_module(home, mark, more="# changed")
    changed = cmbench(*arguments)
    assert changed.code == 2
    assert "has changed since it was trusted" in changed.err
    assert not mark.exists()


def test_ones_own_runs_are_never_asked_about(cmbench, home, mark):
    """A run that was started with a recipe that the user named is trusted as its classes were then."""
    write_module(home, mark)
    assert cmbench("run", "tiny.toml", *set_options(OWN)).code == 0
    (run,) = [RunDir(path) for path in (home / "runs").iterdir() if not path.is_symlink()]
    for command in ("sample", "eval", "resume", "check", "doctor", "run of the file"):
        forget()
        stopped(run)
        assert "trust" not in cmbench(*commands(run)[command]).err, command


def test_looking_at_a_recipe_trusts_nothing_for_later(cmbench, home, trained, mark):
    write_module(home, mark)
    assert cmbench("recipe", "check", "tiny.toml", *set_options(OWN)).code == 0
    assert mark.exists()
    forget()
    assert cmbench("sample", now_foreign(trained).name).code == 2


def test_trust_in_one_class_is_not_trust_in_another_of_its_module(cmbench, home, trained, mark):
    write_module(home, mark, more="class Other(Network):\n    pass\n")
    now_foreign(trained)
    assert cmbench("sample", trained.name, "--trust").code == 0
    forget()
    assert cmbench("sample", now_foreign(trained, "own_net:Other").name).code == 2


def test_trust_in_a_file_is_not_trust_in_its_copy_elsewhere(cmbench, home, trained, mark, monkeypatch):
    """What it imports in turn would be another."""
    write_module(home, mark)
    assert cmbench("sample", now_foreign(trained).name, "--trust").code == 0
    forget()
    write_module(home / "elsewhere", mark)
    monkeypatch.chdir(home / "elsewhere")
    sys.path[:] = [entry for entry in sys.path if entry != str(home)]
    assert cmbench("sample", str(trained.path)).code == 2


@pytest.mark.parametrize(
    "kind", ["os:system", "subprocess:Popen", "builtins:exec", "cmbench.cli.stop:stop", "sys:exit"]
)
def test_what_is_installed_is_asked_for_as_well(cmbench, trained, kind):
    outcome = cmbench("sample", now_foreign(trained, kind).name)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    mentions = (kind, kind.partition(":")[0].rpartition(".")[2], "a class of", "--trust")
    assert [part for part in mentions if part not in outcome.err] == []


@pytest.mark.parametrize("init", [True, False])
def test_a_package_is_found_without_being_imported(cmbench, trained, home, mark, init):
    """importlib.util.find_spec would import what lies around it."""
    file = write_module(home, mark, "own_net/inner/net.py")
    if init:
        for folder in ("own_net", "own_net/inner"):
            write_module(home, mark, f"{folder}/__init__.py")
    outcome = cmbench("sample", now_foreign(trained, "own_net.inner.net:Network").name)
    assert outcome.code == 2
    several = f"a class of __init__.py, inner/__init__.py, inner/net.py in {home / 'own_net'}, which is not trusted"
    assert (several if init else f"a class of {file}, which") in outcome.err
    assert not mark.exists()
    assert cmbench("sample", trained.name, "--trust").code == 0
    assert mark.read_text() == ("xxx" if init else "x")
    forget()
    if init:  # it runs before the module itself
        write_module(home, mark, "own_net/__init__.py", more="# changed")
        assert cmbench("sample", trained.name).code == 2


def test_bytecode_beside_the_file_is_not_taken_for_it(cmbench, trained, home, mark):
    """It holds for its source by time and size alone, which whoever writes both may choose."""
    file = write_module(home, mark, more="#" + 200 * "x")
    innocent = file.read_bytes()
    evil = f"import pathlib; pathlib.Path({str(mark) + '-evil'!r}).touch()\n".encode()
    file.write_bytes(evil + b"#" * (len(innocent) - len(evil)))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    subprocess.run([sys.executable, "-m", "py_compile", str(file)], check=True)
    file.write_bytes(innocent)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert list((home / "__pycache__").iterdir())
    assert cmbench("sample", now_foreign(trained).name, "--trust").code == 0
    assert mark.exists()
    assert not Path(f"{mark}-evil").exists()


def test_bytecode_without_its_source_is_not_trusted(cmbench, trained, home, mark):
    file = write_module(home, mark)
    py_compile.compile(str(file), cfile=str(file.with_suffix(".pyc")))
    file.unlink()
    outcome = cmbench("sample", now_foreign(trained).name, "--trust")
    assert outcome.code == 2
    assert "which is bytecode without its source" in outcome.err
    assert not mark.exists()
    assert cmbench("recipe", "check", "tiny.toml", *set_options(OWN)).code == 0  # the user's own


def test_a_module_in_an_archive_is_refused_with_the_reason(cmbench, trained, home, mark, monkeypatch):
    file = write_module(home, mark)
    with zipfile.ZipFile(home / "x.zip", "w") as archive:
        archive.write(file, file.name)
    file.unlink()
    monkeypatch.syspath_prepend(home / "x.zip")
    outcome = cmbench("sample", now_foreign(trained).name, "--trust")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"own_net lies in the archive {home / 'x.zip'}; allowed: a file of its own" in outcome.err
    assert not mark.exists()


def test_a_module_that_is_no_regular_file_is_not_waited_for(cmbench, trained, home):
    os.mkfifo(home / "own_net.py")
    outcome = cmbench("sample", now_foreign(trained).name)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)


def test_resume_enters_no_folder_of_somebody_elses_for_its_modules(cmbench, trained, home, mark):
    """It goes where the run was started, for its data; a module there is not imported."""
    foreign = home / "foreign"
    file = write_module(foreign, mark)
    write_module(foreign, mark, "random.py")
    stopped(now_foreign(trained))
    trained.meta.write_bytes(to_json({**read_json(trained.meta), "directory": str(foreign)}))
    outcome = cmbench("resume", trained.name)
    assert outcome.code == 2
    assert str(file) in outcome.err
    assert not mark.exists()
    assert str(foreign) not in sys.path
    assert Path.cwd() == home


@pytest.mark.parametrize("directory", [5, None, [], "", "relative", "\0", "x" * 5000, "/nowhere", "/dev/null"])
def test_a_directory_that_is_none_is_not_entered(cmbench, trained, home, directory):
    stopped(trained)
    trained.meta.write_bytes(to_json({**read_json(trained.meta), "directory": directory}))
    assert cmbench("resume", trained.name).code == 0
    assert Path.cwd() == home


def test_a_folder_of_another_user_is_passed_over_with_a_word(cmbench, trained, home, monkeypatch):
    folder, user = home / "theirs", os.geteuid() + 1
    folder.mkdir()
    try:
        os.chown(folder, user, -1)
    except PermissionError:
        folder, user = Path("/"), 0
    told = (
        f"cmbench: {folder} belongs to {_again.user_name(user)} and is not entered; give --trust to go on from there\n"
    )
    directory = {"directory": str(folder)}
    for options, err, place in (([], told, home), (["--trust"], "", folder)):
        stopped(trained)
        trained.meta.write_bytes(to_json({**read_json(trained.meta), **directory}))
        outcome = cmbench("resume", trained.path, *options)
        assert (outcome.code, outcome.err, Path.cwd()) == (0, err, place)


def test_the_teacher_of_the_run_that_weights_came_from_is_not_asked_about(cmbench, home, trained, mark):
    """It is never built: the run's own copy of the weights is all that is read."""
    write_module(home, mark)
    assert cmbench("run", "tiny.toml", *set_options(["name=later", f"start.run={trained.name}"])).code == 0
    (run,) = [RunDir(path) for path in (home / "runs").iterdir() if path.name.startswith("later-")]
    about = read_json(run.start / "teacher.json")
    about["recipe"] |= {"objective": {"kind": "cd"}, "teacher": {"kind": "own_net:Network"}}
    (run.start / "teacher.json").write_bytes(to_json(about))
    outcome = cmbench("resume", stopped(run).name)
    assert (outcome.code, outcome.err) == (0, "")
    assert not mark.exists()


def test_a_teacher_that_a_run_keeps_is_asked_about(cmbench, home, teacher, mark):
    write_module(home, mark)
    assert cmbench("run", "tiny.toml", *set_options([*DISTILL, f"teacher.run={teacher.name}"])).code == 0
    (run,) = [RunDir(path) for path in (home / "runs").iterdir() if path.name.startswith("cd-")]
    about = read_json(run.teacher / "teacher.json")
    about["recipe"]["network"] = {"kind": "own_net:Network"}
    (run.teacher / "teacher.json").write_bytes(to_json(about))
    outcome = cmbench("resume", stopped(run).name)
    assert outcome.code == 2
    assert "teacher.json" in outcome.err
    assert "--trust" in outcome.err
    assert not mark.exists()


@pytest.mark.long
def test_a_trainer_of_its_own_takes_consent_along(home, trained, mark):
    write_module(home, mark)
    stopped(now_foreign(trained))
    command = [sys.executable, "-m", "cmbench", "resume", trained.name, "--detach"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert not mark.exists()
    granted = subprocess.run([*command, "--trust"], capture_output=True, text=True, check=False)
    assert granted.returncode == 0, granted.stderr
    assert "trusting 'own_net:Network'" in granted.stderr
    assert mark.exists()
    until(lambda: (read_json(trained.status) or {}).get("state") == "finished")


def test_consent_holds_where_it_cannot_be_kept(cmbench, home, trained, mark, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "file"))
    write_module(home, mark)
    now_foreign(trained)
    assert cmbench("sample", trained.name, "--trust").code == 0
    forget()
    assert cmbench("sample", trained.name).code == 2


@pytest.mark.parametrize(
    ("how", "arguments"),
    [("-m", ["run", "tiny.toml", "--foreground"]), ("path", ["doctor"]), ("-m with an empty PYTHONPATH", ["ls"])],
)
def test_a_module_of_the_working_directory_is_not_the_librarys(home, mark, how, arguments):
    from cmbench.rundir import launch

    names = ["random", "torch", "json", "rich", "typer", "pydantic", "tomli", "orjson", "numpy", "secrets", "pynvml"]
    for name in names:
        write_module(home, mark, f"{name}.py")
    write_module(home, mark, "textual/__init__.py")
    package = str(Path(recipe.__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([package, *([""] if "empty" in how else [])])}
    command = launch.command() if how == "path" else [sys.executable, "-m", "cmbench"]
    done = subprocess.run([*command, *arguments], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


@pytest.mark.long
def test_a_module_of_the_working_directory_serves_the_recipe_that_names_it(home, mark):
    (home / "tiny.toml").write_text(TINY.replace('kind = "mlp"\nwidth = 16\ndepth = 1', 'kind = "own_net:Network"'))
    write_module(home, mark, more="import own_helper\n")
    (home / "own_helper.py").touch()
    command = [sys.executable, "-m", "cmbench", "run", "tiny.toml", "--foreground"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert mark.exists()
