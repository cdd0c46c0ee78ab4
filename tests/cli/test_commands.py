"""The commands in front of a finished run, in this process."""

import io
import json
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from fake_runs import read_rows
from live_runs import add, event, live_run, metrics
from PIL import Image
from rich.cells import cell_len
from safetensors.numpy import load_file
from tiny import TINY

from cmbench.cli import _follow, _screen, _train
from cmbench.engine import checkpoint, weights
from cmbench.equations import sampling
from cmbench.rundir import status
from cmbench.rundir.files import read_json
from cmbench.rundir.log import Log
from cmbench.rundir.select import all_runs
from cmbench.words.journal import event_line, metrics_line


def without_time(line: str) -> str:
    return re.sub(r"^(\d{4}-\d\d-\d\d )?[-\d]{2}:[-\d]{2}:[-\d]{2}  ", "", line)


def answer(outcome) -> dict:
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return json.loads(outcome.out)


def test_run_makes_a_whole_run_directory(home, cmbench):
    outcome = cmbench("run", "tiny.toml", "--set", "seed=7", "--set", "log.every=6")
    assert outcome.code == 0
    assert outcome.err == ""
    (run,) = all_runs(home / "runs")
    assert (home / "runs" / "latest").resolve() == run.path
    assert {path.name for path in run.path.iterdir() if path.name != "lock"} == {
        "recipe.toml",
        "recipe.source.toml",
        "meta.json",
        "status.json",
        "machine.jsonl",
        "metrics.jsonl",
        "profiles.jsonl",
        "events.jsonl",
        "console.log",
        "checkpoints",
        "snapshots",
        "control",
    }
    lines = outcome.out.splitlines()
    assert lines[0] == run.name
    assert without_time(lines[1]) == "step 0  started"
    assert [line.split("  ")[1] for line in lines if "loss" in line] == ["step 6/12", "step 12/12"]
    assert lines[-1] == f"next: cmbench sample {run.name} --steps 1"
    assert run.console.read_text().splitlines() == lines[:-2]
    assert status.read(run)["state"] == "finished"
    assert read_json(run.meta)["seed"] == 7
    stems = [f"{step:08d}_{n}step" for step in (6, 12) for n in (1, 2)]
    answers = {f"{step:08d}_{kind}.safetensors" for step in (6, 12) for kind in ("film", "plane")}
    drawn = {s + e for s in stems for e in (".png", ".safetensors")}
    assert {path.name for path in run.snapshots.iterdir()} == {*drawn, *answers, "fixed.safetensors"}
    assert load_file(run.snapshots / f"{stems[-1]}.safetensors")["samples"].shape == (4, 2)
    assert "every = 6" in run.recipe_source.read_text()
    assert 'kind = "radam"' not in run.recipe_source.read_text()
    # The recipe that the run keeps gives the same run again.
    shutil.copy(run.recipe, home / "again.toml")
    assert cmbench("run", "again.toml").code == 0
    again = all_runs(home / "runs")[-1]
    mine, theirs = (checkpoint.load_group(r, 12, "model") for r in (again, run))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_runs_dir_says_where(home, cmbench, monkeypatch):
    assert cmbench("run", "tiny.toml", "--runs-dir", "elsewhere").code == 0
    assert not (home / "runs").exists()
    (run,) = all_runs(home / "elsewhere")
    assert run.name in cmbench("ls", "--runs-dir", "elsewhere").out
    assert cmbench("show", run.name, "--runs-dir", "elsewhere").code == 0
    assert cmbench("show", f"elsewhere/{run.name}").code == 0
    assert cmbench("ls").out == ""
    monkeypatch.setenv("CMBENCH_RUNS_DIR", "elsewhere")
    assert cmbench("show", run.name).code == 0


def test_ls(cmbench, trained, teacher, home):
    listed = answer(cmbench("ls", "--json"))
    assert listed["schema"] == 1
    assert {run["name"]: run["state"] for run in listed["runs"]} == {trained.name: "finished", teacher.name: "finished"}
    by_age = sorted((trained, teacher), key=lambda run: run.recipe.stat().st_mtime_ns, reverse=True)
    assert [run["name"] for run in listed["runs"]] == [run.name for run in by_age]
    table = cmbench("ls").out.splitlines()
    assert len(table) == 3
    (row,) = (line.split() for line in table if line.startswith(trained.name))
    assert row[1:3] == ["finished", "12/12"]
    now = status.read(trained)
    assert row[3] == f"{now['last']['loss']:.4g}"
    assert row[4] == f"{now['best']['sw_1step']['value']:.4g}"
    shutil.rmtree(home / "runs")
    empty = cmbench("ls")
    assert (empty.code, empty.out) == (0, "")
    assert "no runs in" in empty.err
    assert "cmbench run RECIPE.toml starts one" in empty.err or "cmbench run ct_edm_ring starts one" in empty.err
    assert answer(cmbench("ls", "--json"))["runs"] == []


def test_ls_leaves_out_what_has_no_room(cmbench, trained, monkeypatch):
    now = status.read(trained)["heartbeat"] + 90
    monkeypatch.setattr("time.time", lambda: now)  # or it grows older meanwhile

    monkeypatch.setattr(_screen, "is_terminal", lambda: True)

    def lines(width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        return cmbench("ls").out.splitlines()

    whole = lines(200)
    head, *rest = ([part.end() for part in re.finditer(r"\S+(?: [mhd]$)?", line.rstrip())] for line in whole)
    ends = [max(column) for column in zip(head, *rest, strict=True)]
    headers = ["run", "state", "step", "loss", "quality", "age"]
    for n, end in enumerate(ends, start=1):
        if n >= 3:
            assert lines(end)[0].split() == headers[:n]
            assert [line.rstrip() for line in lines(end)] == [line[:end].rstrip() for line in whole]
            assert lines(end - 1)[0].split() == headers[: max(3, n - 1)]


def test_ls_for_a_file_has_every_column_whole(cmbench, trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal, not of the file
    renamed = trained.path.rename(trained.path.with_name("a" * 100))
    head, row = cmbench("ls").out.splitlines()
    assert head.split() == ["run", "state", "step", "loss", "quality", "age"]
    assert row.split()[:3] == [renamed.name, "finished", "12/12"]


def test_ls_of_a_damaged_status(cmbench, trained):
    trained.status.write_bytes(b'{"state": "finished", "best": {"sw_1step": 3}, "last": [1], "of": "x"}')
    outcome = cmbench("ls")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[1].split()[2:5] == ["0/?", "-", "-"]


def test_show(cmbench, trained):
    shown = answer(cmbench("show", trained.name, "--json"))
    assert shown["name"] == trained.name
    assert shown["checkpoints"] == [10, 12]
    assert shown["status"]["step"] == 12
    assert shown["recipe"]["train"]["steps"] == 12
    assert shown["recipe"]["optimizer"]["kind"] == "radam"
    assert shown["meta"]["seed"] == 3
    assert len(shown["snapshots"]) == 4
    rows = read_rows(trained.metrics)
    last = [row for row in rows if "loss" in row][-1]
    assert shown["status"]["last"]["loss"] == last["loss"]
    for key in ("sw_1step", "sw_2step"):
        values = {row["step"]: row[key] for row in rows if key in row}
        step = min(values, key=values.__getitem__)
        assert shown["status"]["best"][key] == {"value": values[step], "step": step}
    text = cmbench("show").out
    recipe, _, summary = text.partition(f"\n{trained.name}: finished at step 12 of 12\n")
    assert "steps = 12" in recipe
    assert "10, 12" in summary  # last, so that it stays on the screen
    assert "loss" in summary
    assert "[train]" not in summary


def test_what_a_run_holds_is_not_taken_for_markup(cmbench, trained):
    meta = {**read_json(trained.meta), "device": "[red]x[/red] [link=y]z"}
    trained.meta.write_text(json.dumps(meta))
    assert "[red]x[/red] [link=y]z" in cmbench("show").out


def test_watch_of_a_finished_run_prints_its_end(cmbench, trained):
    lines = cmbench("watch", trained.name, "--plain", "-n", "3").out.splitlines()
    assert lines[0] == trained.name
    assert len(lines) == 6
    assert without_time(lines[3]) == "step 12  finished"
    moments = [re.match(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d  ", line) for line in lines[1:4]]
    assert [bool(moment and moment[1]) for moment in moments] == [True, False, False]  # one day, said once
    assert lines[-1] == f"next: cmbench sample {trained.name} --steps 1"
    everything = cmbench("watch", trained.name, "--plain", "-n", "1000").out.splitlines()
    rows = read_rows(trained.metrics) + read_rows(trained.events)
    assert len(everything) == 1 + len(rows) + 2
    assert without_time(everything[1]) == "step 0  started"


@pytest.mark.parametrize(
    ("state", "code", "says"),
    [
        ("finished", 0, "next: cmbench sample"),
        ("stopped", 75, "stopped at step 12: cmbench resume"),
        ("diverged", 3, "the last good state is checkpoint 12"),
        ("diverged", 3, "--checkpoint STEP --set"),
        ("failed", 1, "console.log"),
        ("crashed", 1, "cmbench resume"),
    ],
)
def test_how_a_run_ended_is_its_exit_code(trained, capsys, state, code, says):
    status.write(trained, {**read_json(trained.status), "state": state})
    assert _follow.closing(trained) == code
    assert says in capsys.readouterr().out


def test_what_a_status_does_not_say_is_not_told(trained, capsys):
    status.write(trained, {"state": "diverged", "step": 3})
    assert _follow.closing(trained) == 3
    assert "diverged; no checkpoint is known: cmbench show" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_sample_draws_with_so_many_steps(cmbench, trained, home, steps):
    shown = answer(cmbench("sample", "--steps", steps, "--n", 10, "--safetensors", "x.safetensors", "--json"))
    assert (shown["run"], shown["step"], shown["ema"], shown["n"]) == (trained.name, 12, "0.9", 10)
    assert len(shown["sigmas"]) == steps
    assert shown["sigmas"][0] == 80.0
    assert shown["sigmas"] == sorted(shown["sigmas"], reverse=True)
    picture = trained.samples / f"00000012_{steps}step_seed0_n10.png"
    assert shown["files"] == [str(picture), "x.safetensors"]
    with Image.open(picture) as opened:
        assert (opened.size, opened.mode) == ((384, 384), "RGB")
    samples = load_file("x.safetensors")["samples"]
    assert samples.shape == (10, 2)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_one_step_is_f_at_sigma_max(cmbench, trained):
    """One step applies f once to sigma_max z with z ~ N(0, I): the spread of f's input shows in its output."""
    assert cmbench("sample", "--n", 500, "--safetensors", "x.safetensors").code == 0
    samples = load_file("x.safetensors")["samples"]
    model = weights.load(trained, torch.device("cpu")).model
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(5))
    expected = model(80 * z, torch.full((500,), 80.0)).detach().numpy()
    assert samples.mean(axis=0) == pytest.approx(expected.mean(axis=0), abs=0.1)
    assert samples.std(axis=0) == pytest.approx(expected.std(axis=0), rel=0.15)


def test_sigmas_are_those_given(cmbench, trained, monkeypatch):
    seen = []
    draw = sampling.multistep_consistency

    def spy(f, latents, sigmas, *rest):
        seen.append(list(sigmas))
        return draw(f, latents, sigmas, *rest)

    monkeypatch.setattr(sampling, "multistep_consistency", spy)
    shown = answer(cmbench("sample", "--sigmas", "40,1.5,0.1", "--json"))
    assert shown["sigmas"] == seen[0] == [40.0, 1.5, 0.1]
    assert shown["files"] == [str(trained.samples / "00000012_3step_seed0_sigma40,1.5,0.1.png")]


def test_many_noise_levels_have_a_short_name(cmbench, trained):
    levels = ", ".join(str(80 - i / 10) for i in range(60))
    (file,) = answer(cmbench("sample", "--n", 2, "--sigmas", levels, "--json"))["files"]
    name = file.rpartition("/")[2]
    assert len(name) < 60
    assert " " not in name


def test_samples_asked_for_in_another_way_have_another_file(cmbench, conditional):
    """Of a run's samples/ nothing is replaced but by equal samples."""
    ways = [[], ["--n", 3], ["--steps", 2], ["--seed", 1], ["--label", 1], ["--ema", "none"], ["--sigmas", "80,1"]]
    files = {answer(cmbench("sample", *way, "--json"))["files"][0] for way in ways}
    assert len(files) == len(ways)


@pytest.mark.parametrize("command", ["sample", "edit"])
def test_steps_beside_noise_levels_are_refused(cmbench, trained, command):
    done = cmbench(command, trained.name, "--steps", 1, "--sigmas", "80,1")
    assert (done.code, done.err) == (2, "cmbench: --steps, --sigmas: found both, allowed: one of them\n")


def test_equal_seeds_give_equal_files(cmbench, trained, home):
    def files(*arguments: object) -> tuple[bytes, bytes]:
        assert cmbench("sample", "--out", "x.png", "--safetensors", "x.safetensors", "--steps", 2, *arguments).code == 0
        return (home / "x.png").read_bytes(), (home / "x.safetensors").read_bytes()

    first = files("--seed", 5)
    assert files("--seed", 5) == first
    other = files("--seed", 6)
    assert other[0] != first[0]
    assert other[1] != first[1]
    assert files("--seed", 5, "--ema", "0.9") == first
    assert len({files("--seed", 5, "--ema", ema)[1] for ema in ("0.9", "0.5", "none")}) == 3
    assert files("--seed", 5, "--checkpoint", 12) == first
    assert files("--seed", 5, "--checkpoint", 10)[1] != first[1]
    assert not trained.samples.exists()


def test_no_two_of_many_samples_are_equal(cmbench, trained):
    assert cmbench("sample", "--n", 1030, "--safetensors", "x.safetensors").code == 0
    samples = load_file("x.safetensors")["samples"]
    assert samples.shape == (1030, 2)
    assert len(np.unique(samples, axis=0)) == 1030


@pytest.mark.parametrize("ema", ["0.9", "0.5", "none"])
def test_every_average_can_be_sampled(cmbench, trained, ema):
    assert answer(cmbench("sample", "--ema", ema, "--json"))["ema"] == ema


def test_out_makes_the_folders_it_needs(cmbench, trained, home):
    assert cmbench("sample", "--out", "a/b/c.png", "--safetensors", "d/e.safetensors").code == 0
    assert (home / "a/b/c.png").read_bytes().startswith(b"\x89PNG")
    assert load_file("d/e.safetensors")["samples"].shape == (64, 2)


def test_a_conditional_run_is_sampled_by_label(cmbench, conditional, monkeypatch):
    seen = []
    forward = weights.Model.forward

    def spy(self, x, t, labels=None):
        seen.append(labels)
        return forward(self, x, t, labels)

    monkeypatch.setattr(weights.Model, "forward", spy)
    assert cmbench("sample", "--n", 5, "--label", 3).code == 0
    assert cmbench("sample", "--n", 10).code == 0
    assert seen[0].tolist() == [3] * 5
    assert seen[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


def test_the_label_reaches_the_samples(cmbench, conditional):
    drawn = []
    for label in (0, 1):
        assert cmbench("sample", "--label", label, "--safetensors", "x.safetensors").code == 0
        drawn.append(load_file("x.safetensors")["samples"])
    assert not np.array_equal(*drawn)


def test_a_teacher_is_sampled_by_its_ode(cmbench, teacher, monkeypatch):
    calls = []
    solve = sampling.heun_ode
    monkeypatch.setattr(sampling, "heun_ode", lambda D, x, sigmas: calls.append(list(sigmas)) or solve(D, x, sigmas))
    shown = answer(cmbench("sample", "--steps", 5, "--json"))
    assert shown["sigmas"] == calls[0]
    rho = 7
    grid = [(80 ** (1 / rho) + i / 4 * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho for i in range(5)]
    assert calls[0] == pytest.approx(grid, rel=1e-5)


def test_samples_that_are_not_finite_are_announced(cmbench, trained, monkeypatch):
    monkeypatch.setattr(weights.Model, "forward", lambda self, x, t, labels=None: x * float("nan"))
    outcome = cmbench("sample", "--json")
    assert outcome.code == 0
    assert outcome.err == "cmbench: some samples are not finite\n"
    json.loads(outcome.out)


def test_recipes_are_listed_shown_and_checked(cmbench, home):
    (home / "recipes").mkdir()
    (home / "recipes" / "ring.toml").write_text(TINY)
    listed = answer(cmbench("recipe", "list", "--json"))
    about = {"objective": "ct", "data": "ring", "network": "mlp", "steps": 12}
    assert {"name": "ring", "path": "recipes/ring.toml", **about} in listed["recipes"]
    assert "ct_edm_ring" in [recipe["name"] for recipe in listed["recipes"]]
    assert "ring" in cmbench("recipe", "list").out
    shown = answer(cmbench("recipe", "show", "ring", "--set", "train.steps=99", "--json"))["recipe"]
    assert (shown["train"]["steps"], shown["objective"]["rho"]) == (99, 7.0)
    assert cmbench("recipe", "check", "ring", "tiny.toml").out == "recipes/ring.toml: ok\ntiny.toml: ok\n"
    assert answer(cmbench("recipe", "schema"))["type"] == "object"


def test_check_goes_on_after_a_mistake(cmbench, home):
    (home / "bad.toml").write_text(TINY.replace("steps = 12", "steps = 0"))
    (home / "worse.toml").write_text(TINY.replace("depth = 1", "depht = 1"))
    outcome = cmbench("recipe", "check", "bad.toml", "tiny.toml", "worse.toml")
    assert outcome.code == 2
    assert outcome.out == "tiny.toml: ok\n"
    bad, worse = outcome.err.splitlines()
    assert bad.startswith("cmbench: bad.toml: train.steps")
    assert worse.startswith("cmbench: worse.toml: network.depht")


def test_check_refuses_a_key_that_does_nothing(cmbench, home):
    outcome = cmbench("recipe", "check", "tiny.toml", "--set", "objective.huber_c=0.3")
    assert outcome.code == 2
    assert "objective.huber_c: found 0.3, which does nothing where objective.distance = 'l2'" in outcome.err


def test_resume_in_this_process(cmbench, home, trained):
    status.write(trained, {**read_json(trained.status), "state": "stopped"})
    shutil.rmtree(checkpoint.folder_of(trained, 12))
    outcome = cmbench("resume", trained.name)
    assert outcome.code == 0
    assert "resumed after step 10" in outcome.out
    assert status.read(trained)["state"] == "finished"
    assert status.read(trained)["segment"] == 2


def test_resume_from_a_chosen_checkpoint(cmbench, home, trained):
    status.write(trained, {**(read_json(trained.status) or {}), "state": "stopped"})
    outcome = cmbench("resume", trained.name, "--checkpoint", "10", "--set", "optimizer.lr=0.001")
    assert outcome.code == 0
    assert "step 10  resumed after step 10 by choice; " in outcome.out
    assert "checkpoints 12 kept in checkpoints/abandoned" in outcome.out
    assert "step 10  set: done (optimizer.lr=0.001)" in outcome.out
    assert answer(cmbench("show", trained.name, "--json"))["settings"] == {"optimizer.lr": 0.001}


def test_lines():
    row = {"step": 200, "loss": 0.0231049, "grad_norm": 0.61, "lr": 1e-4, "N": 12, "images_per_s": 912.4, "time": 1.0}
    assert metrics_line(row, 4000, 10) == "step 200/4000  loss 0.0231  grad_norm 0.61  N 12  912 images/s  eta 42s"
    broken = {"step": 5, "loss": None, "nonfinite": {"loss": "nan"}}
    assert metrics_line(broken, 10, 1) == "step 5/10  loss nan"
    assert metrics_line({"step": 5, "images_per_s": 5e-324}, 10, 1) == "step 5/10  0 images/s  eta ?"
    assert event_line({"step": 3, "kind": "something_new"}) == "step 3  something_new"
    assert event_line({"step": 3, "kind": "diverged", "what": "loss"}).startswith("step 3  diverged: the loss")


def test_the_first_signal_stops_and_the_second_ends_the_process(put_back):
    asked, numbers = [], (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _train._stop_on_signals(type("Runner", (), {"request_stop": staticmethod(asked.append)}))
    assert all(callable(signal.getsignal(number)) for number in numbers)
    signal.raise_signal(signal.SIGHUP)  # to this thread: another would hand it on at a time of its own
    assert asked == ["SIGHUP"]
    assert {signal.getsignal(number) for number in numbers} == {signal.SIG_DFL}


def test_without_arguments_there_is_help(cmbench):
    for arguments in ([], ["recipe"]):
        outcome = cmbench(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert "\nCommands:" in outcome.out


def test_show_passes_over_a_metric_that_is_no_number(trained, cmbench):
    now = read_json(trained.status)
    status.write(trained, {**now, "last": {**now["last"], "sw_1step": None}})
    assert cmbench("show", trained.name).err == ""


def test_watch_with_no_past_prints_no_past(trained, cmbench):
    assert "step" not in cmbench("watch", trained.name, "--plain", "-n", 0).out.split("snapshots:")[0]


def test_watch_as_json_is_the_rows(trained, cmbench):
    rows = [json.loads(line) for line in cmbench("watch", trained.name, "-n", 3, "--json").out.splitlines()]
    assert len(rows) == 3
    assert rows[-1]["kind"] == "finished"


def test_a_sample_that_cannot_be_written_leaves_nothing(trained, cmbench, home):
    (home / "folder").mkdir()
    before = sorted(path.name for path in home.iterdir())
    assert cmbench("sample", "--out", "folder").code == 2
    assert sorted(path.name for path in home.iterdir()) == before


def test_a_broken_recipe_does_not_hide_the_others(cmbench, home):
    (home / "recipes").mkdir()
    (home / "recipes" / "a.toml").write_text("name = ")
    (home / "tiny.toml").rename(home / "recipes" / "tiny.toml")
    outcome = cmbench("recipe", "list")
    assert outcome.code == 0
    assert "tiny" in outcome.out
    assert "a.toml: not TOML" in outcome.err


def test_training_goes_on_when_the_reader_of_its_lines_leaves(cmbench, home, monkeypatch):
    class Left(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Left())
    assert cmbench("run", "tiny.toml").code == 0
    (run,) = all_runs(home / "runs")
    assert "step 12/12" in run.console.read_text()
    assert status.read(run)["state"] == "finished"


def test_what_is_followed_after_a_resume_is_the_newest_segment(trained):
    rows = list(_follow.rows(trained))
    for path in (trained.metrics, trained.events):
        log = Log(path)
        log.open_segment(2, first_step=13)
        log.close()
    assert rows
    assert list(_follow.rows(trained)) == []


def test_a_signal_that_is_ignored_stays_ignored(put_back):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _train._stop_on_signals(None)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)


def test_sample_on_a_device_that_is_not_there(trained, cmbench):
    for device in ("cuda:99", "gpu"):
        outcome = cmbench("sample", "--device", device)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert f"--device: found '{device}'" in outcome.err


HOSTILE = "\x1b[2J[red]x\x07 北京" + "long " * 40


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_without_a_terminal_watch_is_a_card(cmbench, home, rows, monkeypatch):
    run = live_run(home / "runs", rows=rows, name=f"{HOSTILE.replace('/', '')}-1")
    add(run.events, event(40, "failed", error=HOSTILE), {"kind": "request", "settings": 3}, event(41, "warning"))
    add(run.metrics, metrics(41, own=2.0), b'{"step": 42, "los')
    whole = cmbench("watch").out.splitlines()
    assert f"path {run.path}".replace("\x1b", "␛").replace("\x07", "␇") in whole
    monkeypatch.setattr(_screen, "is_terminal", lambda err=False: True)
    outcome = cmbench("watch")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert all(cell_len(line) <= 80 and line.isprintable() for line in lines)
    assert lines[0].startswith("␛[2J[red]x␇ 北京long")
    assert any(line.split() == ["own", "2"] for line in lines)
    assert "40 failed: ␛[2J[red]x␇ 北京" in outcome.out
    plain = cmbench("watch", "--ascii").out
    assert plain.isascii()
    assert list(map(len, plain.splitlines())) == list(map(cell_len, lines))


def test_a_card_of_nothing_but_a_recipe(cmbench, home):
    run = live_run(home / "runs")
    for path in run.path.iterdir():
        if path.is_file() and path != run.recipe:
            path.unlink()
    assert cmbench("watch", run.name).code == 0
    for path in (run.metrics, run.events, run.profiles, run.console, run.meta, run.status):
        path.mkdir()  # what cannot be read
    assert cmbench("watch", run.name).code == 0


def test_lines_pass_over_a_journal_that_others_wrote(cmbench, home):
    run = live_run(home / "runs", state="finished")
    add(run.events, event(41, "warning"), event(42, "snapshot", files=3), event(43, "initialised", source="x", error=1))
    lines = cmbench("watch", run.name, "--plain", "-n", 3).out.splitlines()
    shown = [without_time(line) for line in lines[1:4]]
    assert shown == [
        "step 41  warning",
        "step 42  snapshot",
        "step 43  initialised",
    ]


DAMAGED = [
    {"segment": 1, "time": 1.0, "loss": 0.5},  # without a step
    {"segment": 1, "step": "41", "time": 1.0, "loss": 0.5},
    {"segment": "x", "step": 41, "time": "x", "loss": "x", "images_per_s": [], "nonfinite": 3},
    {"step": None, "first_step": None},
    b'[1, 2]\n"x"\n3\nnull\n',  # no objects
    {},
]


@pytest.mark.parametrize("n", [5, 1000])
def test_lines_pass_over_damaged_rows(cmbench, home, n):
    run = live_run(home / "runs", state="finished")
    whole = cmbench("watch", run.name, "--plain", "-n", n)
    add(run.metrics, *DAMAGED, {"segment": 2, "first_step": 42}, metrics(42, loss=0.0625, sw_1step=None))
    add(run.events, *DAMAGED)
    outcome = cmbench("watch", run.name, "--plain", "-n", n)
    assert (whole.code, outcome.code, outcome.err) == (0, 0, "")
    before, after = ([without_time(line) for line in each.out.splitlines()] for each in (whole, outcome))
    assert [line for line in after if line.startswith("step 42/1000  loss 0.0625  ")]
    others = [line for line in after if line not in before and not line.startswith("step 42")]
    assert set(others) <= {"step 41/1000", "step 41  ?"}  # what there is of the one with a step
    assert cmbench("watch", run.name, "--json", "-n", n).code == 0
    assert cmbench("ls").code == cmbench("show", run.name).code == 0


def test_one_run_is_followed_by_lines(complains_of_two):
    for option in ("--plain", "--json"):
        refused = complains_of_two(option)
        assert refused.code == 2
        assert refused.err == f"cmbench: watch: {option}: found 2 runs, allowed: one\n"


@pytest.fixture
def complains_of_two(cmbench, home):
    names = [live_run(home / "runs", f"live-20260101-000000-000{letter}").name for letter in "ab"]
    return lambda option: cmbench("watch", *names, option)
