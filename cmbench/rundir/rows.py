"""A run's rows as tables: metrics, profiles and evaluations, without rows that a later segment trained again.

A table is a list of rows with the same keys, which hold a number, a text, or None where there is none. Numbers that
were not finite are nan, inf or -inf.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmbench.rundir import checkpoints, evaluations
from cmbench.rundir.fields import number_list, number_of, table, text, value_of, whole
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import that_count

Rows = list[dict[str, Any]]
_FIRST = ("step", "images", "time", "train_s", "segment")  # columns
_WHOLE = {"step", "images", "segment"}
_QUESTION = ("steps", "n", "repeats", "features", "seed", "version", "weights")
_ANSWER = ("value", "spread", "floor", "floor_spread")


def of_run(run: RunDir) -> dict[str, Rows]:
    """Return the tables of a run by name; each may be empty."""
    return {"metrics": metrics(run), "profiles": profiles(run), "evaluations": of_evaluations(run)}


def metrics(run: RunDir) -> Rows:
    """Return one row for each row of metrics.jsonl that counts, with a column for each number there is."""
    found = _counting(run.metrics)
    keys = _columns({key for row in found for key in row if key != "nonfinite" and value_of(row, key) is not None})
    return [{key: _value(row, key) for key in keys} for row in found]


def profiles(run: RunDir) -> Rows:
    """Return one row for each step and time bin, with the bin's ends and a column for each quantity."""
    found, meta = _counting(run.profiles), read_json(run.meta) or {}
    edges, levels = number_list(meta.get("profile_edges")), number_list(meta.get("profile_noise_levels"))
    names = sorted({key for row in found for key, value in row.items() if isinstance(value, list)})
    first = [key for key in _FIRST if any(key in row for row in found)]  # earlier versions wrote fewer
    return [
        {
            **{key: _value(row, key) for key in first},
            "bin": i,
            **_ends("t", edges, i),
            **_ends("noise_level", levels, i),
            **{name: bins[name][i] if i < len(bins.get(name, [])) else None for name in names},
        }
        for row in found
        for bins in [{name: _bins(row, name) for name in names if isinstance(row.get(name), list)}]
        for i in range(max(map(len, bins.values()), default=0))
    ]


def of_evaluations(run: RunDir) -> Rows:
    """Return one row for each answer of `cmbench eval`, with the checkpoint and average of its weights where known."""
    places, rows = _places_of_weights(run), []
    for question, answer in evaluations.all_of(run):
        step, ema = places.get(str(question.get("weights")), (None, None))
        rows.append(
            {
                "step": step,
                "ema": ema,
                "metric": question["metric"],
                **{key: _plain(question.get(key)) for key in _QUESTION},
                **{key: number_of(answer.get(key)) for key in _ANSWER},
                "why": text(answer.get("why")) or text(answer.get("why_not")),
            }
        )
    return rows


def _counting(path: Path) -> list[Row]:
    return that_count(row for piece in Tail(path).pieces() for row in piece)


def _columns(keys: set[str]) -> list[str]:
    return [key for key in _FIRST if key in keys] + sorted(keys - {*_FIRST})


def _value(row: Row, key: str) -> float | int | None:
    return whole(row.get(key)) if key in _WHOLE else value_of(row, key)


def _bins(row: Row, name: str) -> list[float | None]:
    """Return the values of a quantity's bins: nan where one was not finite, None where it was empty."""
    lost: Mapping[str, Any] = table(table(row.get("nonfinite")).get(name))
    return [
        float(lost[str(i)]) if lost.get(str(i)) in ("nan", "inf", "-inf") else number_of(value)
        for i, value in enumerate(row[name])
    ]


def _ends(name: str, edges: list[float], i: int) -> dict[str, float | None]:
    there = i + 1 < len(edges)
    return {f"{name}_low": edges[i] if there else None, f"{name}_high": edges[i + 1] if there else None}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _places_of_weights(run: RunDir) -> dict[str, tuple[int, str]]:
    """Return step and average by the SHA-256 of the weights, of the checkpoints that are there."""
    return dict(_weights(run))


def _weights(run: RunDir) -> Iterator[tuple[str, tuple[int, str]]]:
    for step in steps_of_checkpoints(run):
        for group, digest in (checkpoints.checksums(run, step) or {}).items():
            if group == "model" or group.startswith(checkpoints.AVERAGE):
                yield digest, (step, "none" if group == "model" else group.removeprefix(checkpoints.AVERAGE))
