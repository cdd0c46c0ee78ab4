"""`--gpus`: one run on several ranks, or several runs with one GPU each. Here ranks train on the CPU."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_runs import fake_run, read_rows, write_status
from tiny import set_options
from waiting import PATIENCE, until

from cmbench.cli import _follow, _gpus
from cmbench.cli._processes import Accepted, Ended, Processes
from cmbench.rundir import group, launch, status
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.select import all_runs

COMMAND = [sys.executable, "-m", "cmbench"]
PAIR = ["run", "tiny.toml", "--gpus", "2"]
LONG = ["train.steps=100000000", "log.every=10", "snapshot.every=0", "evaluate.every=0", "profile.every=0"]
LONG += ["checkpoint.every=0"]

# Of each rank, at its start: it says that it is there, and waits or ends if the test wants that.
AT_START = """
import os, signal, time
from pathlib import Path
if rank := os.environ.get("RANK"):
    Path(f"rank{rank}").write_text(str(os.getpid()))
    if Path("die").exists() and rank in Path("die").read_text():
        os.kill(os.getpid(), signal.SIGKILL)
    while Path("hang").exists() and rank in Path("hang").read_text():
        time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def _place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files of the test's own, no choice of GPUs yet, and no process left behind."""
    (home / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    for name in ("CUDA_VISIBLE_DEVICES", group.GIVEN):
        monkeypatch.delenv(name, raising=False)
    yield
    for file in home.glob("rank*"):
        with_id = int(file.read_text() or 0)
        if with_id and is_running(with_id):
            os.kill(with_id, signal.SIGKILL)


@pytest.fixture
def watched(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (home / "start").mkdir()
    (home / "start" / "sitecustomize.py").write_text(AT_START)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home / "start"), os.environ.get("PYTHONPATH", "")]))
    return home


def is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ranks(home: Path) -> list[int]:
    """The processes of both ranks, once they are there."""
    files = [home / f"rank{rank}" for rank in range(2)]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def left(home: Path) -> list[Path]:
    """What starters and torchrun leave among the temporary files."""
    return [path for path in (home / "tmp").iterdir() if path.name.startswith(("cmbench", "torchelastic"))]


def begun(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def past_step_10(process: "subprocess.Popen[str]", home: Path) -> RunDir:
    assert process.stdout is not None
    assert any(" step 10/" in line for line in process.stdout), process.communicate()
    (run,) = all_runs(home / "runs")
    return run


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


# What is asked for


@pytest.mark.parametrize(
    ("text", "indices", "is_list"),
    [
        ("1", (0,), False),
        ("4", (0, 1, 2, 3), False),
        ("0-3", (0, 1, 2, 3), True),
        ("0,2", (0, 2), True),
        ("3-3", (3,), True),
        ("6,0-1", (6, 0, 1), True),
    ],
)
def test_a_number_counts_and_a_list_names(text, indices, is_list):
    asked = _gpus.parsed(text)
    assert (asked.indices, asked.is_list, asked.size) == (indices, is_list, len(indices))


WRONG = ["", "0", "-1", "two", "1.5", "0-", ",", "0,,1", "3-1", "0,0", "0-2,1", "0-99999", "0;1", "9" * 40]


@pytest.mark.parametrize("command", ["run", "resume", "sweep", "ablate"])
def test_anything_else_is_one_line(cmbench, trained, command):
    subject = trained.name if command == "resume" else "tiny.toml"
    for text in WRONG:
        outcome = cmbench(command, subject, f"--gpus={text}")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert outcome.err.startswith(f"cmbench: --gpus: found '{text[:20]}")
        assert "allowed: " in outcome.err


def test_gpus_are_those_of_the_visible_ones(monkeypatch):
    monkeypatch.setattr(_gpus, "seen", lambda: 4)
    asked = _gpus.for_ranks("1,3", {"device": "auto", "batch_size": 8}, "x")
    assert asked.environment()["CUDA_VISIBLE_DEVICES"] == "1,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, GPU-5f,2,0")
    assert asked.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-5f,0"
    assert _gpus.pool("3", {"auto", "cuda"}, "x") == ["7", "GPU-5f", "2"]


@pytest.mark.parametrize(
    ("there", "text", "said"),
    [
        (0, "2", "but torch sees no GPU here; allowed: --set train.device=cpu, for ranks on the CPU"),
        (1, "2", "but torch sees one GPU, 0"),
        (4, "5", "but torch sees 4 GPUs, 0-3"),
        (4, "2,4", "but torch sees 4 GPUs, 0-3"),
    ],
)
def test_more_than_there_are_is_refused_with_what_is_there(cmbench, monkeypatch, there, text, said):
    monkeypatch.setattr(_gpus, "seen", lambda: there)
    outcome = cmbench("run", "tiny.toml", "--set", "train.device=auto", "--gpus", text)
    assert (outcome.code, outcome.err) == (2, f"cmbench: --gpus: found '{text}', {said}\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--gpus", "9"], "tiny.toml: train.batch_size: found 8, allowed with 9 ranks: at least 9"),
        (["--gpus", "0,1"], "--gpus: found '0,1' with train.device = 'cpu', allowed: a number of ranks"),
        (
            ["--gpus", "2", "--set", "train.device=cuda:1"],
            "tiny.toml: train.device: found 'cuda:1', allowed with --gpus: auto, cpu or cuda",
        ),
        (["--gpus", "2", "--set", "data.nme=x"], "tiny.toml: data.nme: unknown key; did you mean 'name'?"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(cmbench, given, said):
    outcome = cmbench("run", "tiny.toml", "--detach", *given)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith(f"cmbench: {said}")
    assert not Path("runs").exists()


def test_a_run_is_not_resumed_or_forked_on_more_ranks_than_samples(cmbench, trained):
    for command in (["resume", trained.name, "--set", "train.steps=20"], ["run", "--from", f"{trained.name}@10"]):
        outcome = cmbench(*command, "--gpus", "9")
        said = f"cmbench: {trained.name}: train.batch_size: found 8, allowed with 9 ranks: at least 9\n"
        assert (outcome.code, outcome.err) == (2, said)
    asked = cmbench("resume", trained.name, "--set", "train.steps=20", "--set", "train.device=auto", "--gpus", "2")
    found, allowed = "found '2', but torch sees no GPU here", "--set train.device=cpu, for ranks on the CPU"
    assert asked.err == f"cmbench: --gpus: {found}; allowed: {allowed}\n"


def test_under_torchrun_it_is_refused(cmbench, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    outcome = cmbench(*PAIR)
    said = "cmbench: --gpus: found '2' under torchrun, which says how many; allowed: without it\n"
    assert (outcome.code, outcome.err) == (2, said)


def test_cores_are_divided_unless_the_user_has(monkeypatch):
    monkeypatch.setattr(_gpus, "_cores", lambda: 10)
    asked = _gpus.for_ranks("4", {"device": "cpu", "batch_size": 8}, "x")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert asked.environment() == {group.GIVEN: "4", "OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert asked.environment() == {group.GIVEN: "4"}


def test_one_is_no_group(cmbench):
    outcome = cmbench("run", "tiny.toml", "--gpus", "1")
    assert outcome.code == 0
    (run,) = all_runs(Path("runs"))
    assert [row["kind"] for row in read_rows(run.events)].count("ranks") == 0


@pytest.mark.parametrize("given", ["2", "0-3,6", "2; reboot", 2, None])
def test_a_run_that_had_several_is_resumed_on_as_many(tmp_path, capsys, given):
    """What others wrote into a status is no part of a command."""
    run = fake_run(tmp_path, "a-20260101-000000-abcd", state="stopped", gpus=given)
    assert _follow.closing(run) == 75
    more = f" --gpus {given}" if given in ("2", "0-3,6") else ""
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"{run.name}{more}")


def test_show_and_ls_tell_of_the_whole(cmbench, trained):
    fields = {"ranks": 3, "devices": ["H200", "H200", "B300"], "images_per_s": 9000.0, "gpus": "0-2"}
    write_status(trained, **fields)
    assert "3 ranks: 2 x H200, B300" in cmbench("show", trained.name).out
    (told,) = json.loads(cmbench("ls", "--json").out)["runs"]
    assert {key: told[key] for key in fields} == fields


# One run on each GPU

SHOWS = "import os, sys, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(float(sys.argv[1]))"


def test_each_process_gets_the_gpu_that_is_free(monkeypatch):
    monkeypatch.setattr(launch, "command", lambda *arguments: [sys.executable, "-c", SHOWS, *arguments])
    pool = [_gpus.alone(gpu) for gpu in ("4", "GPU-5f")]
    commands, place, running = [["0.3"], ["0"], ["0.1"], ["0"], ["0"]], {}, set()
    for event in Processes(commands, 2, pool=pool).events():
        if isinstance(event, Accepted):
            place[event.index] = event.run
            running.add(event.index)
            assert len({place[i] for i in running}) == len(running)
        elif isinstance(event, Ended):
            assert event.exit_code == 0
            running.discard(event.index)
    assert set(place) == set(range(5))
    assert set(place.values()) == {"4", "GPU-5f"}


@pytest.mark.parametrize(("at_once", "on_each"), [(1, [1, 0]), (3, [2, 1]), (4, [2, 2])])
def test_more_jobs_than_gpus_share_them(at_once, on_each):
    pool, running = [_gpus.alone(gpu) for gpu in "01"], []
    processes = Processes([], at_once, pool=pool)
    for _ in range(at_once):
        running.append(type("Process", (), {"place": processes._place(running)}))
    assert [sum(each.place == place for each in running) for place in pool] == on_each


SWEEP = ["sweep", "tiny.toml", "--set", "seed=0,1,2", "--set", "train.device=auto"]
ABLATE = ["ablate", "sct_trigflow_ring", "--drop", "tangent_warmup"]


@pytest.mark.parametrize("command", [SWEEP, ABLATE])
def test_without_gpus_a_pool_of_them_is_refused(cmbench, monkeypatch, command):
    monkeypatch.setattr(_gpus, "seen", lambda: 0)
    outcome = cmbench(*command, "--gpus", "0-7")
    said = "cmbench: --gpus: found '0-7', but torch sees no GPU here; allowed: --jobs N, for runs on the CPU\n"
    assert (outcome.code, outcome.err) == (2, said)
    assert not Path("runs").exists()


def test_runs_of_a_pool_train_on_gpus_alone(cmbench, monkeypatch):
    monkeypatch.setattr(_gpus, "seen", lambda: 8)
    outcome = cmbench("sweep", "tiny.toml", "--set", "seed=0,1", "--gpus", "2")
    said = "cmbench: tiny.toml: train.device: found 'cpu', allowed with --gpus: auto or cuda\n"
    assert (outcome.code, outcome.err) == (2, said)


def test_a_sweep_has_as_many_jobs_as_gpus(cmbench, monkeypatch):
    monkeypatch.setattr(_gpus, "seen", lambda: 8)
    made = []

    def events(self):
        made.append(self)
        yield from ()

    monkeypatch.setattr(Processes, "events", events)
    for given in ([], ["--jobs", "2"]):
        assert cmbench(*SWEEP, "--gpus", "5-7", *given).code == 75  # none was trained
    assert [(each.at_once, list(each.pool)) for each in made] == [
        (jobs, [_gpus.alone(gpu) for gpu in "567"]) for jobs in (3, 2)
    ]


# Ranks as processes


@pytest.mark.long
def test_a_run_on_two_ranks_looks_like_one_on_one_device(watched):
    done = begun(*PAIR)
    code, out, err = ended(done)
    (run,) = all_runs(watched / "runs")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == run.name
    assert lines[-1] == f"next: cmbench sample {run.name} --steps 1"
    assert any("2 ranks by gloo" in line for line in lines)
    assert lines[1:-2] == run.console.read_text().splitlines()[1:-2]
    now = status.read(run)
    assert (now["state"], now["ranks"], now["gpus"]) == ("finished", 2, "2")
    assert not any(map(is_running, ranks(watched)))
    assert left(watched) == []


@pytest.mark.long
def test_a_stopped_run_is_resumed_detached_and_stopped_again(watched, cmbench):
    process = begun(*PAIR, "--foreground", *set_options(LONG))
    run = past_step_10(process, watched)
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    now = status.read(run)
    assert (code, err, now["state"], read_rows(run.events)[-1]["reason"]) == (75, "", "stopped", "SIGTERM")
    assert steps_of_checkpoints(run)[-1] == now["step"]
    assert out.splitlines()[-1] == f"stopped at step {now['step']}: cmbench resume {run.name} --gpus 2"

    detached = ended(begun("resume", run.name, "--gpus", "2", "--detach"))
    assert detached == (0, f"{run.name}\n", "")
    until(lambda: status.read(run)["step"] > now["step"])
    first, second = ranks(watched)
    assert status.read(run)["pid"] == first
    assert cmbench("stop", run.name).code == 0
    until(lambda: not is_running(second))
    assert status.read(run)["state"] == "stopped"
    until(lambda: left(watched) == [])
    assert "torch" not in run.console.read_text()


@pytest.mark.long
def test_after_one_signal_by_hand_the_next_ends_all_ranks(watched):
    process = begun(*PAIR, *set_options([*LONG, "evaluate.every=1", "evaluate.n=3000", "log.every=1"]))
    assert process.stdout is not None
    assert any(" step 1/" in line for line in process.stdout)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    assert ended(process)[0] in (137, 75)  # 75 where it had stopped in between
    assert not any(map(is_running, ranks(watched)))


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells of a parent's death")
@pytest.mark.parametrize("whom", ["the command", "torchrun"])
@pytest.mark.long
def test_ranks_stop_with_a_checkpoint_when_what_started_them_is_killed(watched, whom):
    process = begun(*PAIR, *set_options(LONG))
    run = past_step_10(process, watched)
    pair = ranks(watched)
    (psutil.Process(pair[0]).parent() if whom == "torchrun" else process).send_signal(signal.SIGKILL)
    until(lambda: not any(map(is_running, pair)))
    assert ended(process)[0] == (75 if whom == "torchrun" else -signal.SIGKILL)
    assert status.read(run)["state"] == "stopped"
    assert steps_of_checkpoints(run)[-1] == status.read(run)["step"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.long
def test_a_killed_rank_is_a_crash(watched, rank):
    process = begun(*PAIR, *set_options(LONG))
    run = past_step_10(process, watched)
    killed = ranks(watched)[rank]
    os.kill(killed, signal.SIGKILL)
    code, out, err = ended(process)
    assert (code, err, status.read(run)["state"]) == (137, "", "crashed")  # as one process: a queue starts it again
    assert out.splitlines()[-1] == f"its last output: {run.console}"
    assert f"cmbench: rank {rank} (process {killed}) was ended by SIGKILL" in run.console.read_text()
    assert not any(map(is_running, ranks(watched)))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.long
def test_a_rank_that_is_killed_while_it_starts_is_named_in_one_line(watched, rank):
    (watched / "die").write_text(str(rank))
    (watched / "hang").write_text(str(1 - rank))
    code, out, err = ended(begun(*PAIR))
    killed = ranks(watched)[rank]
    assert (code, out, err) == (137, "", f"cmbench: rank {rank} (process {killed}) was ended by SIGKILL\n")
    assert not any(map(is_running, ranks(watched)))
    assert not (watched / "runs").exists()
    assert left(watched) == []


@pytest.mark.long
def test_a_refusal_of_the_ranks_is_one_line(watched):
    for given in ([], ["--detach"]):
        code, out, err = ended(begun(*PAIR, "--set", "network.kind=unet", *given))
        said = "cmbench: tiny.toml: network.kind: found 'unet' for data of shape [2], allowed for points: 'mlp'\n"
        assert (code, out, err) == (2, "", said)
    assert not (watched / "runs").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.long
def test_a_start_that_is_cancelled_leaves_nothing(watched, name):
    (watched / "hang").write_text("01")
    process = begun(*PAIR)
    pair = ranks(watched)
    process.send_signal(signal.Signals[name])
    code, out, err = ended(process)
    assert (code, out, err) == (130 if name == "SIGINT" else -signal.Signals[name], "", "")
    assert not any(map(is_running, pair))
    assert not (watched / "runs").exists()


@pytest.mark.long
def test_a_starter_that_cancels_ends_its_ranks(watched):
    (watched / "hang").write_text("1")
    start = launch.Start(PAIR)
    pair = ranks(watched)
    start.cancel()
    assert not any(map(is_running, pair))
    with pytest.raises(launch.RefusedError):
        start.wait()


@pytest.mark.long
def test_what_is_announced_while_ranks_start_stops_them_at_the_first_step(watched):
    process = begun(*PAIR, *set_options(LONG))
    ranks(watched)
    process.send_signal(signal.SIGUSR1)
    code, _, err = ended(process)
    (run,) = all_runs(watched / "runs")
    assert (code, err, read_rows(run.events)[-1]["reason"]) == (75, "", "SIGUSR1")


@pytest.mark.long
def test_an_announcement_to_all_processes_stops_the_run_once_it_has_begun(watched):
    """As of a batch system, which may know no better: torchrun's process must not end by it."""
    (watched / "hang").write_text("0")
    process = begun(*PAIR, *set_options(LONG))
    first, _ = ranks(watched)
    torchrun = psutil.Process(first).parent()
    for each in (torchrun, process):
        each.send_signal(signal.SIGUSR1)
    assert torchrun.is_running()
    (watched / "hang").unlink()
    code, _, err = ended(process)
    (run,) = all_runs(watched / "runs")
    assert (code, err, read_rows(run.events)[-1]["reason"]) == (75, "", "SIGUSR1")
