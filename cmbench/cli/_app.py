"""The application. Each file of this folder without a leading underscore adds its commands with `@app.command`."""

import importlib
import pkgutil

import typer

from cmbench import cli

# The order in --help; commands that are not named here come last.
_ORDER = [
    *("run", "resume", "watch", "serve", "ls", "show", "compare", "sample", "eval", "reference"),
    *("classifier", "import"),
    *("stop", "pause", "continue", "checkpoint", "snapshot", "set", "ablate", "sweep", "doctor", "lab"),
]

app = typer.Typer(
    name="cmbench",
    help="A terminal workbench for consistency models.",
    rich_markup_mode=None,  # plain help: half the start-up time
    pretty_exceptions_enable=False,
)


def whole() -> typer.Typer:
    """Return the application with all commands."""
    for found in pkgutil.iter_modules(cli.__path__):
        if not found.name.startswith("_") and found.name != "main":
            importlib.import_module(f"{cli.__name__}.{found.name}")
    place = {name: i for i, name in enumerate(_ORDER)}
    app.registered_commands.sort(key=lambda command: place.get(command.name or "", len(place)))
    return app
