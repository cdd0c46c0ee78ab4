"""`cmbench`: the application, and the only place where errors become a line and an exit code."""

import os
import sys
import time
import traceback

import typer

from cmbench import __version__
from cmbench.cli import _app, _screen, _signals
from cmbench.errors import CmbenchError, UsageError
from cmbench.rundir import group, launch, torchrun

_OF_SEVERAL_RANKS = ("run", "resume", "eval", "sample", "bench")
_LET_SPEAK = 2.0  # seconds

app = _app.whole()


def _print_version(wanted: bool) -> None:
    if wanted:
        _screen.line(f"cmbench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    if context.invoked_subcommand is None:
        _screen.text(context.get_help())
    elif (size := group.member().size) > 1 and context.invoked_subcommand not in _OF_SEVERAL_RANKS:
        allowed = f"allowed: {', '.join(_OF_SEVERAL_RANKS)}; start {context.invoked_subcommand} without torchrun"
        raise UsageError(f"cmbench {context.invoked_subcommand}: found {size} ranks, {allowed}")


def main() -> None:
    """Run the command line and exit with the codes of the README."""
    _screen.fill_standard_streams()
    if sys.argv[1:2] == [torchrun.ARGUMENT]:
        from cmbench.engine import agent

        # A batch system may send its announcement to all processes. The ranks know what it means.
        _signals.on(*_signals.ANNOUNCED, handler=lambda number, frame: None)
        sys.exit(agent.main(sys.argv[2:]))
    if group.is_launched():
        group.end_with_parent()
    try:
        code = exit_code()
    finally:
        _screen.drop_what_is_left()
    if code and not group.is_heard():
        time.sleep(_LET_SPEAK)  # once this process has ended, torchrun ends the one that says why
    if group.is_launched():
        # A thread of gloo may still free a Python object, and aborts the process if the interpreter ends meanwhile.
        os._exit(code)
    sys.exit(code)


def exit_code() -> int:
    """Run the command line in this process, and return its exit code."""
    with _screen.gate():
        return _guarded()


def _guarded() -> int:
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except CmbenchError as error:
        if os.environ.get("CMBENCH_DEBUG"):
            traceback.print_exc()
        if not launch.refuse(error) and str(error) and group.is_heard():
            _screen.complain(error)
        return error.exit_code
    except typer.TyperException as error:
        if (message := error.format_message()) and group.is_heard():
            _screen.complain(message)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        if os.environ.get("CMBENCH_DEBUG"):
            traceback.print_exc()
        _screen.complain(f"{type(error).__name__}: {error} (CMBENCH_DEBUG=1 shows where)")
        return 1
