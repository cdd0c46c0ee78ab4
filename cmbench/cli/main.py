"""`cmbench`: the application, and the one place where errors become a line and an exit code."""

import os
import sys
import traceback

import typer

from cmbench import __version__
from cmbench.cli import (
    _former,
    _screen,
    ablate,
    classifier,
    compare,
    doctor,
    evaluate,
    lab,
    ls,
    recipe,
    requests,
    resume,
    run,
    sample,
    serve,
    show,
    stop,
    watch,
)
from cmbench.errors import CmbenchError
from cmbench.rundir import launch

app = typer.Typer(
    name="cmbench",
    help="A terminal workbench for consistency models.",
    rich_markup_mode=None,  # plain help: half the start-up time
    pretty_exceptions_enable=False,
)

app.command("run", cls=_former.names(plain="foreground"))(run.run)
app.command("resume", cls=_former.names(plain="foreground"))(resume.resume)
app.command("watch", cls=_former.names(n="past"))(watch.watch)
app.command("serve")(serve.serve)
app.command("ls")(ls.ls)
app.command("show")(show.show)
app.command("compare")(compare.compare)
app.command("sample", cls=_former.names(save="safetensors"))(sample.sample)
app.command("eval", cls=_former.names(metrics="measures"))(evaluate.evaluate)
app.command("classifier", cls=_former.names(steps="train_steps"))(classifier.classifier)
app.command("stop")(stop.stop)
app.command("pause")(requests.pause)
app.command("continue")(requests.go_on)
app.command("checkpoint")(requests.checkpoint)
app.command("snapshot")(requests.snapshot)
app.command("set")(requests.change)
app.command("ablate")(ablate.ablate)
app.command("doctor")(doctor.doctor)
app.command("lab", cls=_former.names(png="out"))(lab.lab)
app.add_typer(recipe.app, name="recipe")


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


def main() -> None:
    """Run the command line and exit with the codes of the README."""
    _screen.fill_standard_streams()
    try:
        code = exit_code()
    finally:
        _screen.drop_what_is_left()
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
        if not launch.refuse(error) and str(error):
            _screen.complain(error)
        return error.exit_code
    except typer.TyperException as error:
        if message := error.format_message():
            _screen.complain(message)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        if os.environ.get("CMBENCH_DEBUG"):
            traceback.print_exc()
        _screen.complain(f"{type(error).__name__}: {error} (CMBENCH_DEBUG=1 shows where)")
        return 1
