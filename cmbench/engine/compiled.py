"""The passes of a training step, compiled by torch (`train.compile`): each kind of pass is one graph.

A `Dual` falls into pieces in torch.compile, which reads Python. Here AOTAutograd traces a pass as it runs: the value,
or the value with its derivative, as a function of weights and inputs. Inductor compiles that graph and its backward.
Noise, loss and optimiser stay as they are, so nothing is compiled again when a curriculum moves on.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cmbench import caches
from cmbench.engine.memory import is_lack
from cmbench.errors import CmbenchError, UsageError
from cmbench.forward_mode.dual import Dual, value_and_derivative

_MOST = 16  # kinds of passes of a network: beyond these the objective calls it in ever new shapes
_SETTINGS: dict[str, object] = {
    "fallback_random": True,  # dropout draws as it does uncompiled: from torch's generators, which the step seeds
    "fx_graph_cache": False,  # it keeps pickles
    "deterministic": True,  # no choice by measuring, so that a resumed run gets the same code
    "shape_padding": False,  # which measures too
}
Pass = Callable[..., Sequence[Tensor]]


def refuse_if_impossible(device: torch.device) -> None:
    """Refuse to compile where a compiler is missing, before anything is built.

    Raises:
        UsageError: there is no C++ compiler, or no Triton for a GPU.
    """
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise _refusal(UsageError, "Triton, which compiles for GPUs, does not work here")
        return
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception:  # its class has another name in each version
        raise _refusal(UsageError, "there is no C++ compiler here (g++, or what CXX names)") from None


@dataclass
class Compiled:
    """Compiles the passes of networks at their first call, and counts what it compiles.

    Attributes:
        seconds: spent since the last `taken`.
        passes: compiled since the last `taken`, such as "value and derivative".
    """

    seconds: float = 0.0
    passes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._networks: dict[nn.Module, _Passes] = {}

    @contextmanager
    def within(self, networks: Sequence[nn.Module]) -> Iterator[None]:
        """Let these networks run compiled in the block, whoever calls them."""
        for network in networks:
            own = self._networks.setdefault(network, _Passes(network, self))
            network.forward = own  # as the instance's, so that hooks and DDP see no change
        try:
            yield
        finally:
            for network in networks:
                network.__dict__.pop("forward", None)

    def taken(self) -> tuple[float, list[str]]:
        """Return the seconds and the passes since the last call."""
        found = self.seconds, self.passes
        self.seconds, self.passes = 0.0, []
        return found


class _Passes:
    """Calls a network's passes, each of which is compiled for the shapes and the modes in which it is called."""

    def __init__(self, network: nn.Module, counts: Compiled) -> None:
        self._network, self._counts, self._compiled = network, counts, dict[Hashable, Pass]()
        self._names, self._weights = zip(*_tensors(network), strict=True)

    def __call__(self, *inputs: Any) -> Any:
        """Return what the network does for tensors, duals and None."""
        if any(isinstance(x, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(x) for x in inputs):
            return type(self._network).forward(self._network, *inputs)  # under torch.func.jvp
        primals = tuple(x.primal if type(x) is Dual else x for x in inputs)
        tangents = tuple(x.tangent if type(x) is Dual else None for x in inputs)
        tensors = [x for x in (*primals, *tangents) if x is not None]
        key = _key(self._network.training, primals, tangents)
        if key not in self._compiled:
            self._compiled[key] = self._new(primals, tangents, [*self._weights, *tensors])
        outputs = self._compiled[key](*self._weights, *tensors)
        return outputs[0] if len(outputs) == 1 else Dual.of(*outputs)

    def _new(self, primals: tuple, tangents: tuple, given: list[Tensor]) -> Pass:
        if len(self._compiled) >= _MOST:
            raise _refusal(CmbenchError, f"the objective calls the network in more than {_MOST} ways")
        began, takes_derivative = time.monotonic(), any(t is not None for t in tangents)
        compiled = _compile(self._traced(primals, tangents), given)
        recorded = torch.is_grad_enabled() and any(x.requires_grad for x in given)
        self._counts.seconds += time.monotonic() - began
        self._counts.passes.append(
            ("value and derivative" if takes_derivative else "value") + (", with backward" if recorded else "")
        )
        return compiled

    def _traced(self, primals: tuple, tangents: tuple) -> nn.Module:
        """Return the pass as a module without weights, which takes weights, and the primals and tangents there are."""
        network, names = _Plain(self._network), [f"network.{name}" for name in self._names]

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            weights, rest = dict(zip(names, given, strict=False)), iter(given[len(names) :])
            x, t = ([None if one is None else next(rest) for one in each] for each in (primals, tangents))

            def value(*inputs: Any) -> Tensor:
                return functional_call(network, weights, inputs)

            if all(one is None for one in t):
                return (value(*x),)
            return value_and_derivative(value, tuple(x), tuple(t))

        return _Function(run)


class _Plain(nn.Module):
    """A network without its hooks, and without `_Passes` in place of its forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any) -> Tensor:
        return type(self.network).forward(self.network, *inputs)


class _Function(nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = run


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def _key(training: bool, primals: tuple, tangents: tuple) -> Hashable:
    """Return what a compiled pass is good for: its code assumes layouts, modes, and which inputs are one tensor."""
    inputs = (*primals, *tangents)
    same = tuple(next(i for i, other in enumerate(inputs) if other is x) for x in inputs)
    looks = tuple(None if x is None else (x.shape, x.stride(), x.dtype, x.requires_grad) for x in inputs)
    device = primals[0].device.type
    cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return training, torch.is_grad_enabled(), cast, same, looks


def _compile(module: nn.Module, given: list[Tensor]) -> Pass:
    """Compile a function of tensors.

    Raises:
        CmbenchError: torch cannot compile it here.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        with suppress(RuntimeError):  # without a home folder it takes a temporary one
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(caches.folder("compiled"))
    from torch._inductor import config

    known = {name: value for name, value in _SETTINGS.items() if hasattr(config, name)}
    logs = logging.getLogger("torch.utils.cpp_extension")  # warns of a missing CUDA, even on a CPU
    with ExitStack() as settings:
        settings.callback(logs.setLevel, logs.level)
        logs.setLevel(logging.ERROR)
        settings.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        settings.enter_context(config.patch(known))
        try:
            return _backend(module, given)
        except Exception as error:  # a compiler may raise anything
            if is_lack(error):
                raise
            raise _refusal(CmbenchError, f"torch cannot compile the network: {_reason(error)}") from error


def _backend(module: nn.Module, given: list[Tensor]) -> Pass:
    """Trace a function of tensors, with its backward where a tensor needs a gradient, and compile both."""
    return torch._inductor.compile(module, given)  # type: ignore[arg-type] # it takes any module of flat inputs


def _reason(error: Exception) -> str:
    """Return the line of a compiler's report that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error: " in line), lines[0])


def _refusal(kind: type[CmbenchError], why: str) -> CmbenchError:
    return kind(f"train.compile: found true, but {why}; allowed: false")
