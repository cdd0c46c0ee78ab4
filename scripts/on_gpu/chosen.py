"""The recipes that are checked: for each kind of objective one on points and one on small pictures."""

from pathlib import Path

from cmbench import recipe as recipes
from cmbench.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SMALL = ("mixtures", "digits")  # kinds of data that need no download, each with a small network
_NEWEST = "@latest:"


def small(folder: Path = RECIPES) -> list[str]:
    """Return the names of the recipes, one for each objective and kind of data: rather one that needs no other run."""
    found: dict[tuple[str, str], tuple[bool, str]] = {}
    for path in sorted(folder.glob("*.toml")):
        recipe = recipes.load(path)
        of, candidate = (recipe.data["kind"], recipe.objective["kind"]), (bool(needed(recipe)), path.stem)
        if of[0] in SMALL:
            found[of] = min(candidate, found.get(of, candidate))
    return [found[of][1] for of in sorted(found, key=lambda of: (SMALL.index(of[0]), of))]


def needed(recipe: Recipe) -> str:
    """Return the name of the recipe whose run this one begins with or learns from; empty if it needs none.

    Shipped recipes name it as the newest run of a recipe: "@latest:dm_edm-".
    """
    runs = [recipe.teacher.run if recipe.teacher else "", recipe.start.run if recipe.start else ""]
    return next((run.removeprefix(_NEWEST).removesuffix("-") for run in runs if run), "")
