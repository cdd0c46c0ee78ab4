import contextlib
import functools
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors are small here: two threads would wait for each other

import built_once  # noqa: F401
import torch
from tiny import PICTURES, TEACHER, TINY
from torch.utils import deterministic

from cmbench import consent
from cmbench.rundir.layout import RunDir

# a shell or nohup may have had them ignored, which every command that the tests start would inherit
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

gc.set_threshold(100_000, 50, 50)  # to look through torch's many objects as often as usual takes a sixth of the time


TRAINING = ("tests/cli", "tests/engine", "tests/lab", "tests/test_notebook.py", "tests/test_recipes.py")
TRAINED = {"trained", "teacher", "conditional", "grey", "colour", "digits"}  # fixtures
SLOW = (  # beside what trains and what shows screens
    *("tests/torture", "tests/test_install.py", "tests/forward_mode", "tests/objectives/test_known_defects.py"),
    *("tests/networks/test_derivatives.py", "tests/networks/test_network_keys.py"),
    *("tests/rundir/test_files.py", "tests/rundir/test_long_logs.py"),
)
SCREENS = {"tui_host", "bench", "snapshot_runs"}  # modules that show them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what trains and what is slow, so that `-m "not slow"` takes about a minute."""
    for item in items:
        place = item.path.relative_to(item.config.rootpath).as_posix()
        trains = place.startswith(TRAINING) or TRAINED & set(getattr(item, "fixturenames", ()))
        if trains:
            item.add_marker("trains")
        if (
            any(map(item.get_closest_marker, ("trains", "long")))
            or place.startswith(SLOW)
            or _shows_screens(getattr(item, "module", None))
        ):
            item.add_marker("slow")


@functools.cache
def _shows_screens(module: object) -> bool:
    """Return whether a test module takes anything from a module that shows screens."""
    return any(getattr(value, "__module__", "") in SCREENS for value in vars(module).values()) if module else False


class Outcome(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def process_put_back() -> Iterator[None]:
    """Undo what training changes in its process: torch's determinism, signal handlers, sys.path, one variable."""
    stops = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    signals = {number: signal.getsignal(number) for number in (signal.Signals[name] for name in stops)}
    path, modules, workspace = list(sys.path), set(sys.modules), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled, benchmark = deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        sys.path[:] = path
        consent.forget()
        for name in set(sys.modules) - modules:
            if name.startswith("own_"):  # components that a test wrote
                del sys.modules[name]
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        deterministic.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = benchmark


@pytest.fixture(autouse=True)
def _equal_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test of a module with an RNG draw as if it were the first: tests run in any order."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


@pytest.fixture
def put_back() -> Iterator[None]:
    with process_put_back():
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, with runs/ and the tiny recipe tiny.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMBENCH_RUNS_DIR", str(tmp_path / "runs"))
    for name in ("CI", "SLURM_JOB_ID", "CMBENCH_DEBUG", "CMBENCH_HANDSHAKE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path.with_name(f"{tmp_path.name}-data")))
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


@pytest.fixture
def cmbench(
    home: Path, put_back: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command in this process and return what it came to."""
    from cmbench.cli import main

    def call(*args: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cmbench", *map(str, args)])
        capsys.readouterr()
        code = main.exit_code()
        return Outcome(code, *capsys.readouterr())

    return call


def train_in(folder: Path, overrides: Sequence[str] = ()) -> RunDir:
    """Train the tiny recipe to its end in `folder`/runs, and return the run."""
    from cmbench.engine import runner

    recipe = folder / "tiny.toml"
    recipe.write_text(TINY)
    made = runner.create(consent.named(recipe, list(overrides)), folder / "runs", ["cmbench", "run", "tiny.toml"])
    list(made.records())
    return made.run


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    with process_put_back():
        return train_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def _trained_teacher(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    with process_put_back():
        return train_in(tmp_path_factory.mktemp("teacher"), [*TEACHER, "ema.lengths=[0.5]"])


@pytest.fixture(scope="session")
def _trained_conditional(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    with process_put_back():
        return train_in(tmp_path_factory.mktemp("conditional"), ["name=labelled", "network.class_conditional=true"])


@pytest.fixture(scope="session")
def _trained_grey(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    with process_put_back():
        return train_in(tmp_path_factory.mktemp("grey"), [*PICTURES, "name=grey", "data={kind='digits'}"])


@pytest.fixture(scope="session")
def _trained_colour(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    own = ["name=colour", "data={kind='patches', size=8, stride=64}", "network.class_conditional=true"]
    with process_put_back():
        return train_in(tmp_path_factory.mktemp("colour"), [*PICTURES, *own])


@pytest.fixture(scope="session")
def _trained_digits(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    network = "network={kind='unet',width=8,multipliers=[1],depth=1,class_conditional=true}"
    quiet = ["train.steps=2", "evaluate.every=0", "snapshot.every=0"]
    with process_put_back():
        return train_in(tmp_path_factory.mktemp("digits"), ["name=digits", "data={kind='digits'}", network, *quiet])


def _copy_to(home: Path, run: RunDir) -> RunDir:
    return RunDir(Path(shutil.copytree(run.path, home / "runs" / run.name)))


@pytest.fixture
def trained(home: Path, _trained: RunDir) -> RunDir:
    """A finished run of the tiny recipe, the test's own copy."""
    return _copy_to(home, _trained)


@pytest.fixture
def teacher(home: Path, _trained_teacher: RunDir) -> RunDir:
    """A finished run of objective denoise, the test's own copy."""
    return _copy_to(home, _trained_teacher)


@pytest.fixture
def conditional(home: Path, _trained_conditional: RunDir) -> RunDir:
    """A finished run of a network that takes labels, the test's own copy."""
    return _copy_to(home, _trained_conditional)


@pytest.fixture
def grey(home: Path, _trained_grey: RunDir) -> RunDir:
    """A finished run on grey pictures of 8x8 pixels, the test's own copy."""
    return _copy_to(home, _trained_grey)


@pytest.fixture
def colour(home: Path, _trained_colour: RunDir) -> RunDir:
    """A finished run of a network that takes labels on pictures in colour of 8x8 pixels, the test's own copy."""
    return _copy_to(home, _trained_colour)


@pytest.fixture
def digits(home: Path, _trained_digits: RunDir) -> RunDir:
    """A finished run on pictures, of a network that takes labels, the test's own copy."""
    return _copy_to(home, _trained_digits)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let decoded pictures lie apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
