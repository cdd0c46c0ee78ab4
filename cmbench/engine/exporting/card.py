"""The model card of an export: what it is, how to use it, what it costs and how good it is, in Markdown."""

import re
from collections.abc import Sequence
from typing import Any

from cmbench import recipe as recipes
from cmbench.engine.exporting.check import TOLERANCE, Agreement, Reference
from cmbench.engine.exporting.generator import Generator
from cmbench.engine.weights import Trained
from cmbench.rundir import checkpoints, evaluations, fingerprints
from cmbench.rundir.fields import number_of
from cmbench.rundir.layout import RunDir
from cmbench.text import plain, toml_escaped

PICTURE = "samples.png"
_MEANING = {
    "latents": "noise N(0, 1): what a sample is made of",
    "labels": "the class of each sample",
    "noise": "noise N(0, 1) of each later step",
}
_TITLES = {
    "safetensors": "weights as safetensors, and what makes a generator of them",
    "torch": "a torch.export program",
    "onnx": "an ONNX model",
    "diffusers": "a ConsistencyModelPipeline of diffusers",
}
_FENCE = re.compile("`{3,}")


def written(
    kind: str, run: RunDir, trained: Trained, generator: Generator, found: Reference, agrees: Agreement, usage: str
) -> str:
    """Return the card as Markdown."""
    parts = [
        f"# {_cell(trained.recipe.name)}",
        f"A generator trained with cmbench, exported as {_TITLES[kind]}.",
        _table(["", ""], _facts(run, trained, generator, agrees)),
        f"![Samples]({PICTURE})",
        "## Use",
        _fenced("python", usage),
        *_told_of_inputs(kind, trained, found),
        "## Measures",
        _measures(run, trained),
        "## Recipe",
        _fenced("toml", toml_escaped(recipes.dumps(trained.recipe)).strip()),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(run: RunDir, trained: Trained, generator: Generator, agrees: Agreement) -> list[list[str]]:
    recipe, plan = trained.recipe, generator.plan
    sigmas = ", ".join(f"{own.sigma:.4g}" for own in plan.evaluations)
    parameters = sum(p.numel() for p in generator.F_theta.parameters())
    rows = [
        ["run", f"{run.name}, checkpoint {trained.step}, ema {trained.ema}"],
        ["method", f"{recipe.objective['kind']} on the {recipe.path.kind} path"],
        ["network", f"{recipe.network['kind']}, {parameters:,} parameters"],
        ["data", _data(run, trained)],
        ["cost of training", f"{trained.forwards:,.0f} forward passes" if trained.forwards else "not known"],
        ["cost of a sample", f"{plan.passes} forward pass{'es' * (plan.passes != 1)}, noise levels {sigmas}"],
        [
            "checked",
            f"{agrees.samples} samples, in a process without cmbench: they differ from cmbench's by at most "
            f"{agrees.largest:.2g} of the size of data (allowed: {TOLERANCE:g})",
        ],
    ]
    return [*rows, *([key, str(own)] for key, own in trained.source.items())]


def _data(run: RunDir, trained: Trained) -> str:
    found, own = fingerprints.recorded(run, trained.step), trained.recipe.data
    what = " ".join(str(own[key]) for key in ("kind", "name") if key in own)
    count = f", {found['count']:,} samples" if found.get("count") else ""
    names = fingerprints.names(found)
    classes = f", classes {', '.join(names[:20])}{', …' * (len(names) > 20)}" if names else ""
    return (
        f"{what}{count}, of shape {list(trained.model.shape)}, sigma_data {trained.recipe.path.sigma_data:g}{classes}"
    )


def _told_of_inputs(kind: str, trained: Trained, found: Reference) -> list[str]:
    """Return paragraphs about inputs and outputs."""
    shift_and_scale = "Pictures have values from -1 to 1." if len(trained.model.shape) == 3 else ""
    if kind == "diffusers":
        return ["The timesteps are the noise levels above. The scheduler draws the noise of later steps itself."]
    told = []
    if kind == "safetensors":
        told = ["The function F_theta(x, c_noise, labels) is the network below; `generator.json` has all numbers."]
    rows = []
    for name, own in found.inputs.items():
        size = ", ".join(["batch", *map(str, own.shape[1:])])
        rows.append([f"`{name}`", f"({size})", str(own.dtype).removeprefix("torch."), _MEANING[name]])
    told.append(_table(["input", "shape", "type", "meaning"], rows))
    told.append("The same inputs give the same samples, whatever the size of the batch. " + shift_and_scale)
    return [own.strip() for own in told]


def _measures(run: RunDir, trained: Trained) -> str:
    """Return what `cmbench eval` has measured of these weights."""
    sums = checkpoints.checksums(run, trained.step) or {}
    digest = sums.get(checkpoints.group_of(trained.ema))
    rows = [
        _measure(question, answer)
        for question, answer in evaluations.all_of(run)
        if digest is not None and question.get("weights") == digest and number_of(answer.get("value")) is not None
    ]
    if not rows:
        return "None of these weights; `cmbench eval` measures."
    head = ["measure", "steps", "samples", "value", "spread of one set", "floor"]
    return _table(head, rows)


def _measure(question: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    value, spread, floor = (number_of(answer.get(key)) for key in ("value", "spread", "floor"))
    texts = ["-" if own is None else f"{own:.4g}" for own in (value, spread, floor)]
    features = question.get("features")
    name = question["metric"] + (f" ({features})" if isinstance(features, str) and features else "")
    sets = f"{question.get('repeats')} x " if question.get("repeats") else ""
    return [name, str(question.get("steps", "-")), f"{sets}{question.get('n', '-')}", *texts]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return plain(text).replace("|", r"\|").replace("<", "&lt;")


def _fenced(language: str, text: str) -> str:
    """Return a block of code, whatever backticks it contains."""
    fence = "`" * max([3, *(len(own) + 1 for own in _FENCE.findall(text))])
    return f"{fence}{language}\n{text}\n{fence}"
