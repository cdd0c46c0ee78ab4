"""A command that torchrun starts again goes on with what its own launch has begun, and with nothing else."""

import json
import shutil
import signal
import threading
from pathlib import Path

import pytest
from fake_runs import read_rows
from torch.distributed import HashStore, TCPStore

from cmbench.engine import launched
from cmbench.errors import CmbenchError, StoppedError
from cmbench.rundir import group, settings, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs

pytestmark = pytest.mark.usefixtures("put_back")


@pytest.fixture
def launch(home, monkeypatch):
    """Let commands in this process be those of a launch of torchrun, with a store of its own; each call begins one."""
    stores = []

    def begin(run_id: str = "given") -> None:
        stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        given = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "TORCHELASTIC_RUN_ID": run_id}
        given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": stores[-1].port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))

    begin()
    return begin


def the_run() -> RunDir:
    (run,) = all_runs(Path("runs"))
    return run


def changed(run: RunDir, **about: object) -> None:
    """Change what status.json says."""
    run.status.write_text(json.dumps({**(read_json(run.status) or {}), **about}))


def die(run: RunDir, **about: object) -> None:
    """Let a run look as if its trainer had been killed while it ran."""
    changed(run, state="running", pid=2**22 + 1, **about)


def test_a_launch_has_a_name_of_its_own(launch, monkeypatch):
    first = launched.name()
    assert first == launched.name() != ""
    launch()  # of the same --rdzv-id
    assert launched.name() not in (first, "")
    monkeypatch.setattr(launched.os, "environ", group.outside())
    assert launched.name() == ""


def test_without_its_store_only_a_given_id_names_a_launch(launch, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    names = set()
    for arguments in (["run", "a.toml"], ["run", "b.toml"]):
        monkeypatch.setattr(launched.sys, "argv", ["cmbench", *arguments])
        names |= {launched.name()}
    assert len(names) == 2
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launched.name() == ""


def test_a_restart_finds_what_its_launch_has_finished(launch, cmbench):
    assert cmbench("run", "tiny.toml").code == 0
    run = the_run()
    before = run.events.read_bytes()
    assert cmbench("run", "tiny.toml").code == 0
    assert cmbench("resume", run.name).code == 0
    assert the_run().events.read_bytes() == before
    launch()  # another with the same --rdzv-id
    assert cmbench("run", "tiny.toml").code == 0
    assert len(all_runs(Path("runs"))) == 2
    assert "already finished" in cmbench("resume", run.name).err


def test_a_restart_takes_up_what_its_launch_has_begun(launch, cmbench):
    assert cmbench("run", "tiny.toml", "--name", "own").code == 0
    run = the_run()
    die(run)
    assert cmbench("run", "tiny.toml", "--name", "own").code == 0
    assert [row["kind"] for row in read_rows(run.events)].count("resumed") == 1
    launch()
    assert cmbench("run", "tiny.toml", "--name", "own").code == 5


def test_a_restart_trains_further_what_its_launch_has_not_begun(launch, cmbench, monkeypatch):
    """Its first attempt was killed before it began: the state of the run is another's."""
    assert cmbench("run", "tiny.toml").code == 0
    run = the_run()
    launch()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cmbench("resume", run.name, "--set", "train.steps=15").code == 0
    assert (status.read(run)["state"], status.read(run)["step"]) == ("finished", 15)
    assert cmbench("resume", run.name, "--set", "train.steps=15").code == 0
    assert [row["kind"] for row in read_rows(run.events)].count("resumed") == 1


def test_a_restart_goes_back_to_a_checkpoint_once(launch, cmbench):
    assert cmbench("run", "tiny.toml").code == 0
    run = the_run()
    launch()
    changed(run, state="stopped")
    for _ in range(2):
        assert cmbench("resume", run.name, "--checkpoint", "10").code == 0
        die(run)
    back = [row["step"] for row in read_rows(run.events) if row.get("kind") == "resumed"]
    assert back == [10, 12]


@pytest.mark.parametrize(
    ("state", "code"), [("stopped", 75), ("diverged", 3), ("finished", 0), ("failed", 0), ("crashed", 0)]
)
def test_a_restart_of_the_command_of_a_queue_keeps_what_its_launch_came_to(launch, cmbench, state, code):
    command = ("run", "tiny.toml", "--name", "own", "--or-resume")
    assert cmbench(*command).code == 0
    run = the_run()
    changed(run, state=state)
    launch()
    before = run.events.read_bytes()
    assert cmbench(*command).code == {"diverged": 3}.get(state, 0)  # another launch takes up what was stopped
    assert (run.events.read_bytes() == before) == (state in ("diverged", "finished"))

    changed(run, state=state, launch=launched.name())
    before = run.events.read_bytes()
    assert cmbench(*command).code == code
    assert (run.events.read_bytes() == before) == (state in ("stopped", "diverged", "finished"))


@pytest.mark.parametrize("command", [["resume", "own"], ["run", "tiny.toml", "--name", "own", "--or-resume"]])
def test_a_restart_on_another_machine_takes_over_only_from_its_launch(launch, cmbench, command):
    """There nobody can see that the trainer is dead, but torchrun ends all before it starts any again."""
    assert cmbench("run", "tiny.toml", "--name", "own").code == 0
    run = the_run()
    die(run, host="elsewhere")
    assert cmbench(*command).code == 0
    assert status.read(run)["state"] == "finished"
    for launch_of in ({}, {"launch": "another"}):
        now = read_json(run.status) or {}
        now.pop("launch", None)
        run.status.write_text(json.dumps({**now, **launch_of, "state": "running", "host": "elsewhere"}))
        outcome = cmbench(*command)
        assert (outcome.code, "--host-gone" in outcome.err) == (5, True)


def test_a_restart_on_another_machine_clears_what_its_launch_has_left_of_a_run(launch, cmbench):
    assert cmbench("run", "tiny.toml", "--name", "own").code == 0
    run = the_run()
    for path in run.path.iterdir():
        if path not in (run.status, run.lock):
            shutil.rmtree(path) if path.is_dir() else path.unlink()  # as far as a kill lets a run come
    die(run, host="elsewhere")
    assert cmbench("run", "tiny.toml", "--name", "own").code == 0
    assert status.read(run)["state"] == "finished"


def test_a_restart_changes_settings_once(launch, cmbench):
    """What a user has changed since stays."""
    assert cmbench("run", "tiny.toml", "--name", "own").code == 0
    run = the_run()
    launch()
    changed(run, state="stopped")
    resume = ("resume", "own", "--checkpoint", "10", "--set", "optimizer.lr=0.001")
    assert cmbench(*resume).code == 0
    rows = read_rows(run.events)
    (asked,) = [row for row in rows if row.get("action") == "set"]
    with run.events.open("a") as journal:
        journal.write(json.dumps({**asked, "segment": 2, "id": "later", "step": 11, "settings": {"optimizer.lr": 2.0}}))
        journal.write("\n")
    die(run)
    assert cmbench(*resume).code == 0
    assert settings.in_force(settings.read(run)) == {"optimizer.lr": 2.0}


def test_only_the_first_of_a_machine_says_that_a_run_has_finished(home, cmbench, monkeypatch):
    command = ("run", "tiny.toml", "--name", "own", "--or-resume")
    assert cmbench(*command).code == 0
    for rank in (0, 1):
        given = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "none"}
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))
        outcome = cmbench(*command)
        assert (outcome.code, "finished at step 12 already" in outcome.out) == (0, rank == 0)


def test_a_trainer_that_a_rank_starts_belongs_to_no_launch(launch):
    assert group.is_launched()
    assert "TORCHELASTIC_RUN_ID" not in group.outside()


# Those who begin together


def meet(store, rank: int, size: int, found: dict) -> threading.Thread:
    def go() -> None:
        found[rank] = launched.attempt(store, rank, size)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_the_processes_of_an_attempt_meet_and_none_of_an_earlier_one(order):
    """Whatever earlier ones left in the store, and in whichever order they come."""
    store, names = HashStore(), []
    for _ in range(3):
        found: dict[int, str] = {}
        for thread in [meet(store, rank, 3, found) for rank in order]:
            thread.join()
        assert len(found) == 3
        assert len(set(found.values())) == 1
        names.append(found[0])
    assert len(set(names)) == 3


def test_a_process_waits_for_the_first_of_its_attempt():
    """A machine that has not counted a restart sees an attempt that is over, and one that died before it began."""
    store, found = HashStore(), dict[int, str]()
    for thread in [meet(store, rank, 2, found) for rank in (0, 1)]:
        thread.join()
    store.set("cmbench/attempt", "died")
    again: dict[int, str] = {}
    late = meet(store, 1, 2, again)
    late.join(0.2)
    assert again == {}
    meet(store, 0, 2, again).join()
    late.join()
    assert again[0] == again[1] not in (found[0], "died")


def test_those_who_do_not_come_are_given_up(monkeypatch):
    monkeypatch.setattr(launched, "_PATIENCE", launched.timedelta(seconds=0.1))
    for rank in (0, 1):
        with pytest.raises(CmbenchError, match=f"rank {rank} cannot reach the others: they have not come"):
            launched.attempt(HashStore(), rank, 2)
    with pytest.raises(StoppedError, match="SIGUSR1 before all ranks had come: nothing is trained"):
        launched.attempt(HashStore(), 0, 2, [signal.SIGUSR1.name])
