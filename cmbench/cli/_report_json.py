"""A comparison as JSON: everything, by the letters of the runs. A number that is not finite is null and named."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cmbench.comparison.compare import Apart, Comparison, Figures, Goal, Metric
from cmbench.comparison.groups import Group
from cmbench.comparison.member import Member
from cmbench.comparison.readings import AXES
from cmbench.recipe import MISSING
from cmbench.rundir import floors
from cmbench.rundir.files import name_nonfinite
from cmbench.rundir.layout import SCHEMA


def plain(found: Comparison) -> dict[str, Any]:
    """Return a comparison as data."""
    letters = [member.letter for member in found.members]

    def by_letter(values: Sequence[Any]) -> dict[str, Any]:
        return {letter: value for letter, value in zip(letters, values, strict=True) if value is not MISSING}

    return {
        "schema": SCHEMA,
        "runs": [_run(member) for member in found.members],
        "recipe": {key: by_letter(values) for key, values in found.recipe.items()},
        "environment": {key: by_letter(values) for key, values in found.environment.items()},
        "metrics": {name: _metric(name, metric, found.members) for name, metric in found.metrics.items()},
        "goals": [_goal(goal, by_letter([r and asdict(r) for r in goal.reached])) for goal in found.goals],
        "apart": {letter: _apart(apart) for letter, apart in zip(letters[1:], found.apart, strict=True)},
        "machine": {
            name: by_letter([load and asdict(load) for load in loads]) for name, loads in (found.machine or {}).items()
        },
        "groups": [_group(group, letters) for group in found.groups],
        "profiles": {
            name: by_letter([p and {"step": p[0], "bins": p[1].tolist()} for p in profiles])
            for name, profiles in found.profiles.items()
        },
        "profile_edges": by_letter([member.edges for member in found.members]),
        "profile_noise_levels": by_letter([member.levels for member in found.members]),
        "snapshots": [
            {
                "sampler_steps": row.sampler_steps,
                "runs": {letters[i]: {"step": p.step, "path": str(p.path)} for i, p in row.pictures.items()},
            }
            for row in found.pictures
        ],
    }


def _run(member: Member) -> dict[str, Any]:
    return {
        "letter": member.letter,
        "name": member.run.name,
        "path": str(member.run.path),
        "state": member.status["state"],
        "step": member.status["step"],
        "seed": member.seed,
        "has_recipe": member.keys is not None,
        "note": member.written.note,
        "tags": member.written.tags,
    }


def _goal(goal: Goal, runs: Mapping[str, Any]) -> dict[str, Any]:
    return {"metric": goal.metric, "level": goal.level, "is_floor": goal.is_floor, "runs": runs}


def _metric(name: str, metric: Metric, members: Sequence[Member]) -> dict[str, Any]:
    pairs = list(zip(members, metric.figures, strict=True))
    runs = {member.letter: _figures(found, member.floors, name) for member, found in pairs if found}
    known = {member.letter: floor for member in members if (floor := floors.of_row(member.floors, name))}
    about = {"start": metric.start, "ends": metric.ends, "ends_together": metric.ends_together}
    return {**about, "floors": {letter: floor._asdict() for letter, floor in known.items()}, "runs": runs}


def _figures(figures: Figures, known: floors.Floors, name: str) -> dict[str, Any]:
    best = {"best": figures.best and figures.best.value, "step_of_best": figures.best and figures.best.step}
    at = {f"at_{axis}": figures.at[axis] for axis in AXES}
    told = name_nonfinite({"last": figures.last, **best, "area": figures.area, **at})
    if floors.of_row(known, name) is None:
        return told
    within = {key: floors.is_within(known, name, told[key]) for key in ("last", "best")}
    return {**told, **{f"{key}_is_within_floor": held for key, held in within.items()}}


def _apart(apart: Apart) -> dict[str, Any]:
    earliest = apart.earliest
    return {
        "earliest": earliest and earliest[0],
        "judged": sorted(apart.judged),
        "metrics": {name: name_nonfinite(asdict(found)) for name, found in apart.metrics.items()},
        "profiles_judged": sorted(apart.profiles_judged),
        "band": apart.band and name_nonfinite(asdict(apart.band)),
    }


def _group(group: Group, letters: Sequence[str]) -> dict[str, Any]:
    return {
        "runs": [letters[i] for i in group.places],
        "seeds": group.seeds,
        "values": {name: name_nonfinite(asdict(spread)) for name, spread in group.spreads.items()},
        "differences": {name: asdict(found) for name, found in group.differences.items()},
    }
