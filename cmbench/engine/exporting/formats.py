"""The formats of an export: what each needs, what it writes into a folder, and what says how to use it."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from cmbench.engine.exporting import pipeline, programs
from cmbench.engine.exporting.check import Reference
from cmbench.engine.exporting.generator import Generator
from cmbench.engine.weights import Trained
from cmbench.errors import CmbenchError, UsageError
from cmbench.rundir.files import write_all
from cmbench.text import brief

_ONE_FILE = 1_500_000_000  # bytes of weights; ONNX's own file ends at 2 GB, and more lies beside it
_OPSET = 18


@dataclass(frozen=True)
class Exported:
    """What a format has written.

    Attributes:
        more: what the process of the check needs beside the folder, as JSON.
        own: files for that process alone, by name.
        usage: Python that draws samples.
    """

    usage: str
    more: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, bytes] = field(default_factory=dict)


def check_extra(kind: str) -> None:
    """Refuse a format whose packages are missing, before weights are read.

    Raises:
        UsageError: one is.
    """
    extra, packages = _NEEDS.get(kind, ("", ()))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--as {kind}: {', '.join(missing)} is not installed (pip install 'cmbench[{extra}]')")


def write(kind: str, folder: Path, trained: Trained, generator: Generator, found: Reference) -> Exported:
    """Write an export into a folder.

    Raises:
        UsageError: the format cannot hold this run's generator.
        OSError: the folder cannot be written.
    """
    return WRITERS[kind](folder, trained, generator, found)


def _torch(folder: Path, trained: Trained, generator: Generator, found: Reference) -> Exported:
    put(folder / "generator.pt2", programs.to_bytes(programs.of_generator(generator, found)))
    lines = [
        "import torch",
        "",
        'generate = torch.export.load("generator.pt2").module()',
        *_inputs(trained, found, "torch"),
        f"x = generate({_arguments(found)})",
    ]
    return Exported("\n".join(lines))


def _safetensors(folder: Path, trained: Trained, generator: Generator, found: Reference) -> Exported:
    state = generator.F_theta.state_dict()
    weights = {name: own.clone(memory_format=torch.contiguous_format) for name, own in state.items()}  # tied ones too
    put(folder / "F_theta.safetensors", save_safetensors(weights, {"format": "pt"}))
    graph, constants = programs.of_network(generator, found)
    lines = [
        "import json",
        "",
        "from safetensors.torch import load_file",
        "",
        'weights = load_file("F_theta.safetensors")',
        'told = json.load(open("generator.json"))',
    ]
    return Exported("\n".join(lines), {"constants": constants}, {"F_theta.pt2": programs.to_bytes(graph)})


def _onnx(folder: Path, trained: Trained, generator: Generator, found: Reference) -> Exported:
    program = programs.of_generator(generator, found)
    weights = sum(own.numel() * own.element_size() for own in generator.state_dict().values())
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                input_names=list(found.inputs),
                output_names=["samples"],
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's own error of an operator that ONNX lacks, or any other
        why = brief(" ".join(str(error).split()))
        raise UsageError(f"--as onnx: torch.onnx.export cannot convert the network: {why}") from error
    if made is None:
        raise CmbenchError("--as onnx: torch.onnx.export gave nothing")
    made.save(str(folder / "generator.onnx"), external_data=weights > _ONE_FILE)
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("generator.onnx")',
        "random = np.random.default_rng(0)",
        *_inputs(trained, found, "numpy"),
        f'(x,) = session.run(["samples"], {{{", ".join(f"{name!r}: {name}" for name in found.inputs)}}})',
    ]
    return Exported("\n".join(lines).replace("'", '"'))


def _diffusers(folder: Path, trained: Trained, generator: Generator, found: Reference) -> Exported:
    timesteps = pipeline.write(folder, trained, generator)
    labels = f", class_labels={_labels(trained)}" if "labels" in found.inputs else ""
    lines = [
        "from diffusers import ConsistencyModelPipeline",
        "",
        'pipe = ConsistencyModelPipeline.from_pretrained(".")',
        f"images = pipe(batch_size=4{labels}, timesteps={timesteps}).images",
    ]
    return Exported("\n".join(lines), {"timesteps": timesteps})


WRITERS: dict[str, Callable[[Path, Trained, Generator, Reference], Exported]] = {
    "safetensors": _safetensors,
    "torch": _torch,
    "onnx": _onnx,
    "diffusers": _diffusers,
}
_NEEDS = {
    "onnx": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "diffusers": ("diffusers", ("diffusers",)),
}


def put(path: Path, content: bytes) -> None:
    """Write a new file of an export."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _inputs(trained: Trained, found: Reference, package: str) -> list[str]:
    """Return lines that draw four samples' inputs."""
    lines = []
    for name, own in found.inputs.items():
        size = ", ".join(map(str, (4, *own.shape[1:])))
        if name == "labels":
            maker = "torch.tensor" if package == "torch" else "np.array"
            lines.append(f"labels = {maker}({_labels(trained)})")
        elif package == "torch":
            lines.append(f"{name} = torch.randn({size})")
        else:
            lines.append(f"{name} = random.standard_normal(({size}), dtype=np.float32)")
    return lines


def _labels(trained: Trained) -> list[int]:
    return [i % trained.classes for i in range(4)]


def _arguments(found: Reference) -> str:
    return ", ".join(f"{name}={name}" for name in found.inputs)
