"""The passes of a training step, compiled by torch (`train.compile`): each kind of pass is one graph.

A `Dual` falls into pieces in torch.compile, which reads Python. Here AOTAutograd traces a pass as it runs: the value,
or the value with its derivative, as a function of weights and inputs. Inductor compiles that graph and its backward.
Noise, loss and optimiser stay as they are, so nothing is compiled again when a curriculum moves on.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from cmbench.engine import compiler
from cmbench.engine.memory import is_lack
from cmbench.errors import CmbenchError
from cmbench.forward_mode.dual import Dual, value_and_derivative

_MOST = 16  # kinds of passes of a network: beyond these the objective calls it in ever new shapes
_KEPT = frozenset((bool, int, float, str))


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
            with compiler.silence(), compiler.undisturbed():
                yield
        except CmbenchError:
            raise
        except Exception as error:  # a compiler may raise anything
            if is_lack(error):
                raise
            raise compiler.refusal(
                CmbenchError, f"torch cannot compile the network: {compiler.reason(error)}"
            ) from error
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
        self._network, self._counts, self._compiled = network, counts, dict[Hashable, compiler.Pass]()
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

    def _new(self, primals: tuple, tangents: tuple, given: list[Tensor]) -> compiler.Pass:
        if len(self._compiled) >= _MOST:
            why = f"the objective calls the network in more than {_MOST} ways, or it changes between steps"
            raise compiler.refusal(CmbenchError, why)
        takes_derivative = any(t is not None for t in tangents)
        recorded = torch.is_grad_enabled() and any(x.requires_grad for x in given)
        with self._counts.compiling():
            compiled = compiler.backend(self._traced(primals, tangents), given, self._counts.compiling)
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
        raise compiler.refusal(
            CmbenchError, f"the network sets its own {found[0]} in a pass, which compiled passes cannot"
        )


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
