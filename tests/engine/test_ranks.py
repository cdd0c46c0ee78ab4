"""Several ranks train one run: its result does not depend on their number, and no end of a rank loses it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_runs import read_rows
from steered import answers, asked, finish
from tiny import set_options
from torchrun import cmbench_on, torchrun

from cmbench import consent
from cmbench.engine import checkpoint, ranks, runner, trainer
from cmbench.engine.messages import LostRankError
from cmbench.engine.meters import of_rank
from cmbench.engine.ranks import Ranks
from cmbench.errors import UsageError
from cmbench.randomness import Part
from cmbench.rundir import group, status
from cmbench.rundir.files import read_json
from cmbench.rundir.group import Member
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.select import all_runs

pytestmark = pytest.mark.usefixtures("put_back")
GROUP = Path(__file__).with_name("rank_group.py")
CLOCK = {"time", "train_s", "images_per_s", "segment"}

OWN = """
import dataclasses
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import torch

from cmbench.errors import UsageError
from cmbench.objectives import ct
from cmbench.rundir import control
from cmbench.rundir.select import all_runs

Config = ct.Config

class Uneven(ct.Objective):
    group = 2

    def __init__(self, *given):
        super().__init__(*given)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        own = {"mean": float(x_0.mean())}
        return ct._pair.weighted(
            self.scale.exp() * ct._pair.tangent.norm(model(x_0, terms.t)).square(), 1 + terms.weight, terms.t,
            scalars={**terms.scalars, **own}, per_sample={"first": x_0[:, 0]},
        )

class Past(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        t = torch.ones(len(x_0))
        return ct._pair.weighted((model.F_theta(x_0, t, labels) - x_0).square().sum(dim=1), t, t)

class Acting(ct.Objective):
    # does what plan.json says, once: {"step", "rank", "do": the name of a method}
    slow, factor = 0.0, 1.0

    def __init__(self, *given):
        super().__init__(*given)
        self.act(-1)

    def loss(self, model, x_0, labels, step, random):
        if step > 0:  # before the first, the check of the gradients
            self.act(step)
        time.sleep(self.slow)
        terms = super().loss(model, x_0, labels, step, random)
        return dataclasses.replace(terms, total=self.factor * terms.total)

    def act(self, step):
        plan, wanted = Path("plan.json"), {}
        with suppress(FileNotFoundError):  # the other rank may have done it
            wanted = json.loads(plan.read_text())
        if (wanted.get("step"), wanted.get("rank")) == (step, int(os.environ.get("RANK", "0"))):
            plan.unlink()
            getattr(self, wanted["do"])()

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def hear(self):
        os.kill(os.getpid(), signal.SIGUSR1)

    def spoil(self):
        self.factor = float("nan")

    def fail(self):
        raise UsageError("data.root: not here")

    def ask(self):
        (run,) = all_runs(Path("runs"))
        control.request(run, "set", settings={"optimizer.lr": 0.001, "ema.lengths": [0.8, 0.4]})
        for action in ("pause", "continue", "checkpoint", "snapshot"):
            control.request(run, action)
        self.slow = 0.3  # so that rank 0 looks for requests after this step

    def stop(self):  # torchrun, and wait until it has passed the signal on
        heard, handler = [], signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, frame: (handler(number, frame), heard.append(number)))
        os.kill(os.getppid(), signal.SIGTERM)
        while not heard:
            time.sleep(0.01)
"""
ACTING = ["objective={kind='own_ranks:Acting', mu_0=0.5}", "log.every=2"]


@pytest.fixture
def own(home: Path) -> Path:
    (home / "own_ranks.py").write_text(OWN)
    return home


def planned(step: int, rank: int, do: str) -> None:
    Path("plan.json").write_text(json.dumps({"step": step, "rank": rank, "do": do}))


def the_run() -> RunDir:
    (run,) = all_runs(Path("runs"))
    return run


def timeless(path: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_rows(path)]


def assert_near(run: RunDir, other: RunDir, within: float) -> None:
    """Weights, averages, and rows of metrics and profiles; within 0 they are equal."""
    mine, theirs = (checkpoint.load(one, 12) for one in (run, other))
    for name in theirs.keys() - {"means", "profile"}:
        assert mine[name].keys() == theirs[name].keys()
        for key, tensor in theirs[name].items():
            torch.testing.assert_close(mine[name][key], tensor, rtol=within, atol=within)
    for name in ("metrics", "profiles"):
        rows, wanted = (timeless(getattr(one, name)) for one in (run, other))
        assert [row["step"] for row in rows] == [row["step"] for row in wanted]
        for row, same in zip(rows, wanted, strict=True):
            assert row.keys() == same.keys()
            for key, value in same.items():
                assert row[key] == (pytest.approx(value, rel=within, abs=within) if within else value), key


def test_two_ranks_train_as_one(own):
    """Gradients of every objective in float64, whole trainings, what is saved; and broken ranks are noticed."""
    ended = torchrun(2, GROUP, own / "found.json")
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads((own / "found.json").read_text())
    assert len(found["gradients"]) >= 3 * 17
    assert {name: error for name, error in found["gradients"].items() if error > 1e-10} == {}
    assert {name: worst for name, worst in found["runs"].items() if max(worst.values()) > 1e-6} == {}
    assert found["runs"].keys() == {"ct", "clipped", "sct", "own", "cd", "edm2", "edm2_ct"}
    assert max(found["diverged"].values()) <= 1e-6
    assert found["saved"] == {"same": True, "rows": True, "sum": True}
    assert len(found["mutants"]) == 6
    assert {name: error for name, error in found["mutants"].items() if error < 1e-4} == {}
    for name, of in {"own": "objective.w_phi", "dual": "F_theta", "past the model": "F_theta"}.items():
        says = rf"gradients of {of}\S* are not averaged over the ranks: nothing is trained"
        assert re.fullmatch(says, found["checked"].pop(name))
    assert found["checked"] == {"dropout": ""}


@pytest.mark.long
def test_four_ranks_train_as_one(own):
    ended = torchrun(4, GROUP, own / "found.json")
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads((own / "found.json").read_text())
    assert found["size"] == 4
    assert {name: error for name, error in found["gradients"].items() if error > 1e-10} == {}
    assert {name: worst for name, worst in found["runs"].items() if max(worst.values()) > 1e-6} == {}


def unbroken(home: Path) -> RunDir:
    """A run of one rank that nothing disturbs, in another folder."""
    given = consent.named(home / "tiny.toml", ACTING)
    made = runner.create(given, home / "unbroken", ["cmbench"])
    list(made.records())
    return made.run


@pytest.mark.long
def test_a_run_is_saved_on_two_ranks_and_resumed_on_two_and_on_one(own, monkeypatch):
    """It stops with a checkpoint when torchrun gets SIGTERM, and is told where it trains."""
    planned(6, 0, "stop")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    assert "Traceback" not in ended.stdout
    run = the_run()
    now, rows = status.read(run), read_rows(run.events)
    assert (now["state"], now["step"], now["ranks"], len(now["devices"])) == ("stopped", 7, 2, 2)
    assert steps_of_checkpoints(run) == [5, 7]
    assert [row["kind"] for row in rows] == ["started", "ranks", "checkpoint", "snapshot", "checkpoint", "stopped"]
    assert (rows[1]["number"], rows[1]["backend"], rows[-1]["reason"]) == (2, "gloo", "SIGTERM")
    assert read_json(run.meta)["ranks"] == 2
    assert checkpoint.load_group(run, 7, "means")["loss"].shape == (2,)

    subprocess.run(["cp", "-a", "runs", "copied"], check=True)
    alone = runner.resume(all_runs(Path("copied"))[0])
    list(alone.records())
    assert_near(alone.run, unbroken(own), 1e-6)
    (told,) = (row["text"] for row in read_rows(alone.run.events) if "ranks" in row.get("text", ""))
    assert told == "ranks was 2, is 1: the run may not continue bit for bit"

    assert cmbench_on(2, "resume", run.path).returncode == 0
    monkeypatch.setenv("CMBENCH_RUNS_DIR", str(own / "whole"))
    assert cmbench_on(2, "run", "tiny.toml", *set_options(ACTING)).returncode == 0
    assert_near(run, all_runs(own / "whole")[0], 0)


@pytest.mark.long
def test_a_run_is_saved_on_one_rank_and_resumed_on_two(own):
    made = runner.create(consent.named(own / "tiny.toml", ACTING), None, ["cmbench"])
    for _ in made.records():
        if made.trainer.state.step == 4:
            made.request_stop("test")
    assert made.exit_code == 75
    ended = cmbench_on(2, "resume", made.run.path, "--set", "optimizer.lr=0.01")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert_near(made.run, unbroken(own), 1e-6)


@pytest.mark.long
def test_a_killed_rank_ends_the_others_and_the_run_reads_as_crashed(own):
    planned(8, 1, "kill")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    assert ended.returncode == 1
    run = the_run()
    assert status.read(run)["state"] == "crashed", run.console.read_text()
    assert not Path("plan.json").exists()
    again = runner.resume(run)
    assert again.trainer.state.step == 5
    list(again.records())
    assert_near(run, unbroken(own), 1e-6)


@pytest.mark.long
def test_what_a_user_asks_for_reaches_all_ranks(own):
    planned(3, 0, "ask")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    assert ended.returncode == 0, ended.stderr[-2000:]
    run = the_run()
    assert [(row["action"], row["step"], row["result"]) for row in answers(run)] == [
        (action, 4, "done") for action in ("set", "pause", "continue", "checkpoint", "snapshot")
    ]
    assert (run.snapshots / "00000004_2step.png").exists()
    settings = {"optimizer.lr": 0.001, "ema.lengths": [0.8, 0.4]}
    made = runner.create(consent.named(own / "tiny.toml", ACTING), own / "other", ["cmbench"])
    assert_near(run, finish(asked(made, {4: [("set", settings)]})), 1e-6)


@pytest.mark.long
def test_a_signal_to_any_rank_stops_all(own):
    planned(6, 1, "hear")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    assert ended.stderr.count("exitcode  : 75") == 2
    run = the_run()
    assert (status.read(run)["state"], steps_of_checkpoints(run)[-1]) == ("stopped", 7)
    assert read_rows(run.events)[-1]["reason"] == "a signal to another rank"


@pytest.mark.long
def test_a_loss_that_is_not_finite_on_one_rank_stops_all(own):
    planned(6, 1, "spoil")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    assert ended.stderr.count("exitcode  : 3") == 2
    run = the_run()
    assert (status.read(run)["state"], steps_of_checkpoints(run)[-1]) == ("diverged", 6)


@pytest.mark.long
def test_a_rank_that_cannot_begin_is_named_in_one_line(own):
    planned(-1, 1, "fail")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING))
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("cmbench: ")]
    assert line.startswith("cmbench: rank 1 on ")
    assert line.endswith("recipe.toml: data.root: not here")
    assert status.read(the_run())["state"] == "failed"


@pytest.mark.parametrize(("rank", "step"), [(0, 8), (1, 2)])
@pytest.mark.long
def test_restarted_ranks_take_the_same_run_up_again(own, rank, step):
    """From its newest checkpoint, or from its first step where it has none."""
    planned(step, rank, "kill")
    ended = cmbench_on(2, "run", "tiny.toml", *set_options(ACTING), restarts=1)
    assert ended.returncode == 0, ended.stderr[-2000:]
    run = the_run()
    assert status.read(run)["state"] == "finished"
    assert_near(run, unbroken(own), 1e-6)
    kinds = [row["kind"] for row in read_rows(run.events)]
    assert (kinds.count("resumed"), kinds.count("finished")) == (1, 1)


@pytest.mark.long
def test_what_is_refused_is_said_once(home):
    """Also where another rank ends first, at which torchrun ends the one that says it."""
    ended = cmbench_on(2, "run", "tiny.toml", "--set", "train.batch_size=1")
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("cmbench: ")]
    assert line == "cmbench: tiny.toml: train.batch_size: found 1, allowed with 2 ranks: at least 2"
    assert all_runs(Path("runs")) == []


# What needs no other process


@pytest.fixture
def as_rank(home, monkeypatch):
    """Let this process look like one that torchrun started."""

    def become(rank: int, size: int, **other: str) -> None:
        given = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "x", **other}
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))

    return become


@pytest.mark.parametrize("command", [["ls"], ["compare"], ["doctor", "tiny.toml"]])
def test_only_what_trains_measures_or_draws_starts_on_several_ranks(as_rank, cmbench, command):
    as_rank(0, 2)
    outcome = cmbench(*command)
    allowed = f"allowed: run, resume, eval, sample, bench; start {command[0]} without torchrun"
    assert (outcome.code, outcome.err) == (2, f"cmbench: cmbench {command[0]}: found 2 ranks, {allowed}\n")
    as_rank(1, 2)
    outcome = cmbench(*command)
    assert (outcome.code, outcome.err) == (2, "")  # the first of its machine says it


def test_ranks_are_not_detached(as_rank, cmbench):
    as_rank(0, 2)
    outcome = cmbench("run", "tiny.toml", "--detach")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--detach: found with 2 ranks" in outcome.err


def test_torchrun_with_one_process_is_one_rank(as_rank, cmbench):
    as_rank(0, 1)
    assert group.member() == Member()
    assert cmbench("run", "tiny.toml").code == 0
    assert status.read(the_run())["ranks"] == 1


@pytest.mark.parametrize(("launched", "code"), [({"TORCHELASTIC_RUN_ID": "none"}, 0), ({}, -signal.SIGABRT)])
def test_nothing_that_still_works_in_a_rank_spoils_its_end(launched, code):
    """gloo's threads free what Python made, and abort an interpreter that ends meanwhile."""
    program = "import atexit, os; atexit.register(os.abort); from cmbench.cli.main import main; main()"
    others = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    environment = {**others, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", **launched}
    command = [sys.executable, "-c", program, "--version"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.startswith("cmbench ")) == (code, True)


def test_a_number_of_processes_without_torchrun_means_nothing(home, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert group.member() == Member()


def test_a_broken_environment_is_one_line(as_rank, cmbench):
    as_rank(0, 2, LOCAL_RANK="x")
    outcome = cmbench("run", "tiny.toml")
    assert outcome.code == 2
    assert "LOCAL_RANK: found '0', '2', 'x', allowed: numbers, as torchrun sets them" in outcome.err


def test_fewer_samples_than_ranks_are_refused(home, monkeypatch):
    monkeypatch.setattr(ranks, "_current", Ranks(Member(0, 9, 0)))
    with pytest.raises(UsageError, match=r"tiny\.toml: train\.batch_size: found 8, allowed with 9 ranks: at least 9"):
        trainer.from_file(home / "tiny.toml")


class Pairs:
    group = 2


@pytest.mark.parametrize(
    ("n", "size", "objective", "ends"),
    [
        (8, 2, object(), [4, 8]),
        (7, 2, object(), [3, 7]),
        (5, 4, object(), [1, 2, 3, 5]),
        (8, 3, Pairs(), [2, 4, 8]),
        (7, 3, Pairs(), [2, 4, 7]),
    ],
)
def test_ranks_share_a_batch_evenly_and_keep_groups_together(n, size, objective, ends):
    parts = [Ranks(Member(k, size, k)).part(n, objective) for k in range(size)]
    assert parts == [Part(start, stop, n) for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    assert Ranks().part(n, objective) is None


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_divide_the_sums_of_a_checkpoint(size):
    rows = {"loss": torch.tensor([1.0, 2.0])}
    found = [of_rank(rows, 0, k, size)["loss"].item() for k in range(size)]
    assert found == {1: [3.0], 2: [1.0, 2.0], 3: [3.0, 0.0, 0.0]}[size]
    old = {"loss": torch.tensor([[1.0, 2.0], [3.0, 4.0]])[0]}  # as one rank saves a profile
    assert [of_rank(old, 1, k, size)["loss"].tolist() for k in range(size)] == [[1, 2], *[[0, 0]] * (size - 1)]


@pytest.mark.parametrize(("device", "says"), [("auto", 1), ("cuda", 1), ("cuda:1", 0)])
def test_a_run_on_one_of_several_gpus_says_so_unless_that_one_was_chosen(home, monkeypatch, device, says):
    made = runner.create(consent.named(home / "tiny.toml", []), None, ["cmbench"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    recipe = made.trainer.recipe
    made.trainer.recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"device": device})})
    made.trainer.device = torch.device("cuda:1")
    told = made._about_ranks()
    made.trainer.device = torch.device("cpu")
    made.close()
    assert len([line for line in told if line.startswith("one of 4 GPUs trains")]) == says


@pytest.mark.parametrize(
    ("settings", "named"),
    [("", []), ("dropout=0.3", ["dropout"]), ("dropout=0.3, label_dropout=0.1", ["dropout", "label_dropout"])],
)
def test_a_run_says_which_of_its_masks_depend_on_the_number_of_ranks(home, monkeypatch, settings, named):
    network = (
        f"network={{kind='adm', width=8, multipliers=[1], depth=1, attention=[], class_conditional=true, {settings}}}"
    )
    made = runner.create(consent.named(home / "tiny.toml", ["data={kind='digits'}", network]), None, ["cmbench"])
    monkeypatch.setattr(made.trainer, "ranks", Ranks(Member(0, 2, 0)))
    told = made._about_ranks()
    monkeypatch.undo()
    made.close()
    assert [line.partition(" = ")[0] for line in told] == [f"network.{key}" for key in named]


def test_signals_beyond_the_first_do_not_end_a_rank(as_rank):
    from cmbench.cli import _train

    class Run:
        def __init__(self):
            self.asked = []

        def request_stop(self, reason):
            self.asked.append(reason)

    as_rank(0, 2)
    _train._stop_on_signals(run := Run())
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert run.asked == ["SIGTERM"] * 2


def test_a_rank_that_ends_while_others_begin_is_lost_and_not_an_error_of_theirs(monkeypatch):
    def connect(*given: object, **named: object) -> None:
        raise RuntimeError("[/build/gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.setattr(ranks, "DistributedDataParallel", connect)
    with pytest.raises(LostRankError, match="another rank has ended"):
        Ranks(Member(0, 2)).wrap(SimpleNamespace(F_theta=None))
