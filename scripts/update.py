"""Renew constraints.txt: exact versions of everything, for every Python that cmbench runs on.

`make update` calls it. uv finds the versions, with markers where Pythons differ; pip reads them. What CUDA builds of
torch bring is left out: torch itself names those versions, and its other builds bring none. No index is named either.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# The versions that cmbench is tested with, for pip's --constraint: `make demo` and `make test` install these.
# Made by `make update`; what pyproject.toml allows is wider.
"""
# The last pair of releases that serves Python 3.10 too: one torch for all, so that all Pythons train alike.
ONE_TORCH = "torch==2.14.1\ntorchvision==0.29.1\n"
BROUGHT_BY_TORCH = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton)")


def main() -> None:
    """Ask uv, and write what it found."""
    compile = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"]
    compile += ["--all-extras", "--no-annotate", "--no-header", "--upgrade", "--constraint", "-", "pyproject.toml"]
    done = subprocess.run(compile, cwd=ROOT, input=ONE_TORCH, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    lines = [line for line in done.stdout.splitlines() if not BROUGHT_BY_TORCH.match(line)]
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
