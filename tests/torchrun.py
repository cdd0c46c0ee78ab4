"""Commands on several ranks, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).absolute().parent


def torchrun(size: int, *command: object, restarts: int = 0) -> subprocess.CompletedProcess:
    """Start so many ranks, and wait for their end."""
    given = ["--standalone", "--nproc-per-node", size, "--max-restarts", restarts, *command]
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "objectives")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", *map(str, given)]
    return subprocess.run(launch, capture_output=True, text=True, env=environment, check=False)


def cmbench_on(size: int, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess:
    """Start a command on so many ranks, and wait for its end."""
    return torchrun(size, "-m", "cmbench", *arguments, restarts=restarts)
