"""Something else in the place of a file of one run: no command waits for it, fills the memory, or loses the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from other_kinds import KINDS

WHOLE = bool(os.environ.get("CMBENCH_TORTURE"))


@pytest.mark.parametrize("kind", KINDS if WHOLE else ["fifo"])
def test_what_is_no_file_of_ours_spoils_nothing(trained, kind):
    if kind == "device" and os.geteuid():
        pytest.skip("only root makes devices")
    trained.path.rename(trained.path.with_name("good"))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("replaced.py"), kind, trained.path.parent, *([] if WHOLE else ["6"])],
        capture_output=True,
        text=True,
        timeout=1800,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.endswith(f"{kind}: done\n")
