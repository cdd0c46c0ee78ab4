"""One of several runs that are compared: the parts of its files that a comparison uses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cmbench.errors import UsageError
from cmbench.recipe import Recipe, flat
from cmbench.recipe import load as load_recipe
from cmbench.rundir import annotations, columns, floors, settings, status
from cmbench.rundir.annotations import Annotations
from cmbench.rundir.columns import Column, Profile
from cmbench.rundir.fields import moment, number_list
from cmbench.rundir.files import read_json
from cmbench.rundir.floors import Floors
from cmbench.rundir.layout import RunDir

# Keys of meta.json that say what a run is or where it lies, or that follow from its recipe.
_NOT_ENVIRONMENT = {
    *("schema", "created", "argv", "launch", "directory", "seed", "teacher", "start"),
    *("shape", "classes", "parameters", "profile_edges", "profile_noise_levels"),
    *("floor", "floor_spread", "floor_draws"),
}


@dataclass(frozen=True)
class Member:
    """One run; missing or damaged parts of its files are empty.

    Attributes:
        letter: its name in reports.
        recipe: None if it cannot be read.
        keys: of the recipe with their values. A key that was changed while the run trained has all its values, such as
            "0.003, 0.001 from step 601"; None without a recipe.
        environment: what results depend on besides the recipe, by key.
        columns: its metrics.
        machine: the machine's curves while the run trained, in the same way; empty for runs of earlier versions.
        edges: times between the bins of its profiles, (B + 1,).
        levels: the noise levels of these times; empty where they were not written.
        profiles: its quantities over time.
        floors: what a perfect sampler would show, by measure.
        latents: equal for runs whose snapshots are drawn from the same latents; the run's letter if not known.
    """

    letter: str
    run: RunDir
    status: Mapping[str, Any]
    written: Annotations
    recipe: Recipe | None
    keys: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    columns: Mapping[str, Column]
    machine: Mapping[str, Column]
    edges: list[float]
    levels: list[float]
    profiles: Mapping[str, Profile]
    floors: Floors
    latents: str

    @classmethod
    def read(cls, run: RunDir, letter: str) -> "Member":
        """Read a run."""
        meta, recipe = read_json(run.meta) or {}, _recipe(run)
        return cls(
            letter=letter,
            run=run,
            status=status.read(run),
            written=annotations.read(run),
            recipe=recipe,
            keys=with_settings(recipe, settings.course(settings.read(run))) if recipe else None,
            environment=dict(flat({key: value for key, value in meta.items() if key not in _NOT_ENVIRONMENT})),
            columns=columns.read(run, moment(meta.get("created"))),
            machine=columns.of_machine(run, moment(meta.get("created"))),
            edges=number_list(meta.get("profile_edges")),
            levels=number_list(meta.get("profile_noise_levels")),
            profiles=columns.profiles(run),
            floors=floors.of_meta(meta),
            latents=f"{recipe.seed} {recipe.snapshot.n} {meta.get('shape')}" if recipe else letter,
        )

    @property
    def seed(self) -> int | None:
        """The recipe's seed, if it can be read."""
        return self.recipe.seed if self.recipe else None


def with_settings(recipe: Recipe, course: Iterable[tuple[int, str, Any]]) -> dict[str, Any]:
    """Return the keys of a recipe with their values; keys that were changed while the run trained have all of theirs.

    Args:
        recipe: as at the start of the run.
        course: as from `settings.course`.
    """
    keys = dict(flat(recipe.tables()))
    now, texts = dict(keys), dict[str, str]()
    for step, key, value in course:
        if value != now.get(key):
            texts[key] = f"{texts.get(key, now.get(key))}, {value} from step {step + 1}"
            now[key] = value
    return keys | texts


def _recipe(run: RunDir) -> Recipe | None:
    try:
        return load_recipe(run.recipe)
    except UsageError:
        return None
