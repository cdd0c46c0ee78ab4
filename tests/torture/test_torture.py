"""The attacks in their short form. `make torture` looks whether each notices a loss, and makes all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process does to files is read from /proc")

HERE = Path(__file__).parent
ATTACKS = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith(("_", "run", "test_")))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Attack in a process of its own: its children are forked, which a process with threads must not."""
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.trains
@pytest.mark.long
def test_nothing_is_lost():
    done = run("--short")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split("`")[1] for line in done.stdout.splitlines() if line.startswith("| `")] == ATTACKS


@pytest.mark.skipif(not os.environ.get("CMBENCH_TORTURE"), reason="make torture does this first")
def test_each_attack_tells_a_loss():
    done = run("--spoilt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ATTACKS


@pytest.mark.parametrize(
    ("arguments", "text"), [(["--only", "nothing"], "allowed: arguments"), (["--share", "x"], "--share")]
)
def test_an_attack_that_is_not_there(arguments, text):
    done = run(*arguments)
    assert done.returncode != 0
    assert text in done.stderr
