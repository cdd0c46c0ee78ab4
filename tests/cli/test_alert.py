"""The user's alert, and the machine's history."""

import json
import sys

import pytest
from fake_runs import read_rows

from cmbench.cli import _alert
from cmbench.engine import machine
from cmbench.rundir.select import all_runs
from cmbench.views.run import RunView


@pytest.fixture
def config(home, monkeypatch):
    file = home / "config.toml"
    monkeypatch.setenv("CMBENCH_CONFIG", str(file))
    monkeypatch.setattr(_alert, "SECONDS", 600.0)  # a busy machine may take long to begin a process
    return file


def test_the_end_is_told_without_a_shell(cmbench, home, config):
    script, out = home / "told $(touch owned).py", home / "out.json"
    script.write_text(
        "import json, os, sys\n"
        "facts = {**json.load(sys.stdin), 'name': os.environ['CMBENCH_ALERT_RUN'], 'arguments': sys.argv[1:]}\n"
        f"open({str(out)!r}, 'w').write(json.dumps(facts))\n"
    )
    command = [sys.executable, str(script), "; touch owned"]
    config.write_text(f"[alert]\ncommand = {json.dumps(command)}\n")
    assert cmbench("run", "tiny.toml", "--foreground").code == 0
    run = all_runs(home / "runs")[0]
    told = json.loads(out.read_text())
    assert told["arguments"] == ["; touch owned"]
    assert (told["event"], told["kind"], told["step"], told["run"], told["name"]) == (
        "end",
        "finished",
        12,
        run.name,
        run.name,
    )
    assert not (home / "owned").exists()
    assert all(row.get("kind") != "warning" for row in read_rows(run.events))


def test_an_alert_that_fails_is_a_line_in_the_journal(cmbench, home, config, monkeypatch):
    config.write_text('[alert]\ncommand = ["./not-there"]\nurl = "http://127.0.0.1:9/secret"\n')
    assert cmbench("run", "tiny.toml", "--foreground").code == 0
    run = all_runs(home / "runs")[0]
    texts = [row["text"] for row in read_rows(run.events) if row.get("kind") == "warning"]
    assert texts[0] == "alert: ./not-there: No such file or directory"
    assert texts[1].startswith("alert: the address answered: ")
    assert "secret" not in run.events.read_text()


@pytest.mark.parametrize("table", ['on = ["never"]', 'url = "file:///etc/passwd"', "command = 3"])
def test_what_is_no_alert_is_refused_before_training(cmbench, home, config, table):
    config.write_text(f"[alert]\n{table}\n")
    done = cmbench("run", "tiny.toml", "--foreground")
    assert done.code == 2
    assert "alert" in done.err
    assert not list((home / "runs").glob("tiny*"))


def test_the_machine_is_recorded_and_can_be_charted(cmbench, home, config, monkeypatch):
    monkeypatch.setattr(machine.Machine, "due", lambda self, train_s: True)
    monkeypatch.setattr("cmbench.engine.recorder._STATUS_EVERY", 0.0)
    assert cmbench("run", "tiny.toml", "--foreground").code == 0
    view = RunView(all_runs(home / "runs")[0])
    while view.read():
        pass
    line = view.line("machine_rss_gib", "step")
    assert len(line.x) > 0
    assert 0.01 < line.mean[-1] < 100
    assert "machine_cpu_use" in view.keys


def test_rows_of_the_machine_grow_rarer():
    made = machine.Machine(False)
    assert not made.due(0.0)
    made._next = 0.0
    assert made.due(1e6)
    assert made._next > 100
