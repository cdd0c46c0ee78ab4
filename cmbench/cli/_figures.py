"""The figures of `cmbench eval`: read if they are kept from before, else computed and kept, and shown as tables."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbench import regular
from cmbench.cli import _progress, _screen
from cmbench.cli._screen import table
from cmbench.errors import UsageError
from cmbench.measures import MEASURES, OF_SAMPLES, Floor
from cmbench.progress import Progress
from cmbench.rundir import evaluations, floors
from cmbench.rundir.evaluations import Answer, Question
from cmbench.rundir.fields import number_list
from cmbench.rundir.layout import RunDir
from cmbench.words.numbers import four_digits

if TYPE_CHECKING:
    from cmbench.engine.reference import Reference

_INCEPTION = "inception"
_CLASSES = 100  # rows of classes in a table; JSON has all
_LARGEST = 1 << 31  # bytes of a file of features

Asking = tuple[str, int | None]  # a measure, and sampler steps if it measures samples


@dataclass(frozen=True)
class Asked:
    """What the command line asks about every run; `named` says whether it names the measures."""

    metrics: list[str]
    named: bool
    repeats: int
    seed: int
    features: str
    features_identity: str
    published: "Published" = field(default_factory=lambda: Published("pixels"))


@dataclass(frozen=True)
class Published:
    """What a figure as papers print it takes beside samples.

    Attributes:
        identity: of the features.
        weights: the file of Inception's weights; None for the usual place.
        any_weights: whether others than the published ones are taken.
        reference: statistics to compare with; None for held-out data.
        sha256: of their file.
        is_fid: whether the figure is of Inception's features, or of such statistics.
    """

    identity: str
    weights: Path | None = None
    any_weights: bool = False
    reference: "Reference | None" = None
    sha256: str = ""
    is_fid: bool = False


@dataclass(frozen=True)
class Subject:
    """Weights to be measured.

    Attributes:
        run: the run that they belong to.
        step: of the checkpoint.
        ema: which average.
        sha256: of their file.
        steps: sampler steps.
        n: samples of a set.
        trajectories: for measures of the consistency function.
        data: what identifies the data to measure against; empty if not known.
        places: new places of the data from the command.
        other_data: whether the data may differ from the training data.
        others: how the data differ from the training data, if they are known to differ.
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
            if asked.published.reference is not None and name == "frechet_distance":
                samples["reference"] = asked.published.sha256
            questions |= {(name, steps): {**about, **samples, "steps": steps} for steps in self.steps}
        return questions


def identity(features: str) -> str:
    """Return what identifies features: a name, or the checksum of a file.

    Raises:
        UsageError: the file cannot be read.
    """
    if not features.endswith((".safetensors", ".onnx")):
        return features
    try:
        return hashlib.sha256(regular.read(features, _LARGEST, links=True)).hexdigest()
    except OSError as error:
        raise UsageError(f"--features: {features} cannot be read: {error.strerror or error}") from None


def published(features: str, weights: Path | None, any_weights: bool, reference: Path | None) -> Published:
    """Return what the options of published figures mean.

    Raises:
        UsageError: a file cannot be read, or is not what is asked for.
    """
    if weights is not None and features != _INCEPTION:
        raise UsageError(f"--inception-weights: found one, allowed only with --features {_INCEPTION}")
    own, is_fid = identity(features), features == _INCEPTION or reference is not None
    if weights is not None:
        from cmbench.engine.features import identity_of_inception

        own = identity_of_inception(weights, any_weights)
    if reference is None:
        return Published(own, weights, any_weights, is_fid=is_fid)
    from cmbench.engine import reference as references

    statistics = references.read(reference, own)
    return Published(own, weights, any_weights, statistics, references.identity(reference), is_fid)


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
    with _progress.shown("reading") if any(missing) else nullcontext(Progress()) as progress:
        for subject, own, askings in zip(subjects, kept, missing, strict=True):
            new = _computed(subject, askings, asked, device, runs_dir, progress) if askings else {}
            answers = {asking: {**own, **new}[asking] for asking in subject.questions(asked)}
            figures.append([_figure(*a, answer, a in own) for a, answer in answers.items() if "why_not" not in answer])
    return figures


def _kept(subject: Subject, asked: Asked) -> dict[Asking, Answer]:
    """Return the answers that are kept from before."""
    found = {asking: evaluations.read(subject.run, q) for asking, q in subject.questions(asked).items()}
    return {asking: _defined(asking, answer, subject, asked) for asking, answer in found.items() if answer is not None}


def _defined(asking: Asking, answer: Answer, subject: Subject, asked: Asked) -> Answer:
    """Return an answer; refuse one without a figure if its measure was asked for by name."""
    if "why_not" in answer and asked.named:
        raise UsageError(f"--measures: found '{asking[0]}', but {subject.run.name}: {answer['why_not']}")
    return answer


def _computed(
    subject: Subject,
    askings: Sequence[Asking],
    asked: Asked,
    device: str,
    runs_dir: Path | None,
    progress: Progress,
) -> dict[Asking, Answer]:
    """Compute answers, and keep each as soon as it is ready."""
    from cmbench.engine import ranks
    from cmbench.engine.asking import Place
    from cmbench.engine.evaluate import Evaluation

    run, questions = subject.run, subject.questions(asked)
    answers: dict[Asking, Answer] = {}
    place = Place(run, subject.step, subject.ema, device, runs_dir, subject.places, subject.other_data)
    more = asked.published
    inception = (more.weights, more.any_weights)
    evaluation = Evaluation(place, asked.features, ranks.current(), inception, more.reference)
    of_function = [name for name, steps in askings if steps is None]
    progress.expect(len(of_function))
    for name in of_function:
        progress.begin(name)
        question = questions[name, None]
        answer = evaluation.of_function(name, asked.seed, question["n"])
        answers[name, None] = _defined((name, None), answer, subject, asked)
        evaluations.write(run, question, answer)
    samples = [(name, steps) for name, steps in askings if steps is not None]
    for name, steps, answer in evaluation.of_samples(samples, subject.n, asked.seed, asked.repeats, progress):
        answers[name, steps] = answer
        evaluations.write(run, questions[name, steps], answer)
    return answers


def _figure(name: str, steps: int | None, answer: Answer, cached: bool) -> dict[str, Any]:
    return {"metric": name, "steps": steps, "better": MEASURES[name].better or None, **answer, "cached": cached}


def show(subject: Subject, figures: Sequence[dict[str, Any]], asked: Asked) -> None:
    """Print the tables of one subject: its figures, and those of each class if the network takes labels."""
    sets = f"{asked.repeats} sets of {subject.n:,} samples, seed {asked.seed}, features {asked.features}"
    _screen.line(f"{subject.run.name}, checkpoint {subject.step}, ema {subject.ema}: {sets}")
    if subject.others:
        _screen.line(f"measured against data that it was not trained on: {subject.others}")
    heads, rows = ["metric", "steps", "value", "spread", "floor", "better"], []
    for f in figures:
        rows.append([named(f), f["steps"] or "-", value(f), four_digits(f["spread"]), _floor(f), f["better"] or "-"])
        if asked.published.is_fid:
            rows[-1].insert(4, four_digits(lowest(f)))
    if rows:
        table([*heads[:4], "lowest", *heads[4:]] if asked.published.is_fid else heads, rows)
    _show_classes(figures)
    for note in notes(subject, figures):
        _screen.line(note)


def _show_classes(figures: Sequence[dict[str, Any]]) -> None:
    """Print a row of figures for each class and number of steps, for the first _CLASSES classes."""
    known = {(f["metric"], f["steps"]): f for f in figures if f.get("classes")}
    names = list(dict.fromkeys(name for name, _ in known))
    rows: list[tuple[Any, ...]] = []
    for steps in dict.fromkeys(steps for _, steps in known):
        of_steps = [known[name, steps]["classes"] if (name, steps) in known else [] for name in names]
        for i, own in enumerate(of_steps[0][:_CLASSES]):
            cells = (_of_class(known[name, steps], i) for name in names)
            rows.append((own["label"], steps, f"{own['samples']:.4g}", own["real"], *cells))
    if rows:
        table(["class", "steps", "samples", "held out", *names], rows)


def _of_class(figure: dict[str, Any], i: int) -> str:
    """Return a class's figure with its floor."""
    own = figure["classes"][i]
    beside = "" if own["floor"] is None else f" (floor {four_digits(own['floor'])} ± {own['floor_spread'] or 0:.1g})"
    return value({**own, "better": figure["better"]}) + beside


def lowest(figure: dict[str, Any]) -> float | None:
    """Return the lowest figure of a set of samples, which papers print; None without one."""
    return min(number_list(figure.get("values")), default=None) if figure["value"] is not None else None


def named(figure: dict[str, Any]) -> str:
    """Return a figure's name, with its noise levels if they are not those of other runs."""
    return f"{figure['metric']} ({levels(figure)})" if figure.get("partial") else figure["metric"]


def levels(figure: dict[str, Any]) -> str:
    """Return the noise levels of a mean that leaves out untrained levels."""
    low, high = figure["over"]
    return f"sigma {four_digits(low)} to {four_digits(high)} alone"


def value(figure: dict[str, Any]) -> str:
    """Return a figure as text, with a sign if it is within its floor."""
    return floors.marked(four_digits(figure["value"]), is_within(figure))


def is_within(figure: dict[str, Any]) -> bool:
    """Return whether a figure cannot be distinguished from a perfect sampler's."""
    if figure.get("floor") is None:
        return False
    return Floor(figure["floor"], figure.get("floor_spread")).holds(figure["value"], figure["better"] or "")


def notes(subject: Subject, figures: Sequence[dict[str, Any]]) -> list[str]:
    """Return the notes of a table: signs, floors of repeated samples, and why figures are missing."""
    within = any(is_within({"better": f["better"], **own}) for f in figures for own in (f, *f.get("classes", [])))
    found = [floors.legend()] if within else []
    if draws := max((f.get("floor_draws") or 0 for f in figures), default=0):
        found.append(f"floor: mean and deviation of {draws} draws of real data in the place of samples")
    found += dict.fromkeys(note for f in figures for note in f.get("notes", []))
    found += [note] if (note := of_fewer(subject, figures)) else []
    found += [f"partial: {named(f)}, because the run trains no others" for f in figures if f.get("partial")]
    reasons = [(f["metric"], f["why"]) for f in figures if f.get("why")]
    for figure in figures:
        missing = (own for own in figure.get("classes", []) if own.get("why") and not figure.get("why"))
        reasons += [(f"{figure['metric']} of class {own['label']}", own["why"]) for own in missing]
    return found + [f"{name} has no figure: {why}" for name, why in dict.fromkeys(reasons)]


def of_fewer(subject: Subject, figures: Sequence[dict[str, Any]]) -> str:
    """Return a line that names floors drawn from fewer samples than a set has; empty without one."""
    fewer: dict[int, list[str]] = {}
    for figure in figures:
        if (figure.get("floor_from") or subject.n) < subject.n:
            names = fewer.setdefault(figure["floor_from"], [])
            names += [figure["metric"]] * (figure["metric"] not in names)
    if not fewer:
        return ""
    parts = "; ".join(f"{n:,} for {', '.join(names)}" for n, names in fewer.items())
    return f"floor: drawn from all real samples that there are, {parts}; sets of {subject.n:,} repeat them"


def floor_text(figure: dict[str, Any], number: Callable[[float], str] = four_digits) -> str:
    """Return a figure's floor as text; a dash if it has none."""
    there = figure.get("floor") is not None
    floor = Floor(figure["floor"], figure.get("floor_spread"), figure.get("floor_draws")) if there else None
    return floors.in_words(floor, number)


def _floor(figure: dict[str, Any]) -> str:
    return floor_text(figure) if figure["metric"] in OF_SAMPLES else "-"
