"""`cmbench eval` and `cmbench sample` on several ranks: the figures and files of one, said and written once."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import DISTILL
from torchrun import cmbench_on

from cmbench import consent
from cmbench.cli import _gpus, _ranks, _signals
from cmbench.engine import ranks, runner
from cmbench.engine.ranks import Ranks
from cmbench.errors import UsageError
from cmbench.rundir import group
from cmbench.rundir.layout import RunDir

FEW = ["-n", "33", "--repeats", "2"]

OWN = """
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from cmbench.cli import _screen
from cmbench.errors import UsageError
from cmbench.networks import mlp

Config = mlp.Config

class Acting(mlp.Network):
    # does what plan.json says, once: {"rank", "when": made or asked, "do": the name of a method}
    def __init__(self, *given):
        super().__init__(*given)
        self.act("made")

    def forward(self, *given):
        self.act("asked")
        return super().forward(*given)

    def train(self, mode=True):
        self.switched = getattr(self, "switched", 0) + 1
        if self.switched > 1:  # not as it is loaded: when all are about to draw
            self.act("switched")
        return super().train(mode)

    def act(self, when):
        plan, wanted = Path("plan.json"), {}
        with suppress(FileNotFoundError):  # the other rank may have done it
            wanted = json.loads(plan.read_text())
        if (wanted.get("rank"), wanted.get("when")) == (int(os.environ.get("RANK", "0")), when):
            plan.unlink()
            getattr(self, wanted["do"])()

    def refuse(self):
        raise UsageError("data.root: not here")

    def refuse_slowly(self):
        _screen.complain = lambda error: (time.sleep(4), print(f"cmbench: {error}", file=sys.stderr))
        self.refuse()  # and say so later than the others wait

    def fail(self):
        raise ValueError("too odd")

    def lack(self):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1073741824 bytes")

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(self):
        os.kill(os.getppid(), signal.SIGTERM)
"""


def made(home: Path, *overrides: str) -> RunDir:
    quiet = ["evaluate.every=0", "snapshot.every=0"]
    found = runner.create(consent.named(home / "tiny.toml", [*overrides, *quiet]), None, [])
    list(found.records())
    return found.run


def numbers(found: object) -> object:
    """What a command said of figures, with their values to 1e-6."""
    if isinstance(found, float):
        return pytest.approx(found, rel=1e-6, abs=1e-9)
    if isinstance(found, list):
        return [numbers(each) for each in found]
    return {key: numbers(value) for key, value in found.items()} if isinstance(found, dict) else found


@pytest.mark.long
def test_figures_of_two_ranks_are_those_of_one_and_are_kept(home, cmbench):
    run = made(home, *DISTILL[:2], "teacher.kind=oracle")
    ended = cmbench_on(2, "eval", run.name, *FEW, "--steps", "1,3", "--json")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    kept = {path.name for path in run.evaluations.iterdir()}
    for path in run.evaluations.iterdir():
        path.unlink()
    alone = cmbench("eval", run.name, *FEW, "--steps", "1,3", "--json")
    assert found == numbers(json.loads(alone.out))
    names = {figure["metric"] for figure in found["runs"][0]["figures"]}
    assert {"consistency_error", "self_consistency", "sliced_wasserstein"} <= names
    assert {path.name for path in run.evaluations.iterdir()} == kept


@pytest.mark.long
@pytest.mark.parametrize("n", [2, 7])
def test_samples_of_three_ranks_are_those_of_one(home, conditional, cmbench, n):
    """Also where there are fewer samples than ranks."""
    ask = ["sample", conditional.name, "-n", n, "--steps", "3", "--safetensors"]
    ended = cmbench_on(3, *ask, "three.safetensors")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count(f"{n} samples: ") == 1
    (picture,) = conditional.samples.iterdir()
    drawn = picture.read_bytes()
    assert cmbench(*ask, "one.safetensors").code == 0
    three, one = (load_file(f"{name}.safetensors")["samples"] for name in ("three", "one"))
    assert three.shape == (n, 2)
    assert float((three - one).abs().max()) <= 1e-6
    assert picture.read_bytes() == drawn


@pytest.fixture
def acting(home, put_back) -> Callable[..., RunDir]:
    """A run whose network acts on a rank when it is made or asked."""
    (home / "own_acting.py").write_text(OWN)
    run = made(home, "network={kind='own_acting:Acting',width=16,depth=1}")

    def planned(rank: int, when: str, do: str) -> RunDir:
        Path("plan.json").write_text(json.dumps({"rank": rank, "when": when, "do": do}))
        return run

    return planned


@pytest.mark.long
@pytest.mark.parametrize(
    ("plan", "command", "says", "code"),
    [
        ((1, "made", "refuse"), ["eval"], "rank 1 on HOST: data.root: not here", 2),
        ((0, "made", "refuse_slowly"), ["sample"], "data.root: not here", 2),
        ((1, "asked", "fail"), ["eval", "--measures", "consistency_error"], "rank 1 on HOST: ValueError: too odd", 1),
        (
            (1, "asked", "lack"),
            ["sample"],
            "out of memory (1 GiB more were wanted); a lower --n needs less (found 33)",
            1,
        ),
    ],
)
def test_a_rank_that_fails_is_named_in_one_line_and_all_end_alike(acting, plan, command, says, code):
    run = acting(*plan)
    ended = cmbench_on(2, command[0], run.name, "-n", "33", *command[1:])
    lines = [line for line in ended.stderr.splitlines() if line.startswith("cmbench: ")]
    assert len(lines) == 1, ended.stderr[-3000:]
    assert says.partition("HOST")[0] in lines[0]
    assert lines[0].endswith(says.partition("HOST")[2] or says)
    assert ended.stderr.count(f"exitcode  : {code}") == 2
    assert ended.stdout == ""


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_alone_while_all_draw_ends_all_in_one_line(acting, rank):
    """The others wait for its samples: they cannot hear how it ends."""
    run = acting(rank, "switched", "fail")
    ended = cmbench_on(2, "sample", run.name, "-n", "33")
    lines = [line for line in ended.stderr.splitlines() if line.startswith("cmbench: ")]
    assert len(lines) == 1, ended.stderr[-3000:]
    assert "ValueError: too odd" in lines[0]
    assert ("rank 1 on " in lines[0]) == (rank == 1)
    assert not Path("plan.json").exists()
    assert ended.returncode == 1


@pytest.fixture
def signals() -> Iterator[None]:
    """Handlers as before."""
    before = {each: signal.getsignal(each) for each in _signals.ASKING}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


class Group(Ranks):
    """Two ranks, of which the other hears all and is gone then."""

    def _broadcast(self, message):
        return {"do": "end", "code": 4}

    def all_told(self, message):
        return [message] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_signals_end_a_rank_until_all_are_there_and_no_rank_once_it_ends(monkeypatch, signals, rank):
    """A rank that waits for another does not learn of its end: torchrun would kill it after 30 seconds."""
    for name, value in {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    heard: dict[str, object] = {}

    def gather() -> Ranks:
        heard["gathering"] = signal.getsignal(signal.SIGTERM)
        return Group(group.member())

    def refuse() -> None:
        heard["working"] = signal.getsignal(signal.SIGTERM)
        raise UsageError("no")

    monkeypatch.setattr(ranks, "gather", gather)
    if rank == 0:
        with pytest.raises(UsageError):
            _ranks._as_rank(refuse)
    else:
        assert _ranks._as_rank(refuse) == 4
    assert signal.SIG_IGN not in heard.values()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.long
@pytest.mark.parametrize(("rank", "do"), [(0, "kill"), (1, "kill"), (1, "stop")])
def test_the_end_of_a_rank_ends_all(acting, rank, do):
    run = acting(rank, "asked", do)
    ended = cmbench_on(2, "eval", run.name, *FEW)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert not Path("plan.json").exists()
    assert signal.Signals.SIGKILL.name in ended.stderr or do == "stop"
    assert cmbench_on(2, "eval", run.name, *FEW, "--steps", "1", "--measures", "recall").returncode == 0


@pytest.mark.long
def test_what_the_command_line_lacks_is_said_once(home, trained):
    for wrong, code in ((["--n-o-such"], 2), (["-n", "1"], 2), (["--checkpoint", "7"], 4)):
        ended = cmbench_on(2, "eval", trained.name, *wrong)
        lines = [line for line in ended.stderr.splitlines() if line.startswith("cmbench: ")]
        assert len(lines) == 1, ended.stderr[-2000:]
        assert f"exitcode  : {code}" in ended.stderr


# --gpus


@pytest.mark.parametrize(
    ("gpus", "device", "says"),
    [
        ("x", "auto", "--gpus: found 'x', allowed: a number of GPUs, or a list such as 0-3 or 0,2"),
        ("0-1", "cpu", "--gpus: found '0-1' with --device cpu, allowed: a number of ranks"),
        ("2", "cuda:1", "--gpus: found '2' with --device cuda:1, allowed: with --device auto, cpu or cuda"),
        ("2", "auto", "--gpus: found '2', but torch sees no GPU here; allowed: --device cpu, for ranks on the CPU"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "sample"])
def test_gpus_that_cannot_work_together_are_refused(cmbench, monkeypatch, command, gpus, device, says):
    monkeypatch.setattr(_gpus, "seen", lambda: 0)
    outcome = cmbench(command, "--gpus", gpus, "--device", device)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"cmbench: {says}\n")


def test_ranks_get_the_gpus_that_were_named(monkeypatch):
    monkeypatch.setattr(_gpus, "seen", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    asked = _gpus.for_work("1-2", "auto")
    assert (asked.size, asked.environment()["CUDA_VISIBLE_DEVICES"]) == (2, "5,6")
    with pytest.raises(UsageError, match="torch sees 4 GPUs, 0-3"):
        _gpus.for_work("3-4", "auto").environment()


@pytest.mark.parametrize("given", [["--gpus", "2"], ["--gpus=2"], ["--gpus", "2", "--gpus=3"], []])
def test_ranks_start_with_the_same_command_but_for_gpus(given):
    assert _ranks._without(["eval", *given, "run", "-n", "3"]) == ["eval", "run", "-n", "3"]


def at_a_terminal(*arguments: str) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it printed to stdout, and to a terminal as stderr."""
    ours, theirs = pty.openpty()
    started = [sys.executable, "-m", "cmbench", *arguments]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                found = os.read(ours, 1 << 16)
            except OSError:
                break
            shown += found
        out = process.stdout.read()
    os.close(ours)
    return process.returncode, out, shown.decode()


@pytest.mark.long
def test_ranks_work_in_this_terminal_as_one_process(trained, monkeypatch):
    """The bar moves on it, one line says what is wrong, and the exit code is that of one."""
    monkeypatch.setenv("TERM", "xterm-256color")
    ask = ["eval", trained.name, "-n", "40", "--repeats", "2", "--steps", "1", "--measures", "recall", "--json"]
    code, out, shown = at_a_terminal(*ask, "--gpus", "2", "--device", "cpu")
    assert (code, len(json.loads(out)["runs"])) == (0, 1)
    assert "floor of recall" in shown
    assert "\x1b[?25h" in shown
    code, out, shown = at_a_terminal(*ask, "--checkpoint", "7", "--gpus", "2", "--device", "cpu")
    assert (code, out) == (4, "")
    assert shown.count("cmbench: ") == 1
    assert shown.count("\n") == 1
