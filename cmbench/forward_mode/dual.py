"""A value, recorded for backward, and its derivative along a tangent, in one pass through any torch module.

Consistency objectives in continuous time need F_theta with its graph and dF_theta/dt without one (Lu & Song 2024,
section 3), but torch.func.jvp records both or neither. Here each tensor on the way is a `Dual`: a primal with its
graph, and a tangent that lives as long as Python holds the dual. Most functions have a rule for the tangent
(`_rules`). Any other call is differentiated by torch.autograd.forward_ad.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from types import FrameType, GetSetDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from cmbench.errors import NoDerivativeError
from cmbench.forward_mode import _rules
from cmbench.forward_mode._call import Call, Function, Rule, RuleWithValue


def value_and_derivative(
    function: Callable[..., Tensor], primals: tuple[Any, ...], tangents: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor]:
    """Return function(*primals), recorded for backward, and its derivative along `tangents`, not recorded.

    Args:
        function: a torch module or a function of tensors; it runs once.
        primals: its arguments, tensors or others.
        tangents: for each argument a tensor of its shape and dtype, or None for a constant, e.g. labels.

    Returns:
        The value with the graph of a plain call, and the derivative, of the same shape.

    Raises:
        ValueError: a tangent does not fit its argument.
        NotImplementedError: the function changes a tensor in place, or calls something without a derivative in
            forward mode. The message names the call and the way out.
    """
    result = function(*(_paired(x, t) for x, t in zip(primals, tangents, strict=True)))
    if type(result) is Dual:
        return result.primal, result.tangent
    return result, torch.zeros_like(result)


def _paired(primal: Any, tangent: Tensor | None) -> Any:
    if type(primal) is Dual or type(tangent) is Dual:
        raise NotImplementedError("value_and_derivative: found one within another, allowed: one at a time")
    if tangent is None:
        return primal
    if primal.shape != tangent.shape or primal.dtype != tangent.dtype:
        found, allowed = (f"{list(x.shape)} {x.dtype}" for x in (tangent, primal))
        raise ValueError(f"tangent: found {found}, allowed: {allowed} as its argument has")
    return _dual(primal, tangent.detach())


class Dual(Tensor):
    """A tensor within a pass: `primal` with its graph, `tangent` without one, of one shape and dtype."""

    primal: Tensor
    tangent: Tensor

    @staticmethod
    def of(primal: Tensor, tangent: Tensor) -> "Dual":
        """Return the dual of two tensors of one shape and dtype."""
        return _dual(primal, tangent)

    def __iter__(self) -> Any:
        return iter(self.unbind(0))

    @classmethod
    def __torch_function__(
        cls, function: Function, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function in _CONSTANT:
            return _constant(function, args, kwargs)
        if not torch._C._is_fwd_grad_enabled():
            _refuse_autograd_function()
        keywords, inplace = kwargs or {}, False
        if "inplace" in keywords:
            inplace = keywords["inplace"]
            keywords = {k: v for k, v in keywords.items() if k != "inplace"}
        result = _with_derivative(function, args, keywords)
        if not inplace:
            return result
        args[0].primal, args[0].tangent = result.primal, result.tangent
        return args[0]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Function, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Refuse calls that bypass `__torch_function__`: the wrapper itself holds no numbers."""
        raise _refusal(_name(function), _BELOW)


def _dual(primal: Tensor, tangent: Tensor) -> Dual:
    dual = Tensor._make_wrapper_subclass(Dual, primal.shape, dtype=primal.dtype, device=primal.device)
    dual.primal, dual.tangent = primal, tangent
    return dual


def _constant(function: Function, args: tuple[Any, ...], keywords: dict[str, Any] | None) -> Any:
    if len(args) == 1 and type(args[0]) is Dual and not keywords:
        return function(args[0].primal)
    args, keywords = tree_map(lambda leaf: leaf.primal if type(leaf) is Dual else leaf, (args, keywords or {}))
    return function(*args, **keywords)


def _with_derivative(function: Function, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    rule = _RULES.get(function)
    if rule is None or (keywords and _unusual(keywords)):
        return _forward_mode(function, args, keywords)
    answer = rule(Call(function, *_split(args), keywords))
    return _forward_mode(function, args, keywords) if answer is NotImplemented else _joined(*answer)


def _unusual(keywords: dict[str, Any]) -> bool:
    """Whether the keywords hold duals or a tensor to write to, which the rules do not cover."""
    return keywords.get("out") is not None or any(
        type(value) is Dual or (isinstance(value, (list, tuple)) and any(type(x) is Dual for x in value))
        for value in keywords.values()
    )


def _split(args: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return the primals and the tangents of arguments, which may be lists and tuples of duals."""
    primals, tangents = [], []
    for arg in args:
        kind, primal, tangent = type(arg), arg, None
        if kind is Dual:
            primal, tangent = arg.primal, arg.tangent
        elif kind is list or kind is tuple:
            inner, inner_tangents = _split(arg)
            primal = kind(inner)
            if any(t is not None for t in inner_tangents):
                tangent = inner_tangents
        primals.append(primal)
        tangents.append(tangent)
    return primals, tangents


def _joined(value: Any, tangent: Any) -> Any:
    if tangent is None:
        return value
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            return _dual(value, tangent if tangent.dtype is value.dtype else tangent.to(value.dtype))
    elif isinstance(value, (tuple, list)):
        return type(value)(map(_joined, value, tangent))
    return value


# Functions without a rule


def _forward_mode(function: Function, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Differentiate one call by torch's forward mode, and warn the first time."""
    name = _name(function)
    if _IN_PLACE.fullmatch(name) or keywords.get("out") is not None:
        raise _refusal(name, "changes a tensor in place")
    if name in _REFUSED:
        raise _refusal(name, _REFUSED[name])
    _load_decompositions()
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):  # other attention kernels have no forward mode
        args, keywords = tree_map(_made_dual, (args, keywords))
        try:
            result = tree_map(_unpacked, function(*args, **keywords))
        except NotImplementedError as error:
            raise _refusal(name, "has no derivative in forward mode", '"finite_difference"') from error
    if any(type(leaf) is Dual for leaf in tree_leaves(result)):
        _tell(name)
    return result


def _made_dual(leaf: Any) -> Any:
    return forward_ad.make_dual(leaf.primal, leaf.tangent) if type(leaf) is Dual else leaf


def _unpacked(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    primal, tangent = forward_ad.unpack_dual(leaf)
    if tangent is None:
        return primal
    return _dual(primal, tangent.detach())


@cache
def _load_decompositions() -> None:
    """Load now what torch loads at its first make_dual, where torch 2.15 warns about its own torch.jit."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


_told: set[str] = set()  # names of functions already warned about


def _tell(name: str) -> None:
    if name not in _told:
        _told.add(name)
        warnings.warn(f"{name}: no rule for its derivative; torch's forward mode does it, slower", stacklevel=2)


_BELOW = "works below torch's functions"


def _refusal(name: str, why: str, allowed: str = '"jvp" or "finite_difference"') -> NoDerivativeError:
    return NoDerivativeError(
        f"no derivative beside the value: {name} {why}; allowed: objective.tangent_method = {allowed}"
    )


def _refuse_autograd_function() -> None:
    """Raise within a torch.autograd.Function, whose own backward would be ignored.

    torch calls it past `__torch_function__` with forward differentiation off, which otherwise only inference mode does.
    """
    if torch.is_inference_mode_enabled():
        return
    frame: FrameType | None = sys._getframe(2)
    while frame and frame.f_code.co_name != "forward":
        frame = frame.f_back
    where = "the function"
    if frame:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)  # includes the class from Python 3.11 on
        where = f"{name} ({code.co_filename}:{code.co_firstlineno})"
    raise _refusal(where, "is or calls a torch.autograd.Function")


def _name(function: Function) -> str:
    return getattr(function, "__name__", str(function))


# The tables by function


def _with_value(rule: Rule) -> RuleWithValue:
    def both(call: Call) -> Any:
        value = call.function(*call.primals, **call.keywords)
        recorded = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # seven times faster than torch.no_grad, which matters at every call
        try:
            tangent = rule(call, value)
        finally:
            torch._C._set_grad_enabled(recorded)
        return tangent if tangent is NotImplemented else (value, tangent)

    return both


def _getter(name: str) -> Function:
    return getattr(Tensor, name).__get__


_RULES: dict[Function, RuleWithValue] = {
    **{f: _with_value(rule) for name, rule in _rules.RULES.items() for f in _rules.functions(name)},
    **{f: rule for name, rule in _rules.RULES_WITH_VALUE.items() for f in _rules.functions(name)},
    **{_getter(name): _with_value(_rules.linear) for name in _rules.LINEAR_GETTERS},
}
_CONSTANT = {f for name in _rules.CONSTANT.split() for f in _rules.functions(name)} | {
    _getter(name)
    for name, attribute in vars(torch._C.TensorBase).items()
    if isinstance(attribute, GetSetDescriptorType) and name not in _rules.LINEAR_GETTERS
}
_REFUSED = {
    **dict.fromkeys(("grad", "backward"), "differentiates within the function"),
    **dict.fromkeys(("data_ptr", "storage", "untyped_storage", "numpy", "__array__", "__dlpack__"), _BELOW),
}
_IN_PLACE = re.compile(r".*[^_]_|__i(add|sub|mul|matmul|truediv|div|floordiv|mod|pow)__|__set\w*__|__delitem__")
