"""The script of docs/weights.md, which others run where the code of a pickle is, gives a file that is read."""

import re
import sys
from pathlib import Path

import saved
import torch

from cmbench.statedicts import files

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"


def test_the_script_of_the_page_turns_a_pickle_of_modules_into_a_state_dict(tmp_path, monkeypatch):
    (script,) = re.findall(r"```text\n(import pickle\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(script.splitlines()) <= 12
    torch.manual_seed(0)
    for name, value in {"edm": {"ema": saved.Own(), "augment": None}, "module": saved.Own()}.items():
        path = saved.save(tmp_path / f"{name}.pkl", value)
        monkeypatch.setattr(sys, "argv", ["convert.py", str(path), str(tmp_path / f"{name}.safetensors")])
        exec(compile(script, "convert.py", "exec"), {"__name__": "__main__"})
        with files.opened(tmp_path / f"{name}.safetensors") as file:
            module = value["ema"] if isinstance(value, dict) else value
            assert all(torch.equal(e.read(), module.state_dict()[e.name]) for e in file.entries)
            assert len(file.entries) == 4
