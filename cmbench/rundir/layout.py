"""Every path of a run directory, and how to make one."""

import functools
import hashlib
import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import tomli

from cmbench import regular
from cmbench.errors import UsageError
from cmbench.rundir.fields import END, table, whole
from cmbench.rundir.files import fsync_folder, read_json

SCHEMA = 1
LATEST = "latest"
IMPORTING = "import"  # how the folder of a run in the making by `cmbench import` begins, after a dot
STAMP = re.compile("-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$")  # what `create` puts behind a name
TRASH = ".trash"
RECONSTRUCTED = "reconstructed"
STEP = "[0-9]{8}|[1-9][0-9]{8,14}"  # pattern of a checkpoint's folder name
_STEP = re.compile(STEP)
_LARGEST_RECIPE = 1 << 20  # bytes
_EARLIEST_DATE = 1_000_000  # no smaller number of eight digits is a date, in any order


@dataclass(frozen=True)
class RunDir:
    """One run directory, given by its path.

    Attributes:
        path: of the folder.
        needs: groups of tensors without which a checkpoint is broken.
    """

    path: Path
    needs: ClassVar[frozenset[str]] = frozenset({"model"})

    @property
    def name(self) -> str:
        """The folder's name, e.g. ct_edm-20261122-221503-a3f9."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """The complete recipe: every default written out."""
        return self.path / "recipe.toml"

    @property
    def recipe_source(self) -> Path:
        """The recipe as given, with the overrides."""
        return self.path / "recipe.source.toml"

    @property
    def meta(self) -> Path:
        """What does not change: arguments, versions, git, host."""
        return self.path / "meta.json"

    @property
    def status(self) -> Path:
        """State, process, heartbeat, step, speed."""
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        """One row per log step."""
        return self.path / "metrics.jsonl"

    @property
    def profiles(self) -> Path:
        """One row per profile step: the time bins."""
        return self.path / "profiles.jsonl"

    @property
    def machine(self) -> Path:
        """One row every few seconds: the load of the machine. Runs of earlier versions have none."""
        return self.path / "machine.jsonl"

    @property
    def events(self) -> Path:
        """The journal."""
        return self.path / "events.jsonl"

    @property
    def console(self) -> Path:
        """What the trainer printed."""
        return self.path / "console.log"

    @property
    def forking(self) -> Path:
        """Exists while a fork is being made: its first checkpoint comes before its recipe, so it may be a leftover."""
        return self.path / "fork.json"

    @property
    def annotations(self) -> Path:
        """Note and tags, written by people."""
        return self.path / "annotations.json"

    @property
    def lock(self) -> Path:
        """Held by the one writer."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Weights and everything else that changes, after a step."""
        return self.checkpoints / f"{step:08d}"

    @property
    def averages(self) -> Path:
        """Copies of averages of the weights, from which `cmbench ema` makes others, and those."""
        return self.path / "averages"

    @property
    def kept(self) -> "KeptAverages":
        """The copies of averages that training has kept, as if they were the run's checkpoints."""
        return KeptAverages(self.path)

    @property
    def abandoned_checkpoints(self) -> Path:
        """Checkpoints after the one from which a user resumed the run."""
        return self.checkpoints / "abandoned"

    @property
    def snapshots(self) -> Path:
        """Pictures and points."""
        return self.path / "snapshots"

    @property
    def abandoned_snapshots(self) -> Path:
        """Snapshots of abandoned steps."""
        return self.snapshots / "abandoned"

    @property
    def samples(self) -> Path:
        """Samples drawn by `cmbench sample`."""
        return self.path / "samples"

    @property
    def evaluations(self) -> Path:
        """Answers of `cmbench eval`, one file per question."""
        return self.path / "evaluations"

    @property
    def control(self) -> Path:
        """Requests to the trainer."""
        return self.path / "control"

    @property
    def teacher(self) -> Path:
        """A copy of the teacher that this run distils, if any."""
        return self.path / "teacher"

    @property
    def start(self) -> Path:
        """A copy of the weights that this run started from, if they came from a run."""
        return self.path / "start"


@dataclass(frozen=True)
class KeptAverages(RunDir):
    """A run whose checkpoints are copies of its averages alone. They are written as others are, and never pruned."""

    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def checkpoints(self) -> Path:
        """One folder for each step."""
        return self.averages


@dataclass(frozen=True)
class ReconstructedAverages(KeptAverages):
    """A run whose checkpoints hold the average of one length that `cmbench ema` has made, e.g. "0.02"."""

    length: str

    @property
    def checkpoints(self) -> Path:
        """One folder for each step."""
        return self.averages / RECONSTRUCTED / self.length


def steps_of_checkpoints(run: RunDir) -> list[int]:
    """List the steps that have a checkpoint, damaged or not, ascending.

    A link to another disk may lead to any folder. A folder counts as a checkpoint if its name fits, it holds a file of
    a checkpoint, and the run can reach its step: 20260101 is more likely a date.
    """
    try:
        entries = list(os.scandir(run.checkpoints))
    except OSError:
        return []
    steps = sorted(int(entry.name) for entry in entries if _STEP.fullmatch(entry.name) and _holds_state(entry.path))
    if steps and steps[-1] >= _EARLIEST_DATE:
        last = _last_step(run)
        steps = [step for step in steps if step <= last]
    return steps


def _holds_state(folder: str) -> bool:
    """Return whether a folder holds, or may hold, a file of a checkpoint."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except PermissionError:
        return True
    except OSError:
        return False
    return any(name == "state.json" or name.endswith(".safetensors") for name in names)


def _last_step(run: RunDir) -> int:
    """Return the last step of a run, or the largest possible step if its recipe does not say.

    Its status tells the last step of a run that is trained further than its recipe says.
    """
    with suppress(OSError, ValueError, RecursionError):
        tables = tomli.loads(regular.read(run.recipe, _LARGEST_RECIPE).decode())
        if (last := whole(table(tables.get("train")).get("steps"))) is not None:
            return max(last, whole((read_json(run.status) or {}).get("of")) or 0)
    return END


def create(runs_dir: Path, name: str) -> RunDir:
    """Make a fresh run directory <name>-<yyyymmdd-hhmmss>-<4 hex>.

    Raises:
        UsageError: the run cannot be written.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    make_folder_of_runs(runs_dir)
    while True:
        run = RunDir(runs_dir / f"{name}-{stamp}-{secrets.token_hex(2)}")
        with suppress(FileExistsError):
            create_named(run)
            return run


def make_folder_of_runs(runs_dir: Path) -> None:
    """Make the folder of the runs, if it is not there.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{runs_dir}: a run cannot be written there: {error.strerror}") from None


def create_named(run: RunDir) -> None:
    """Make a fresh run directory of a name that the user has chosen.

    Raises:
        FileExistsError: there is something of that name.
        UsageError: the run cannot be written.
    """
    try:
        run.path.mkdir()
        for folder in (run.checkpoints, run.snapshots, run.control):
            folder.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise UsageError(f"{run.path.parent}: a run cannot be written there: {error.strerror}") from None


def taken(run: RunDir) -> str:
    """Return why a run of a chosen name cannot be made where its folder exists, and what to do."""
    if os.path.lexists(run.recipe):
        return f"{run.name}: this run exists; allowed: --or-resume to go on with it, or another --name"
    return f"{run.path}: exists, and is no run; choose another --name"


@functools.cache
def machine() -> str:
    """Return an id of the place in which process ids are unique: a digest of host, boot and container."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # without /proc, the host is one such place
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def point_latest(run: RunDir) -> None:
    """Point runs/latest to this run, unless that name is not a link, and so not ours.

    Raises:
        OSError: the folder cannot be written.
    """
    latest = run.path.parent / LATEST
    if os.path.lexists(latest) and not latest.is_symlink():
        return
    temporary = run.path.parent / f".{LATEST}.{machine()}.{os.getpid()}"
    if temporary.is_symlink():  # of a process that had this number before
        temporary.unlink()
    temporary.symlink_to(run.name)
    temporary.replace(latest)
    fsync_folder(run.path.parent)
