"""The passes of a training step, compiled by torch (`train.compile`): each kind of pass is one graph.

A `Dual` falls into pieces in torch.compile, which reads Python. Here AOTAutograd traces a pass as it runs: the value,
or the value with its derivative, as a function of weights and inputs. Inductor compiles that graph and its backward.
Noise, loss and optimiser stay as they are, so nothing is compiled again when a curriculum moves on.
"""

import logging
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
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
_PLACE = "TORCHINDUCTOR_CACHE_DIR"
_CHOSEN = os.environ.get(_PLACE)  # by the user, as this is read early
_KEPT = frozenset((bool, int, float, str))
Pass = Callable[..., Sequence[Tensor]]
Compiling = Callable[[], AbstractContextManager[None]]


def refuse_if_impossible(device: torch.device) -> None:
    """Refuse to compile where a compiler is missing, before anything is built.

    Raises:
        UsageError: there is no C++ compiler, no folder for compiled code, or no Triton for a GPU.
    """
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise _refusal(UsageError, "Triton, which compiles for GPUs, does not work here")
        return
    try:
        _place_code()
        from torch._inductor import cpp_builder

        cpp_builder.get_cpp_compiler()
    except OSError as error:
        raise _refusal(UsageError, f"compiled code cannot be kept: {error}") from None
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
        self._compiling = False

    @contextmanager
    def within(self, networks: Sequence[nn.Module]) -> Iterator[None]:
        """Let these networks run compiled in the block, whoever calls them. Those of other blocks are forgotten."""
        self._networks = {network: self._networks.get(network) or _Passes(network, self) for network in networks}
        before = {network: vars(network).get("forward") for network in networks}
        for network, own in self._networks.items():
            own.look()
            network.forward = own  # as the instance's, so that hooks and DDP see no change
        try:
            yield
        finally:
            for network, forward in before.items():
                del network.forward
                if forward is not None:
                    network.forward = forward

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Count the seconds of the block, in which torch is silent, and say in one line what it cannot compile.

        Raises:
            CmbenchError: torch cannot compile it here.
        """
        if self._compiling:
            yield
            return
        self._compiling, began = True, time.monotonic()
        try:
            with _silence(), _undisturbed():
                yield
        except CmbenchError:
            raise
        except Exception as error:  # a compiler may raise anything
            if is_lack(error):
                raise
            raise _refusal(CmbenchError, f"torch cannot compile the network: {_reason(error)}") from error
        finally:
            self.seconds += time.monotonic() - began
            self._compiling = False

    def taken(self) -> tuple[float, list[str]]:
        """Return the seconds and the passes since the last call."""
        found = self.seconds, self.passes
        self.seconds, self.passes = 0.0, []
        return found


class _Passes:
    """Calls a network's passes, each of which is compiled for the shapes and the modes in which it is called."""

    def __init__(self, network: nn.Module, counts: Compiled) -> None:
        self._network, self._counts, self._compiled = network, counts, dict[Hashable, Pass]()
        self._forward = network.forward  # its class's, or its own
        self._places, self._modules = _places(network), list(network.modules())
        self._names = list(self._places)

    def look(self) -> None:
        """Look at what a pass may read beside its inputs and weights: numbers and words that modules keep."""
        self._kept = tuple(value for module in self._modules for value in vars(module).values() if type(value) in _KEPT)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return what the network does. Only passes of tensors, duals and None, given in order, run compiled."""
        if named or _is_transformed() or not all(x is None or isinstance(x, Tensor) for x in inputs):
            return self._forward(*inputs, **named)
        primals = tuple(x.primal if type(x) is Dual else x for x in inputs)
        tangents = tuple(x.tangent if type(x) is Dual else None for x in inputs)
        weights = [tensors[name] for tensors, name in self._places.values()]  # those it has now
        given = [*weights, *(x for x in (*primals, *tangents) if x is not None)]
        key = self._kept, self._network.training, tuple(w.requires_grad for w in weights), _key(primals, tangents)
        if key not in self._compiled:
            self._compiled[key] = self._new(primals, tangents, given)
        outputs = self._compiled[key](*given)
        return outputs[0] if len(outputs) == 1 else Dual.of(*outputs)

    def _new(self, primals: tuple, tangents: tuple, given: list[Tensor]) -> Pass:
        if len(self._compiled) >= _MOST:
            why = f"the objective calls the network in more than {_MOST} ways, or it changes between steps"
            raise _refusal(CmbenchError, why)
        takes_derivative = any(t is not None for t in tangents)
        recorded = torch.is_grad_enabled() and any(x.requires_grad for x in given)
        with self._counts.compiling():
            compiled = _backend(self._traced(primals, tangents), given, self._counts.compiling)
        self._counts.passes.append(
            ("value and derivative" if takes_derivative else "value") + (" with backward" if recorded else "")
        )
        return compiled

    def _traced(self, primals: tuple, tangents: tuple) -> nn.Module:
        """Return the pass as a module without weights, which takes weights, and the primals and tangents there are."""
        network, names = _Plain(self._network, self._forward), [f"network.{name}" for name in self._names]

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            weights, rest = dict(zip(names, given, strict=False)), iter(given[len(names) :])
            x, t = ([None if one is None else next(rest) for one in each] for each in (primals, tangents))

            def value(*inputs: Any) -> Tensor:
                before = _attributes(self._network)
                result = functional_call(network, weights, inputs)  # takes in what the pass puts in place of weights
                put = [name for name, one in zip(names, given, strict=False) if weights[name] is not one]
                _refuse_if_changed(before, _attributes(self._network), put)
                return result

            if all(one is None for one in t):
                return (value(*x),)
            return value_and_derivative(value, tuple(x), tuple(t))

        return _Function(run)


class _Plain(nn.Module):
    """A network without its hooks, and without `_Passes` in place of its forward."""

    def __init__(self, network: nn.Module, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self._forward = network, forward

    def forward(self, *inputs: Any) -> Tensor:
        return self._forward(*inputs)


class _Function(nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = run


def _places(network: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Return where a network keeps its weights and buffers, each once."""
    found: dict[int, tuple[str, tuple[dict[str, Any], str]]] = {}
    for prefix, module in network.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    found.setdefault(id(tensor), (f"{prefix}.{name}" if prefix else name, (tensors, name)))
    return dict(found.values())


def _attributes(network: nn.Module) -> dict[str, Any]:
    """Return the numbers, words and plain tensors that the modules keep, by name."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in network.named_modules()
        for name, value in vars(module).items()
        if type(value) in _KEPT or isinstance(value, Tensor)
    }


def _refuse_if_changed(before: dict[str, Any], after: dict[str, Any], put: list[str]) -> None:
    """Refuse a pass that sets what the network keeps: compiled, it would do so once, and never again.

    Raises:
        CmbenchError: it does.
    """
    names = [name for name, value in after.items() if before.get(name, _KEPT) is not value]
    names = [name for name in names if isinstance(after[name], Tensor) or before.get(name, _KEPT) != after[name]]
    if found := [*names, *(name.removeprefix("network.") for name in put)]:
        raise _refusal(CmbenchError, f"the network sets its own {found[0]} in a pass, which compiled passes cannot")


def _is_transformed() -> bool:
    """Whether torch.func or forward mode differentiates or maps what runs now."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def _key(primals: tuple, tangents: tuple) -> Hashable:
    """Return what a compiled pass is good for: its code assumes layouts, modes, and which inputs are one tensor."""
    inputs = (*primals, *tangents)
    same = tuple(next(i for i, other in enumerate(inputs) if other is x) for x in inputs)
    looks = tuple(None if x is None else (x.shape, x.stride(), x.dtype, x.requires_grad) for x in inputs)
    device = primals[0].device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return torch.is_grad_enabled(), autocast, same, looks


@contextmanager
def _silence() -> Iterator[None]:
    logs = logging.getLogger("torch.utils.cpp_extension")  # warns of a missing CUDA, even on a CPU
    level = logs.level
    logs.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.setLevel(level)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep a terminal's signals from the compilers that start in the block. This process takes them after it.

    Else Ctrl-C would end a compiler, and the run with it. A probe so ended would even choose other code.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _place_code() -> None:
    """Keep compiled code with what else is cached, unless the user chose a place.

    Torch enters its own choice, as soon as it is asked to be deterministic.

    Raises:
        OSError: the folder cannot be made, or nothing can be written there.
    """
    if not _CHOSEN:
        with suppress(RuntimeError):  # without a home folder it takes a temporary one
            os.environ[_PLACE] = str(caches.folder("compiled"))
    if folder := os.environ.get(_PLACE):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _backend(module: nn.Module, given: list[Tensor], compiling: Compiling) -> Pass:
    """Trace a function of tensors, with its backward where a tensor needs a gradient, and compile it.

    Torch compiles the backward when it first runs, and so long after this has returned.
    """
    _place_code()
    from torch._inductor import compile_fx, config

    def lowered(graph: torch.fx.GraphModule, inputs: Sequence[Any], **how: Any) -> Any:
        with compiling():
            return _lowered(graph, inputs, **how)

    known = {name: value for name, value in _SETTINGS.items() if hasattr(config, name)}
    whole: Any = module  # any module of flat inputs, though annotated as a graph
    return cast(Pass, compile_fx.compile_fx(whole, given, lowered, known))


def _lowered(graph: torch.fx.GraphModule, inputs: Sequence[Any], **how: Any) -> Any:
    """Turn the graph of a pass, or of its backward, into code."""
    from torch._inductor import compile_fx

    return compile_fx.compile_fx_inner(graph, inputs, **how)


def _reason(error: Exception) -> str:
    """Return the line of a compiler's report that says most."""
    if type(error).__name__ == "DataDependentOutputException":
        return f"its pass depends on a number in a tensor, by if or .item() ({error})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error: " in line), lines[0])


def _refusal(kind: type[CmbenchError], why: str) -> CmbenchError:
    return kind(f"train.compile: found true, but {why}; allowed: false")
