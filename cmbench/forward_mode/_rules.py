"""The derivative of each torch function along tangents: the tables of cmbench.forward_mode.dual.

A call f(a, b, ...) arrives as a `Call` with `primals` [a, b, ...] and `tangents` [da, db, ...], None for a constant.
A rule gets the call and its value, and returns the tangent: None if it is constant, NotImplemented for arguments that
the rule does not cover. It runs without recording. The rules of `RULES_WITH_VALUE` return the value and the tangent,
and decide themselves what is recorded.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cmbench.forward_mode import _layers as layers
from cmbench.forward_mode._call import Call, Function, Rule, RuleWithValue

aten = torch.ops.aten


# Functions of one tensor, element by element: (tangent, x, f(x), further arguments) -> f'(x) tangent

ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "silu": lambda t, x, y: aten.silu_backward.default(t, x),
    "gelu": lambda t, x, y, approximate="none": aten.gelu_backward.default(t, x, approximate=approximate),
    "relu": lambda t, x, y: aten.threshold_backward.default(t, y, 0),
    "leaky_relu": lambda t, x, y, negative_slope=0.01: aten.leaky_relu_backward(t, x, negative_slope, False),
    "elu": lambda t, x, y, alpha=1.0: aten.elu_backward(t, alpha, 1, 1, False, x),
    "softplus": lambda t, x, y, beta=1, threshold=20: aten.softplus_backward(t, x, beta, threshold),
    "mish": lambda t, x, y: aten.mish_backward(t, x),
    "tanh": lambda t, x, y: aten.tanh_backward.default(t, y),
    "sigmoid": lambda t, x, y: aten.sigmoid_backward.default(t, y),
    "exp": lambda t, x, y: t * y,
    "expm1": lambda t, x, y: t * (y + 1),
    "log": lambda t, x, y: t / x,
    "log1p": lambda t, x, y: t / (1 + x),
    "sqrt": lambda t, x, y: t / (2 * y),
    "rsqrt": lambda t, x, y: -0.5 * t * y.pow(3),
    "square": lambda t, x, y: 2 * t * x,
    "reciprocal": lambda t, x, y: -t * y.square(),
    "abs": lambda t, x, y: t * x.sign(),
    "sin": lambda t, x, y: t * x.cos(),
    "cos": lambda t, x, y: -t * x.sin(),
    "clamp": lambda t, x, y, min=None, max=None: t.masked_fill(x != y, 0),
}


def _elementwise(derivative: Callable[..., Tensor]) -> Rule:
    def rule(call: Call, y: Tensor) -> Any:
        if not call.constant_from(1) or call.primals[0].is_complex():
            return NotImplemented
        return derivative(call.tangents[0], call.primals[0], y, *call.primals[1:], **call.keywords)

    return rule


# Linear functions, and products of them


def linear(call: Call, y: Any) -> Any:
    """Linear in the first argument, whatever the others are: reshape, mean, x[...]."""
    return None if call.tangents[0] is None else call.of(call.tangents[0], *call.primals[1:])


def _linear_in_list(call: Call, y: Any) -> Any:
    """Linear in the tensors of the first argument: cat, stack."""
    pairs = zip(call.primals[0], call.tangents[0], strict=True)
    return call.of([torch.zeros_like(x) if t is None else t for x, t in pairs], *call.primals[1:])


def _multilinear(call: Call, y: Any) -> Any:
    """The product rule, for functions linear in each tensor: x @ y, einsum."""
    primals = call.primals
    terms = [call.of(*primals[:i], t, *primals[i + 1 :]) for i, t in enumerate(call.tangents) if t is not None]
    return sum(terms[1:], terms[0])


def _multilinear_and_bias(call: Call, y: Any) -> Any:
    """Linear in x and in the weight, plus a constant: linear layers, convolutions."""
    if not call.constant_from(2):
        return NotImplemented
    if len(call.primals) > 2:
        call.primals[2] = None
    if "bias" in call.keywords:
        call = call._replace(keywords={**call.keywords, "bias": None})
    return _multilinear(call, y)


def _sum(sign_x: int, sign_y: int) -> Rule:
    """x + alpha y, x - alpha y or y - alpha x."""

    def rule(call: Call, y: Tensor) -> Any:
        t_x, t_y, *_ = [*call.tangents, None]
        alpha = call.keywords.get("alpha", 1)
        a, b = (sign_x * alpha, sign_y) if sign_x < 0 else (sign_x, sign_y * alpha)
        if t_x is None:
            t = t_y if b == 1 else b * t_y
        else:
            t = t_x if a == 1 else a * t_x
            t = t if t_y is None else torch.add(t, t_y, alpha=b)
        return t if t.shape == y.shape else t.expand(y.shape)

    return rule


def _product(call: Call, y: Tensor) -> Any:
    t_a, t_b, *_ = [*call.tangents, None]
    if t_a is None or t_b is None:
        return _multilinear(call, y)
    return torch.addcmul(t_a * call.primals[1], call.primals[0], t_b)


def _quotient(call: Call, y: Tensor) -> Any:
    if call.keywords.get("rounding_mode"):
        return None
    t_a, t_b, *_ = [*call.tangents, None]
    if t_b is None:
        return call.of(t_a, *call.primals[1:])
    t = y * t_b
    return (-t if t_a is None else t_a - t) / call.primals[1]


def _quotient_reversed(call: Call, y: Tensor) -> Any:
    """`a / x` for a constant a, called with (x, a)."""
    return -y * call.tangents[0] / call.primals[0]


def _power(call: Call, y: Tensor) -> Any:
    x, n = call.arguments(input=None, exponent=None)
    if not isinstance(x, Tensor) or isinstance(n, Tensor):
        return NotImplemented
    t = call.tangents[0]
    if n in (0, 1, 2):
        return (torch.zeros_like(t), t, 2 * t * x)[int(n)]
    return t * (n * x.pow(n - 1))


def _power_reversed(call: Call, y: Tensor) -> Any:
    """`a ** x` for a constant a, called with (x, a)."""
    base = call.primals[1]
    if isinstance(base, Tensor) or base <= 0:
        return NotImplemented
    return math.log(base) * y * call.tangents[0]


def _product_and_sum(call: Call, y: Tensor) -> Any:
    """Beta b + alpha x @ y: addmm, baddbmm."""
    if len(call.primals) < 3:
        return NotImplemented
    bias, *factors = call.primals
    t_bias, *t_factors = call.tangents
    terms = [] if t_bias is None else [call.keywords.get("beta", 1) * t_bias.expand(y.shape)]
    constant = {**call.keywords, "beta": 0}
    for i, t in enumerate(t_factors):
        if t is not None:
            terms.append(call.function(bias, *factors[:i], t, *factors[i + 1 :], **constant))
    return sum(terms[1:], terms[0])


def _where(call: Call, y: Tensor) -> Any:
    """Linear in the two choices, whose order differs between the method and the function."""

    def tangent(x: Any, t: Tensor | None) -> Any:
        if t is not None or not isinstance(x, Tensor):
            return 0.0 if t is None else t
        return x if x.dtype == torch.bool else torch.zeros_like(x)

    return NotImplemented if call.keywords else call.of(*map(tangent, call.primals, call.tangents))


def _masked_fill(call: Call, y: Tensor) -> Any:
    _, mask, _ = call.arguments(input=None, mask=None, value=None)
    return call.tangents[0].masked_fill(mask, 0) if call.constant_from(1) else NotImplemented


def _view(call: Call, y: Tensor) -> Any:
    """The tangent may have another memory layout than its primal, so it may need a copy instead of a view."""
    if call.keywords or isinstance(call.primals[1], torch.dtype):
        return NotImplemented
    return None if call.tangents[0] is None else call.tangents[0].reshape(y.shape)


def _pad(call: Call, y: Tensor) -> Any:
    _, pad, mode, _ = call.arguments(input=None, pad=None, mode="constant", value=None)
    return nn.functional.pad(call.tangents[0], pad, mode)


# The tables, by name

LINEAR = """__getitem__ neg __neg__ positive mean sum cumsum trace real imag view_as_real view_as_complex
    to type type_as float double half bfloat16 cpu cuda clone contiguous
    reshape reshape_as flatten unflatten ravel transpose t adjoint swapaxes swapdims permute movedim moveaxis
    expand expand_as broadcast_to unsqueeze squeeze narrow select index_select gather take_along_dim diagonal
    chunk split split_with_sizes tensor_split unbind unfold fold tril triu flip roll rot90 repeat tile repeat_interleave
    interpolate avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    pixel_shuffle pixel_unshuffle"""


def _each(names: str, rule: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **{name: _elementwise(derivative) for name, derivative in ELEMENTWISE.items()},
    **_each("clip clamp_min clamp_max", _elementwise(ELEMENTWISE["clamp"])),
    **_each("absolute", _elementwise(ELEMENTWISE["abs"])),
    **_each(LINEAR, linear),
    **_each("cat concat concatenate stack hstack vstack", _linear_in_list),
    **_each("add __add__ __radd__", _sum(1, 1)),
    **_each("sub subtract __sub__", _sum(1, -1)),
    **_each("rsub __rsub__", _sum(-1, 1)),
    **_each("mul multiply __mul__ __rmul__", _product),
    **_each("div divide true_divide __truediv__", _quotient),
    **_each("__rdiv__", _quotient_reversed),
    **_each("pow __pow__", _power),
    **_each("__rpow__", _power_reversed),
    **_each("matmul __matmul__ __rmatmul__ mm bmm mv dot inner outer einsum", _multilinear),
    **_each("linear conv1d conv2d conv3d", _multilinear_and_bias),
    **_each("conv_transpose1d conv_transpose2d conv_transpose3d", _multilinear_and_bias),
    **_each("addmm baddbmm", _product_and_sum),
    "where": _where,
    "masked_fill": _masked_fill,
    **_each("view view_as", _view),
    "pad": _pad,
    "softmax": layers.softmax,
    "log_softmax": layers.log_softmax,
    "rms_norm": layers.rms_norm,
    "vector_norm": layers.vector_norm,
}

RULES_WITH_VALUE: dict[str, RuleWithValue] = {
    "scaled_dot_product_attention": layers.attention,
    "group_norm": layers.group_norm,
    "layer_norm": layers.layer_norm,
    **_each("dropout dropout1d dropout2d dropout3d", layers.dropout),
}

LINEAR_GETTERS = ("T", "mT", "H", "mH", "real", "imag")

CONSTANT = """size dim ndimension numel nelement stride storage_offset element_size get_device is_contiguous
    is_floating_point is_complex is_signed is_same_size is_conj is_neg item tolist __len__ __bool__ __float__ __int__
    __index__ __repr__ __format__ __hash__ __contains__ detach register_hook retain_grad
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like
    new_zeros new_ones new_full new_empty new_tensor
    eq ne lt le gt ge not_equal less less_equal greater greater_equal __eq__ __ne__ __lt__ __le__ __gt__ __ge__
    isnan isinf isfinite isclose allclose equal logical_not logical_and logical_or any all argmax argmin argsort
    nonzero count_nonzero sign floor ceil round trunc floor_divide __floordiv__ result_type bernoulli multinomial"""


def functions(name: str) -> list[Function]:
    """Return torch's functions, methods and operators with a name from the tables."""
    found = (getattr(place, name, None) for place in (torch, Tensor, nn.functional, torch.linalg))
    return [function for function in found if callable(function)]
