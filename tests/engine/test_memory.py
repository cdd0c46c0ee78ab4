"""Memory that is not there is one line with the key to lower; what was trained is kept."""

import re

import pytest
import torch
from fake_runs import read_rows
from tiny import set_options

from cmbench import consent
from cmbench.engine import build, checkpoint, fork, memory, runner, trainer
from cmbench.engine.memory import LackError
from cmbench.engine.state import State
from cmbench.rundir import status
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.select import all_runs
from cmbench.tables import Train

pytestmark = pytest.mark.usefixtures("put_back")
CPU_SAYS = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
LACKS = [
    RuntimeError(CPU_SAYS),
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139 GiB "
        "of which 1.50 GiB is free"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError("Unable to allocate 9.5 GiB for an array"),
]


@pytest.mark.parametrize("error", LACKS)
def test_a_lack_of_memory_is_known_and_names_its_key(error):
    said = r"out of memory.*; a lower train.batch_size needs less \(found 8\)"
    with pytest.raises(LackError, match=said) as caught, memory.wanted_by("train.batch_size", 8):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_another_failure_stays_what_it_is(error):
    with pytest.raises(type(error), match=str(error)), memory.wanted_by("train.batch_size", 8):
        raise error


def test_how_much_was_wanted_is_said_where_torch_says_it():
    assert memory.wanted_bytes(LACKS[0]) == " (3.73e+03 GiB more were wanted)"
    assert memory.wanted_bytes(LACKS[1]) == " (20 GiB more were wanted, 1.5 GiB were free)"
    assert memory.wanted_bytes(LACKS[3]) == " (9.5 GiB more were wanted)"
    assert memory.wanted_bytes(LACKS[2]) == ""


def test_an_allocation_that_cannot_be_is_known():
    """What torch and numpy truly raise."""
    for ask in (lambda: torch.empty(2**55), lambda: __import__("numpy").empty(2**55)):
        with pytest.raises(LackError), memory.wanted_by("x", 1):
            ask()


class Lacking:
    """Fails at its n-th call."""

    def __init__(self, call, n: int) -> None:
        self.call, self.left = call, n

    def __call__(self, *arguments):
        self.left -= 1
        if not self.left:
            raise RuntimeError(CPU_SAYS)
        return self.call(*arguments)


@pytest.mark.parametrize(
    ("where", "calls", "key", "kept"),
    [
        ("loss", 8, "train.batch_size", 7),
        ("batch", 8, "train.batch_size", 6),
        ("after_step", 8, "train.batch_size", 5),  # within a step: the state is none that could be saved
        ("step", 8, "network.width (found 16)", 5),
        ("evaluate", 1, "evaluate.n", 6),
        ("snapshot", 1, "snapshot.n", 6),
    ],
)
def test_a_run_ends_in_one_line_and_can_be_resumed(cmbench, home, trained, where, calls, key, kept):
    made = runner.create(consent.named(home / "tiny.toml", []), None, ["cmbench"])
    owner = {"loss": made.trainer.objective, "after_step": made.trainer.objective, "batch": made.trainer.data}
    owner |= {"step": made.trainer.state.optimizer, "evaluate": made.trainer, "snapshot": made.trainer}
    setattr(owner[where], where, Lacking(getattr(owner[where], where), calls))
    with pytest.raises(
        LackError, match=rf"{made.run.name}: after step .* lower {re.escape(key)}.*checkpoint {kept} is kept"
    ) as e:
        list(made.records())
    assert e.value.exit_code == made.exit_code == 1
    assert status.read(made.run)["state"] == "failed"
    assert steps_of_checkpoints(made.run)[-1] == kept
    assert key in read_rows(made.run.events)[-1]["error"]
    outcome = cmbench("resume", made.run.name, "--foreground")
    assert outcome.code == 0, outcome.err
    mine, theirs = checkpoint.load(made.run, 12), checkpoint.load(trained, 12)
    assert all(torch.equal(mine[group][name], x) for group, own in theirs.items() for name, x in own.items())


@pytest.mark.parametrize(
    ("micro", "precision", "says"),
    [
        (0, "bfloat16", "train.batch_size needs less (found 8), and so does a train.micro_batch_size below it"),
        (3, "bfloat16", "train.micro_batch_size needs less (found 3)"),
        (3, "float32", "train.micro_batch_size needs less (found 3), and so does train.precision = 'bfloat16'"),
        (
            *(
                0,
                "float32",
                "train.batch_size needs less (found 8), and so do a train.micro_batch_size below it and "
                "train.precision = 'bfloat16'",
            ),
        ),
    ],
)
def test_passes_need_less_in_parts(micro, precision, says):
    train = Train(batch_size=8, micro_batch_size=micro, precision=precision)
    with pytest.raises(LackError, match=rf"{re.escape(says)}$"), memory.wanted_by_passes(train):
        raise LACKS[0]


def test_a_network_that_cannot_fit_is_refused_before_anything_is_made(cmbench, home):
    """The system would promise the memory, and kill the process that uses it."""
    outcome = cmbench("run", "tiny.toml", *set_options(["network.width=65536", "network.depth=64"]), "--foreground")
    assert outcome.code == 1
    weights = 63 * 65536**2  # and about a thousandth more
    found = re.match(r"cmbench: a network of ([\d,]+) weights wants ([\d,.]+) GiB for ", outcome.err)
    assert float(found[1].replace(",", "")) == pytest.approx(weights, rel=0.03)
    assert float(found[2].replace(",", "")) == pytest.approx(6 * 4 * weights / 2**30, rel=0.03)
    assert re.search(r" for weights, gradients, moments and 2 averages; [\d.,]+ [GM]iB are free on cpu; ", outcome.err)
    lower = "lower network.width (found 65536), network.depth (found 64) or fewer ema.lengths (found 2) need less"
    assert outcome.err.endswith(f"; {lower}\n")
    assert all_runs(home / "runs") == []


def test_a_network_without_room_is_one_line_wherever_it_is_made(home, monkeypatch, trained):
    def lacks(*arguments):
        raise RuntimeError(CPU_SAYS)

    given = consent.named(home / "tiny.toml", [])
    says = r"out of memory for the network \(.*\); .* free on cpu; lower network\."
    for owner, name in ((build, "model"), (trainer, "Average")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lacks)
            with pytest.raises(LackError, match=says):
                runner.create(given, None, ["cmbench"])
    monkeypatch.setattr(State, "load", lacks)
    with pytest.raises(LackError, match=says):
        fork.fork(trained, 10, ["optimizer.lr=0.1"], None, ["cmbench"])


def test_a_container_limits_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    cpu = torch.device("cpu")
    there = memory.free(cpu)
    assert there > 2**20
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("1500\n")
    assert memory.free(cpu) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free(cpu) > 2**20


def test_the_command_says_it_in_one_line(cmbench, home, monkeypatch):
    from cmbench.objectives import ct

    monkeypatch.setattr(ct.Objective, "loss", lambda *arguments: torch.empty(2**55))
    outcome = cmbench("run", "tiny.toml", "--foreground")
    assert outcome.code == 1
    last = outcome.out.splitlines()[-1]
    assert "out of memory" in last
    assert "a lower train.batch_size needs less (found 8)" in last
    assert "Traceback" not in outcome.out + outcome.err
