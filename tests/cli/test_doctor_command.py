"""`cmbench doctor`: exit codes, what is printed, and what programs read."""

import json
import os

import pytest

from cmbench.cli import _screen, _terminal

OWN_MASKS = """
import torch
from torch import nn
from cmbench.config import Config as Base

class Config(Base):
    '''No settings.'''

class Network(nn.Module):
    '''Draws dropout from a generator of its own, so that no two passes see one mask.'''

    def __init__(self, config, shape, classes):
        super().__init__()
        self.linear, self.draws = nn.Linear(shape[0], shape[0]), torch.Generator()

    def forward(self, x, c_noise, labels=None):
        return self.linear(x) * (torch.rand(x.shape, generator=self.draws) if self.training else 1)
"""


def test_of_the_machine(cmbench, home):
    outcome = cmbench("doctor", "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == (1 if answer["counts"]["fail"] else 0)
    assert (answer["schema"], answer["recipe"]) == (1, None)
    names = [check["name"] for check in answer["checks"]]
    assert names[0] == "python"
    assert names[-1] == "terminal"
    assert str(home / "runs") in next(c["found"] for c in answer["checks"] if c["name"] == "runs")
    text = cmbench("doctor", "--runs-dir", "elsewhere").out
    assert "elsewhere (to be made)" in text
    assert not (home / "runs").exists()


def test_of_a_recipe(cmbench, home):
    outcome = cmbench("doctor", "tiny.toml", "--set", "train.steps=5", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    answer = json.loads(outcome.out)
    assert answer["counts"] == {"ok": len(answer["checks"]) - 1, "warn": 0, "fail": 0, "-": 1}
    values = {check["name"]: check["values"] for check in answer["checks"]}
    assert len(values["tangent"]["bins"]) == 8
    assert values["speed"]["hours"] == pytest.approx(values["speed"]["seconds_per_step"] * 5 / 3600)
    assert [path.name for path in home.iterdir()] == ["tiny.toml"]


def test_text_at_80_columns(cmbench, monkeypatch):
    monkeypatch.setattr(_screen, "is_terminal", lambda err=False: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = cmbench("doctor", "tiny.toml").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith(" ok")
    header = next(i for i, line in enumerate(lines) if "against float64 jvp" in line)
    assert len(lines[header + 1 : -2]) == 8
    assert lines[header + 1].split()[:3] == ["0.002", "to", "0.0261"]


def test_of_a_run_by_any_of_its_names(cmbench, trained):
    for name in ("@latest", trained.name, trained.name[-4:], str(trained.recipe)):
        about = json.loads(cmbench("doctor", name, "--json").out)
        assert about["checks"][0]["found"].startswith("objective ct, network mlp")


def test_a_run_with_its_own_copy_of_its_teacher(cmbench, home, teacher):
    assert cmbench("run", "tiny.toml", "--set", "objective={kind='cd'}", "--set", "teacher.kind=run", "--set",
                   f"teacher.run={teacher.name}", "--set", "name=cd").code == 0  # fmt: skip
    for path in sorted(teacher.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    teacher.path.rmdir()
    assert cmbench("doctor", "@latest").code == 0


def test_exit_code_1_where_a_check_fails(cmbench, home):
    (home / "own_masks.py").write_text(OWN_MASKS)
    outcome = cmbench("doctor", "tiny.toml", "--set", "network={kind='own_masks:Network'}")
    assert outcome.code == 1
    assert "two passes of one step differ" in outcome.out
    assert outcome.out.splitlines()[-1].endswith("1 fail")


def test_mistakes_are_one_line(cmbench, home):
    for arguments, code, says in [
        (("doctor", "tinny.toml"), 2, "no such recipe"),
        (("doctor", "@latest"), 4, "no run"),
        (("doctor", "--set", "seed=1"), 2, "--set"),
        (("doctor", "--compile"), 2, "--compile: found one, allowed only with a recipe"),
        (("doctor", "tiny.toml", "--set", "network.widht=1"), 2, "network.widht"),
        (
            ("doctor", "tiny.toml", "--set", "objective={kind='cd'}", "--set", "teacher={kind='run', run='gone'}"),
            4,
            "gone",
        ),
    ]:
        outcome = cmbench(*arguments)
        assert (outcome.code, outcome.out) == (code, "")
        assert outcome.err.count("\n") == 1
        assert says in outcome.err


def test_what_is_said_of_terminals(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(_terminal.shutil, "get_terminal_size", lambda: os.terminal_size((60, 20)))
    for name, value in {"TERM": "dumb", "TMUX": "/tmp/x"}.items():
        monkeypatch.setenv(name, value)
    look = _terminal.look()
    assert look.level == "warn"
    assert all(text in look.advice for text in ("80 x 24", "xterm-256color", "tmux-256color"))
    monkeypatch.setattr(_terminal.shutil, "get_terminal_size", lambda: os.terminal_size((120, 40)))
    monkeypatch.setenv("TERM", "tmux-256color")
    assert _terminal.look().level == "ok"
