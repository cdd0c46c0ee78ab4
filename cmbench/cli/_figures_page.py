"""The figures of `cmbench eval` as one Markdown table, a row for each run and number of sampler steps."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from cmbench.cli._figures import Asked, Subject, floor_text, is_within, levels, lowest, notes
from cmbench.measures import MEASURES
from cmbench.rundir.floors import marked
from cmbench.rundir.layout import STAMP
from cmbench.text import plain

Figures = Sequence[dict[str, Any]]
_ARROWS = {"lower": " ↓", "higher": " ↑"}


def page(subjects: Sequence[Subject], answers: Sequence[Figures], asked: Asked) -> str:
    """Return the table, with floors on top and figures with their spread, and a line that says how it was made."""
    metrics = [name for name in asked.metrics if any(f["metric"] == name for figures in answers for f in figures)]
    heads = ["run", "steps", *(name + _ARROWS.get(MEASURES[name].better, "") for name in metrics)]
    rows = [["floor: real data", "", *_floors(answers, metrics)]]
    for label, subject, figures in zip(_labels(subjects), subjects, answers, strict=True):
        rows += _rows(label, subject, figures, metrics, asked.published.is_fid)
    sizes = ", ".join(f"{n:,}" for n in dict.fromkeys(subject.n for subject in subjects))
    made = f"{asked.repeats} sets of {sizes} samples, seed {asked.seed}, features {plain(asked.features)}."
    lines = [heads, ["---"] * len(heads), *rows]
    said = dict.fromkeys(note for pair in zip(subjects, answers, strict=True) for note in notes(*pair))
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", made, *said]) + "\n"


def _labels(subjects: Sequence[Subject]) -> Iterator[str]:
    """Yield the name of each run's recipe, or of the run if several share a recipe; and which of its weights."""
    names = {subject.run.name: STAMP.sub("", subject.run.name) for subject in subjects}
    count = Counter(STAMP.sub("", subject.run.name) for subject in subjects)
    weights: dict[str, set[tuple[int, str]]] = {}
    for subject in subjects:
        weights.setdefault(subject.run.name, set()).add((subject.step, subject.ema))
    for subject in subjects:
        recipe, name = names[subject.run.name], subject.run.name
        several = len(weights[name]) > 1
        is_alone = count[recipe] == 1 or (several and len([own for own in names.values() if own == recipe]) == 1)
        which = f", checkpoint {subject.step}, ema {subject.ema}" if several else ""
        yield f"`{_cell_text(recipe if is_alone else name)}`{which}"


def _cell_text(text: str) -> str:
    """Return text for code in a cell: it ends neither the code nor the cell."""
    return plain(text).replace("`", "'").replace("|", "\\|")


def _floors(answers: Sequence[Figures], metrics: Sequence[str]) -> Iterator[str]:
    """Yield the floor of each measure, if all runs have the same."""
    for name in metrics:
        texts = {_floor(f) for figures in answers for f in figures if f["metric"] == name}
        yield texts.pop() if len(texts) == 1 else ""


def _floor(figure: dict[str, Any]) -> str:
    return "" if figure["floor"] is None else floor_text(figure)


def _rows(label: str, subject: Subject, figures: Figures, metrics: Sequence[str], is_fid: bool) -> Iterator[list[str]]:
    """Yield a row for each number of steps; measures that take no samples are in the first row."""
    found = {(f["metric"], f["steps"]): _cell(f, is_fid) for f in figures}
    for i, steps in enumerate(subject.steps):
        alone = {} if i else {name: found[name, None] for name in metrics if (name, None) in found}
        cells = (found.get((name, steps), alone.get(name, "")) for name in metrics)
        yield [label, str(steps), *cells]


def _cell(figure: dict[str, Any], is_fid: bool) -> str:
    value, spread = figure["value"], figure["spread"]
    if value is None or spread is None:
        return "none"
    text = marked(f"{value:.3g} ± {spread:.1g}", is_within(figure))
    text += f", lowest {least:.4g}" if is_fid and (least := lowest(figure)) is not None else ""
    return f"{text} ({levels(figure)})" if figure.get("partial") else text
