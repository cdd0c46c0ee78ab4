"""The figures of `cmbench eval`: read where they were asked before, computed and kept where not, shown as tables."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmbench import regular
from cmbench.cli import _screen
from cmbench.cli._tables import table
from cmbench.errors import UsageError
from cmbench.measures import MEASURES, OF_SAMPLES
from cmbench.rundir import evaluations
from cmbench.rundir.evaluations import Answer, Question
from cmbench.rundir.layout import RunDir
from cmbench.tui.signs import four_digits

_LARGEST = 1 << 30  # bytes of a classifier, which is small
Asking = tuple[str, int | None]  # a measure, and sampler steps where it is one of samples


@dataclass(frozen=True)
class Asked:
    """What the command line asks of every run; `named` is whether it names the measures."""

    metrics: list[str]
    named: bool
    repeats: int
    seed: int
    features: str
    features_identity: str


@dataclass(frozen=True)
class Subject:
    """Weights that are asked about.

    Attributes:
        run: whose they are.
        step: of the checkpoint.
        ema: which average.
        sha256: of their file.
        steps: sampler steps.
        n: samples of a set.
        trajectories: for measures of the consistency function.
        data: what tells the data that it is measured against from others; empty where that is not known.
        places: of the data, where the command names them anew.
        other_data: whether they may be others than those that it was trained on.
        others: in what they are others, where they are known to be.
    """

    run: RunDir
    step: int
    ema: str
    sha256: str
    steps: list[int]
    n: int
    trajectories: int
    data: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    other_data: bool = False
    others: str = ""

    def questions(self, asked: Asked) -> dict[Asking, Question]:
        """Return everything that each answer depends on."""
        questions: dict[Asking, Question] = {}
        for name in asked.metrics:
            about = {"metric": name, "version": MEASURES[name].version, "weights": self.sha256, "seed": asked.seed}
            about |= {"data": self.data} if self.data else {}
            if name not in OF_SAMPLES:
                questions[name, None] = {**about, "n": self.trajectories}
                continue
            samples = {"n": self.n, "repeats": asked.repeats, "features": asked.features_identity}
            questions |= {(name, steps): {**about, **samples, "steps": steps} for steps in self.steps}
        return questions


def identity(features: str) -> str:
    """Return what tells features from others: a name, or the checksum of a file.

    Raises:
        UsageError: the file cannot be read.
    """
    if not features.endswith(".safetensors"):
        return features
    try:
        return hashlib.sha256(regular.read(features, _LARGEST, links=True)).hexdigest()
    except OSError as error:
        raise UsageError(f"--features: {features} cannot be read: {error.strerror or error}") from None


def answered(subjects: Sequence[Subject], asked: Asked, device: str, runs_dir: Path | None) -> list[list[Answer]]:
    """Return the figures of each subject, each with its measure, steps, and whether it was read or computed.

    Raises:
        UsageError: a run has no figure of a measure that was asked for by name.
    """
    kept = [_kept(subject, asked) for subject in subjects]
    missing = [
        [asking for asking in subject.questions(asked) if asking not in own]
        for subject, own in zip(subjects, kept, strict=True)
    ]
    figures = []
    with _progress(sum(asked.repeats if steps else 1 for askings in missing for _, steps in askings)) as advance:
        for subject, own, askings in zip(subjects, kept, missing, strict=True):
            new = _computed(subject, askings, asked, device, runs_dir, advance) if askings else {}
            answers = {asking: {**own, **new}[asking] for asking in subject.questions(asked)}
            figures.append([_figure(*a, answer, a in own) for a, answer in answers.items() if "why_not" not in answer])
    return figures


def _kept(subject: Subject, asked: Asked) -> dict[Asking, Answer]:
    """Return the answers that were found before."""
    found = {asking: evaluations.read(subject.run, q) for asking, q in subject.questions(asked).items()}
    return {asking: _defined(asking, answer, subject, asked) for asking, answer in found.items() if answer is not None}


def _defined(asking: Asking, answer: Answer, subject: Subject, asked: Asked) -> Answer:
    """Return an answer, unless it says that the run has no such figure and it was asked for by name."""
    if "why_not" in answer and asked.named:
        raise UsageError(f"--metrics: found '{asking[0]}', but {subject.run.name}: {answer['why_not']}")
    return answer


def _computed(
    subject: Subject,
    askings: Sequence[Asking],
    asked: Asked,
    device: str,
    runs_dir: Path | None,
    advance: Callable[[], None],
) -> dict[Asking, Answer]:
    """Compute answers and keep each as soon as it is there."""
    from cmbench.engine.build import device_of
    from cmbench.engine.evaluate import Evaluation

    run, questions = subject.run, subject.questions(asked)
    answers: dict[Asking, Answer] = {}
    where = device_of(device, "--device")
    there = (subject.places, subject.other_data)
    evaluation = Evaluation(run, subject.step, subject.ema, where, asked.features, runs_dir, *there)
    for name in (name for name, steps in askings if steps is None):
        question = questions[name, None]
        answer = evaluation.of_function(name, asked.seed, question["n"])
        answers[name, None] = _defined((name, None), answer, subject, asked)
        evaluations.write(run, question, answer)
        advance()
    samples = [(name, steps) for name, steps in askings if steps is not None]
    for name, steps, answer in evaluation.of_samples(samples, subject.n, asked.seed, asked.repeats, advance):
        answers[name, steps] = answer
        evaluations.write(run, questions[name, steps], answer)
    return answers


def _figure(name: str, steps: int | None, answer: Answer, cached: bool) -> dict[str, Any]:
    return {"metric": name, "steps": steps, "better": MEASURES[name].better or None, **answer, "cached": cached}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal while figures are computed; yield what tells it of each."""
    from rich.progress import Progress

    console, shown = _screen.console(err=True), total and _screen.is_terminal(err=True)
    bar = Progress(console=console, transient=True, disable=not shown, redirect_stdout=False, redirect_stderr=False)
    with bar:
        task = bar.add_task("measuring", total=total)
        yield lambda: bar.advance(task)


def show(subject: Subject, figures: Sequence[dict[str, Any]], asked: Asked) -> None:
    """Print the table of one subject."""
    sets = f"{asked.repeats} sets of {subject.n:,} samples, seed {asked.seed}, features {asked.features}"
    _screen.line(f"{subject.run.name}, checkpoint {subject.step}, ema {subject.ema}: {sets}")
    if subject.others:
        _screen.line(f"measured against data that it was not trained on: {subject.others}")
    rows = [
        (f["metric"], f["steps"] or "-", *(cell(f[key]) for key in ("value", "spread")), _floor(f), f["better"] or "-")
        for f in figures
    ]
    if rows:
        table(["metric", "steps", "value", "spread", "floor", "better"], rows)
    if note := of_fewer(subject, figures):
        _screen.line(note)


def of_fewer(subject: Subject, figures: Sequence[dict[str, Any]]) -> str:
    """Return a line that says where a floor is of fewer samples than the figures; empty where none is."""
    fewer: dict[int, list[str]] = {}
    for figure in figures:
        if figure.get("floor_n", subject.n) < subject.n:
            names = fewer.setdefault(figure["floor_n"], [])
            names += [figure["metric"]] * (figure["metric"] not in names)
    if not fewer:
        return ""
    parts = "; ".join(f"{n:,} for {', '.join(names)}" for n, names in fewer.items())
    return f"floor: of all samples that there are, {parts}; figures of {subject.n:,} may be lower by their number alone"


def cell(value: float | None) -> str:
    """Return a figure as text; None is what JSON has for nan."""
    return "nan" if value is None else four_digits(value)


def _floor(figure: dict[str, Any]) -> str:
    return cell(figure["floor"]) if figure["metric"] in OF_SAMPLES else "-"
