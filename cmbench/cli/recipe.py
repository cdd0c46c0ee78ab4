"""`cmbench recipe list|show|check|schema`."""

from pathlib import Path
from typing import Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _app, _screen
from cmbench.cli._options import Json, Overrides, RecipeFile, Trust, _complete_recipes
from cmbench.cli._screen import table
from cmbench.errors import UsageError
from cmbench.text import toml_escaped

app = typer.Typer(help="List, show and check recipes.", rich_markup_mode=None)
_app.app.add_typer(app, name="recipe")


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        _screen.text(context.get_help())


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """List the recipes in ./recipes and those that came with cmbench."""
    found = []
    for path in recipes.available():
        try:
            found.append(_about(path))
        except UsageError as error:
            _screen.complain(error)
    if json:
        _screen.data({"schema": 1, "recipes": found})
    else:
        keys = ["name", "objective", "data", "network", "steps"]
        table(keys, [[str(about[key]) for key in keys] for about in found])


def _about(path: Path) -> dict[str, object]:
    recipe = recipes.load(path)
    data = recipe.data
    return {
        "name": path.stem,
        "path": str(path),
        "objective": recipe.objective["kind"],
        "data": data.get("name", data["kind"]),
        "network": recipe.network["kind"],
        "steps": recipe.train.steps,
    }


@app.command()
def show(
    recipe: RecipeFile,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", autocompletion=_complete_recipes, help="With --schedules: another recipe."),
    ] = None,
    schedules: Annotated[
        bool, typer.Option("--schedules", help="Draw its schedules over steps and noise levels instead.")
    ] = False,
    overrides: Overrides = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Print a complete recipe, with every default and the meaning of each key."""
    if other is not None and not schedules:
        raise UsageError(f"OTHER: found '{other}', allowed only with --schedules")
    if schedules:
        _show_schedules([recipe] if other is None else [recipe, other], overrides or [], json)
        return

    from cmbench.engine import build

    path = recipes.find(recipe)
    complete = build.complete(consent.named(path, overrides or ()).recipe, str(path))
    if json:
        _screen.data({"schema": 1, "recipe": complete.tables()})
    else:
        _screen.text(toml_escaped(build.commented(complete)).rstrip("\n"))


def _show_schedules(names: list[str], overrides: list[str], json: bool) -> None:
    """Draw the schedules of one recipe or of two; overrides apply to both."""
    from cmbench.cli import _schedules
    from cmbench.engine import build
    from cmbench.engine import schedules as engine

    paths = [recipes.find(name) for name in names]
    wholes = [build.complete(consent.named(path, overrides).recipe, str(path)) for path in paths]
    found = [engine.of_recipe(whole, str(path)) for whole, path in zip(wholes, paths, strict=True)]
    if json:
        _screen.data({"schema": 1, "schedules": [each.to_dict() for each in found]})
    else:
        _schedules.show(found)


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE", autocompletion=_complete_recipes, help="Paths or names."),
    ],
    overrides: Overrides = None,
    trust: Trust = False,
) -> None:
    """Check recipes and print a line for each. Exit code 2 if any has a mistake."""
    from cmbench.engine import build

    mistakes = []
    for name in files:
        try:
            path = recipes.find(name)
            build.complete_new(consent.named(path, overrides or ()).recipe, str(path))
            _screen.line(f"{path}: ok")
        except UsageError as error:
            mistakes.append(str(error))
    if mistakes:
        for mistake in mistakes[:-1]:
            _screen.complain(mistake)
        raise UsageError(mistakes[-1])


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from cmbench.engine import build

    _screen.data(build.schema(), indent=True)
