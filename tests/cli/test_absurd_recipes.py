"""Whatever stands in a recipe, `recipe check` ends with 0, or with 2 and one line."""

from collections import Counter
from pathlib import Path

from absurd_recipes import mutants

RECIPES = Path(__file__).parents[2] / "recipes"
N = 300


def test_every_mutant_of_a_shipped_recipe_is_taken_or_refused_in_one_line(cmbench, home):
    place, codes, wrong = home / "mutant.toml", Counter[int](), []
    for content in mutants(RECIPES, N):
        place.write_bytes(content)
        outcome = cmbench("recipe", "check", "mutant.toml")
        codes[outcome.code] += 1
        told = (outcome.out.count("\n"), outcome.err.count("\n"))
        if (outcome.code, told) not in ((0, (1, 0)), (2, (0, 1))) or len(outcome.err) > 1000:
            wrong.append((content, outcome))
    assert wrong == []
    assert codes[0] > N / 100  # the mutants are not all refused for the same reason
    assert codes[2] > N / 2
