"""Graphs of generators and networks by torch.export, for any batch size."""

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cmbench.engine.exporting.check import Reference
from cmbench.engine.exporting.generator import Generator
from cmbench.errors import UsageError
from cmbench.text import brief

_TRACED = 3  # samples: torch takes a batch of one for a constant


def of_generator(generator: Generator, found: Reference) -> ExportedProgram:
    """Return the graph of a generator, with the inputs of a reference by their names.

    Raises:
        UsageError: torch cannot trace the network.
    """
    return _traced(generator, {name: own[:_TRACED] for name, own in found.inputs.items()})


def of_network(generator: Generator, found: Reference) -> tuple[ExportedProgram, list[str]]:
    """Return the graph of F_theta(x, c_noise, labels) with weights of zero, and the names that no file of weights has.

    Raises:
        UsageError: torch cannot trace the network.
    """
    F_theta = copy.deepcopy(generator.F_theta)
    saved = F_theta.state_dict()
    for own in saved.values():
        own.zero_()
    inputs = {"x": found.inputs["latents"][:_TRACED]}
    dtype = torch.float64 if generator.plan.precise else torch.float32
    times = len(generator.plan.evaluations[0].c_noise)
    inputs["c_noise"] = torch.ones(_TRACED, *([times] if times > 1 else []), dtype=dtype)
    if "labels" in found.inputs:
        inputs["labels"] = found.inputs["labels"][:_TRACED]
    program = _traced(F_theta, inputs, positional=True)
    return program, sorted(program.module().state_dict().keys() - saved.keys())


def to_bytes(program: ExportedProgram) -> bytes:
    """Return a program as the content of a .pt2 file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _traced(module: nn.Module, inputs: Mapping[str, Tensor], positional: bool = False) -> ExportedProgram:
    batch = Dim("batch", min=1)
    sizes: Any = {name: {0: batch} for name in inputs}
    given = tuple(inputs.values()) if positional else ()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts
            return torch.export.export(
                module,
                given,
                kwargs=None if positional else dict(inputs),
                dynamic_shapes=tuple(sizes.values()) if positional else sizes,
                strict=False,
            )
    except Exception as error:  # torch raises anything here: a network may compute what no graph can hold
        raise UsageError(f"network: torch.export cannot trace it: {brief(' '.join(str(error).split()))}") from error
