"""Compares what an export computes, in a process without cmbench, with what cmbench itself draws."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cmbench.engine import sample
from cmbench.engine.build import is_conditional
from cmbench.engine.exporting import generator
from cmbench.engine.weights import Trained
from cmbench.errors import CmbenchError, UsageError
from cmbench.randomness import StepRandom
from cmbench.rundir.files import to_json, write_atomically
from cmbench.text import brief

TOLERANCE = 1e-4  # of the size of data
_PICTURES, _POINTS = 16, 500  # samples that are compared
_OTHERS = (3, 1)  # more sizes of batches


@dataclass(frozen=True)
class Reference:
    """Inputs, and the samples that cmbench draws from them.

    Attributes:
        inputs: `latents` (n, *shape); `labels` (n,) and `noise` (n, steps - 1, *shape) where the generator takes them.
        samples: (n, *shape).
    """

    inputs: Mapping[str, Tensor]
    samples: Tensor


@dataclass(frozen=True)
class Agreement:
    """How far the samples of an export are from cmbench's.

    Attributes:
        largest: the largest difference, over the size of data: sigma_data, or that of the samples if they are larger.
        samples: how many were compared.
        batches: sizes of the batches in which the export computed them.
    """

    largest: float
    samples: int
    batches: tuple[int, ...]


def reference(trained: Trained, sigmas: Sequence[float], seed: int = 0) -> Reference:
    """Return samples of cmbench and all that they follow from, in float32.

    Raises:
        UsageError: some samples are not finite.
    """
    model, conditional = trained.model, is_conditional(trained.recipe)
    n = _PICTURES if len(model.shape) == 3 else _POINTS
    inputs = {"latents": sample.latents(model.shape, n, seed)}
    labels = sample.round_robin_labels(n, trained.classes) if conditional else None
    if labels is not None:
        inputs["labels"] = labels
    if trained.sampler == "consistency" and len(sigmas) > 1:
        draws = StepRandom(torch.device("cpu"), seed, 0).generator("renoise")  # as `sample.draw` draws them
        inputs["noise"] = torch.stack([torch.randn(n, *model.shape, generator=draws) for _ in sigmas[1:]], dim=1)
    x = sample.draw(generator.in_float32(model), trained.sampler, n, sigmas, seed, labels)
    if not x.isfinite().all():
        raise UsageError(f"checkpoint {trained.step}: some samples are not finite; allowed: another --checkpoint")
    return Reference(inputs, x)


def alone(
    kind: str, folder: Path, found: Reference, sigma_data: float, more: Mapping[str, Any], own: Path
) -> Agreement:
    """Run an export where cmbench cannot be imported, and compare its samples.

    Args:
        kind: the format.
        folder: of the export.
        found: inputs and cmbench's samples.
        sigma_data: the standard deviation of the data.
        more: what else the process needs, as JSON.
        own: a folder for what the two processes tell each other.

    Raises:
        CmbenchError: the process fails, or the samples differ by more than TOLERANCE.
    """
    n = len(found.samples)
    batches = (n, *_OTHERS)
    inputs = {name: tensor.contiguous() for name, tensor in found.inputs.items()}
    write_atomically(own / "inputs.safetensors", save_safetensors(inputs))
    write_atomically(own / "about.json", to_json({"batches": batches, **more}))
    source = Path(__file__).with_name("alone.py").read_text(encoding="utf-8")
    command = [sys.executable, "-c", source, kind, str(folder.resolve()), str(own.resolve())]
    done = subprocess.run(command, cwd=own, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"])[-1]
        raise CmbenchError(f"--as {kind}: the export does not run without cmbench: {brief(last)}")
    samples = torch.from_numpy(np.load(own / "samples.npy", allow_pickle=False))
    expected = torch.cat([found.samples[:size] for size in batches])
    if samples.shape != expected.shape:
        raise CmbenchError(
            f"--as {kind}: the export gives samples of shape {[*samples.shape]}, not {[*expected.shape]}"
        )
    size = max(sigma_data, expected.square().mean().sqrt().item())  # float32 has as many digits of a large sample
    largest = (samples - expected).abs().max().item() / size
    if not largest <= TOLERANCE:
        raise CmbenchError(
            f"--as {kind}: samples of the export differ from cmbench's by {largest:.2g} of their size, "
            f"allowed: {TOLERANCE:g}; nothing is written"
        )
    return Agreement(largest, n, batches)
