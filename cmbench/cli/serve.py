"""`cmbench serve`."""

import importlib.util
import shlex
import sys
from typing import Annotated

import typer

from cmbench.cli._options import Runs, RunsDir
from cmbench.errors import UsageError
from cmbench.rundir.select import runs_folder, select


def serve(
    runs: Runs = None,
    runs_dir: RunsDir = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
) -> None:
    """Show the dashboard in a browser on this machine. From afar: ssh -L 8000:127.0.0.1:8000 HOST."""
    folder = runs_folder(runs_dir)
    chosen = [str(select(run, folder).path) for run in runs or ()]
    if importlib.util.find_spec("textual_serve") is None:
        raise UsageError("serve: textual-serve is not installed (pip install 'cmbench[serve]')")
    from textual_serve.server import Server

    command = [sys.executable, "-m", "cmbench", "watch", *chosen, "--runs-dir", str(folder)]
    # It knows no passwords: nobody but this machine may reach it.
    Server(shlex.join(command), host="127.0.0.1", port=port, title="cmbench").serve()
