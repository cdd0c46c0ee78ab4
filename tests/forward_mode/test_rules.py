"""Every rule of the tables against torch's own forward mode, for every way to call the function."""

import itertools
import math

import pytest
import torch
from against_torch import compare, draw
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from cmbench.forward_mode import _rules

RULES = _rules.RULES.keys() | _rules.RULES_WITH_VALUE.keys()


def unary(f, x):
    return f(x)


def binary(f, x, y):
    return f(x, y)


def positive(f, x):
    return f(x.abs() + 0.5)


def same(names, *cases):
    return dict.fromkeys(names.split(), cases)


def as_complex(x):
    return torch.view_as_complex(x)


MASK = torch.tensor([[True, False, True, True], [False, False, True, True], [True, True, True, True]])
INDEX = torch.tensor([[2, 0, 1, 1]])
ATTENTION = [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]
SEEN = torch.tensor([[True, True, False], [True, False, True], [False, False, False], [True] * 3, [False, True, True]])

# name of a rule: (a call of the function on tensors, their shapes) ...
CASES = {
    **same("silu gelu relu leaky_relu elu softplus mish tanh sigmoid exp expm1 square sin cos", (unary, (3, 4))),
    **same("abs absolute neg __neg__ positive clone contiguous ravel", (unary, (3, 4))),
    **same("log log1p sqrt rsqrt reciprocal", (positive, (3, 4))),
    **same("clamp clip", (lambda f, x: f(x, -0.3, 0.5), (3, 4)), (lambda f, x: f(x, min=0.1), (3, 4))),
    **same("clamp_min clamp_max", (lambda f, x: f(x, 0.1), (3, 4))),
    **same("float double half bfloat16 cpu", (unary, (3, 4))),
    **same("to type", (lambda f, x: f(x, torch.float32), (3, 4))),
    **same("type_as", (lambda f, x: f(x, torch.ones(1, dtype=torch.float32)), (3, 4))),
    **same("cuda", (unary, (3, 4))),
    **same("mean sum", (unary, (3, 4)), (lambda f, x: f(x, 1, keepdim=True), (3, 4))),
    **same("trace tril triu t adjoint", (unary, (3, 4))),
    **same("cumsum", (lambda f, x: f(x, 1), (3, 4))),
    **same("view_as_complex", (lambda f, x: f(x).real, (3, 2))),
    **same("real imag", (lambda f, x: f(as_complex(x)), (3, 2))),
    **same("view_as_real", (lambda f, x, y: f(as_complex(x) * as_complex(y)), (3, 2), (3, 2))),
    **same("__getitem__", (lambda f, x: f(x, (slice(None), None, INDEX)), (2, 3)), (lambda f, x: f(x, 1), (2, 3))),
    **same("reshape", (lambda f, x: f(x, (2, 6)), (3, 4))),
    **same("view", (lambda f, x: f(x, 2, 6), (3, 4)), (lambda f, x, y: f(x + y, 12), (3, 1), (3, 4))),
    **same("reshape_as view_as", (binary, (3, 4), (2, 6))),
    **same("expand_as", (binary, (3, 1), (3, 4))),
    **same("flatten", (lambda f, x: f(x, 1), (2, 3, 4))),
    **same("unflatten", (lambda f, x: f(x, 1, (2, 2)), (3, 4))),
    **same("transpose swapaxes swapdims", (lambda f, x: f(x, 0, 2), (2, 3, 4))),
    **same("movedim moveaxis", (lambda f, x: f(x, 0, 2), (2, 3, 4))),
    **same("permute", (lambda f, x: f(x, (2, 0, 1)), (2, 3, 4))),
    **same("expand broadcast_to", (lambda f, x: f(x, (2, 3, 4)), (3, 1))),
    **same("unsqueeze", (lambda f, x: f(x, 1), (3, 4))),
    **same("squeeze", (unary, (3, 1, 4)), (lambda f, x: f(x, 1), (3, 1, 4))),
    **same("narrow", (lambda f, x: f(x, 1, 1, 2), (3, 4))),
    **same("select", (lambda f, x: f(x, 1, 2), (3, 4))),
    **same("index_select", (lambda f, x: f(x, 1, torch.tensor([2, 0])), (3, 4))),
    **same("gather", (lambda f, x: f(x, 0, INDEX), (3, 4))),
    **same("take_along_dim", (lambda f, x: f(x, INDEX, 0), (3, 4))),
    **same("diagonal", (unary, (3, 4))),
    **same("chunk split", (lambda f, x: f(x, 2, dim=1), (3, 4))),
    **same("tensor_split", (lambda f, x: f(x, 3, dim=1), (3, 4))),
    **same("split_with_sizes", (lambda f, x: f(x, [1, 3], dim=1), (3, 4))),
    **same("unbind", (lambda f, x: f(x, 1), (3, 4))),
    **same("unfold", (lambda f, x: f(x, 3, 2, 1) if f is Tensor.unfold else f(x, 2), (1, 2, 3, 3))),
    **same("fold", (lambda f, x: f(x, (3, 3), 2), (1, 8, 4))),
    **same("flip", (lambda f, x: f(x, (0, 1)), (3, 4))),
    **same("roll", (lambda f, x: f(x, 1, 1), (3, 4))),
    **same("rot90", (lambda f, x: f(x, 1, (0, 1)), (3, 4))),
    **same("repeat tile", (lambda f, x: f(x, (2, 1, 2)), (3, 4))),
    **same("repeat_interleave", (lambda f, x: f(x, 2, dim=1), (3, 4))),
    **same(
        "interpolate",
        (lambda f, x: f(x, scale_factor=2), (1, 2, 3, 3)),
        (lambda f, x: f(x, size=5, mode="bilinear", align_corners=False), (1, 2, 3, 3)),
    ),
    **same("avg_pool1d adaptive_avg_pool1d", (lambda f, x: f(x, 2), (1, 2, 4))),
    **same("avg_pool2d adaptive_avg_pool2d", (lambda f, x: f(x, 2), (1, 2, 4, 4))),
    **same("avg_pool3d adaptive_avg_pool3d", (lambda f, x: f(x, 2), (1, 2, 4, 4, 2))),
    **same("pixel_shuffle", (lambda f, x: f(x, 2), (1, 4, 2, 2))),
    **same("pixel_unshuffle", (lambda f, x: f(x, 2), (1, 1, 4, 4))),
    **same("cat concat concatenate", (lambda f, x, y: f([x, y], 1), (3, 4), (3, 2))),
    **same("stack", (lambda f, x, y: f((x, y), dim=1), (3, 4), (3, 4))),
    **same("hstack vstack", (lambda f, x, y: f((x, y)), (3, 4), (3, 4))),
    **same(
        "add sub subtract rsub",
        (binary, (3, 1), (2, 1, 4)),
        (lambda f, x, y: f(x, y, alpha=3), (3, 1), (3, 4)),
        (lambda f, x: f(x, 2.5), (3, 4)),
        (lambda f, x: f(x, other=torch.ones(2, 3, 4)), (3, 4)),
    ),
    **same("__add__ __radd__ __sub__ __rsub__", (binary, (3, 1), (3, 4)), (lambda f, x: f(x, 2.5), (3, 4))),
    **same("mul multiply __mul__ __rmul__", (binary, (3, 1), (3, 4)), (lambda f, x: f(x, 2.5), (3, 4))),
    **same("div divide", (lambda f, x: f(x, 0.3, rounding_mode="floor"), (3, 4))),
    **same(
        "true_divide __truediv__", (lambda f, x, y: f(x, y.exp()), (3, 1), (3, 4)), (lambda f, x: f(x, 2.5), (3, 4))
    ),
    **same("__rdiv__", (lambda f, x: f(x.exp(), 2.5), (3, 4))),
    **same("pow __pow__", *[(lambda f, x, n=n: f(x.abs() + 0.5, n), (3, 4)) for n in (0, 1, 2, 3, 0.5, -1)]),
    **same("__rpow__", (lambda f, x: f(x, 2.5), (3, 4))),
    **same("matmul __matmul__", (binary, (2, 3, 4), (4, 5)), (binary, (3, 4), (4,))),
    **same("__rmatmul__", (binary, (4, 5), (3, 4))),
    **same("mm", (binary, (3, 4), (4, 5))),
    **same("bmm", (binary, (2, 3, 4), (2, 4, 5))),
    **same("mv", (binary, (3, 4), (4,))),
    **same("dot inner outer", (binary, (4,), (4,))),
    **same(
        "einsum",
        (lambda f, x, y, z: f("ij,kj,k->ik", x, y, z), (3, 4), (2, 4), (2,)),
        (lambda f, x, y: f("ij,kj", [x, y]), (3, 4), (2, 4)),
    ),
    **same("linear", (lambda f, x, w: f(x, w, torch.ones(5)), (3, 4), (5, 4)), (binary, (3, 4), (5, 4))),
    **same(
        "conv2d",
        (lambda f, x, w: f(x, w, torch.ones(3), 2, 1), (2, 4, 5, 5), (3, 4, 3, 3)),
        (lambda f, x, w: f(x, w, bias=torch.ones(4), padding=1, groups=2), (2, 4, 5, 5), (4, 2, 3, 3)),
    ),
    **same("conv1d", (lambda f, x, w: f(x, w, torch.ones(3)), (2, 4, 5), (3, 4, 3))),
    **same("conv3d", (lambda f, x, w: f(x, w, torch.ones(3)), (1, 2, 3, 3, 3), (3, 2, 2, 2, 2))),
    **same("conv_transpose1d", (lambda f, x, w: f(x, w, torch.ones(3)), (2, 4, 5), (4, 3, 3))),
    **same(
        "conv_transpose2d",
        (lambda f, x, w: f(x, w, torch.ones(3), stride=2), (2, 4, 3, 3), (4, 3, 2, 2)),
        (lambda f, x, w: f(x, w, stride=2, padding=1, groups=4), (2, 4, 3, 3), (4, 1, 4, 4)),
    ),
    **same("conv_transpose3d", (lambda f, x, w: f(x, w, torch.ones(3)), (1, 2, 2, 2, 2), (2, 3, 2, 2, 2))),
    **same("addmm", (lambda f, *t: f(*t, beta=2, alpha=3), (5,), (3, 4), (4, 5))),
    **same("baddbmm", (lambda f, *t: f(*t, beta=2, alpha=3), (3, 5), (2, 3, 4), (2, 4, 5))),
    **same(
        "where",
        (lambda f, x, y: f(x, MASK, y) if f is Tensor.where else f(MASK, x, y), (3, 4), (3, 1)),
        (lambda f, x: f(x, MASK, 2.5) if f is Tensor.where else f(MASK, 2.5, x), (3, 4)),
    ),
    **same("masked_fill", (lambda f, x: f(x, MASK, -math.inf), (3, 4))),
    **same("pad", (lambda f, x: f(x, (1, 2), value=3.0), (3, 4)), (lambda f, x: f(x, (1, 2), "circular"), (1, 3, 4))),
    **same("softmax log_softmax", (lambda f, x: f(x, 1), (3, 4)), (lambda f, x: f(x, dim=0), (3, 4))),
    **same(
        "group_norm",
        (lambda f, x: f(x, 2, torch.arange(4.0), torch.ones(4)), (3, 4, 2, 3)),
        (lambda f, x: f(x, 2, eps=0.1), (3, 4, 2)),
    ),
    **same(
        "layer_norm",
        (lambda f, x: f(x, (4,), torch.arange(4.0), torch.ones(4)), (3, 2, 4)),
        (lambda f, x: f(x, (2, 4), eps=0.1), (3, 2, 4)),
    ),
    **same(
        "rms_norm",
        (lambda f, x: f(x, (4,), torch.arange(4.0)), (3, 2, 4)),
        (lambda f, x: f(x, (2, 4), eps=0.1), (3, 2, 4)),
    ),
    **same(
        "vector_norm",
        (lambda f, x: f(x, dim=1, keepdim=True), (3, 4)),
        (lambda f, x: f(x, 2, (0, 2)), (3, 4, 2)),
        (lambda f, x: f(x), (3, 4)),
        (lambda f, x: f(x, dim=1, dtype=torch.float64) / 2, (3, 4)),
    ),
    **same(
        "scaled_dot_product_attention",
        (lambda f, q, k, v: f(q, k, v), *ATTENTION),
        (lambda f, q, k, v: f(q, k, v, is_causal=True, scale=0.3), *ATTENTION),
        (lambda f, q, k, v: f(q, k, v, SEEN), *ATTENTION),
        (lambda f, q, k, v: f(q, k, v, attn_mask=torch.randn(2, 1, 1, 3)), *ATTENTION),
        (lambda f, q, k, v: f(q, k, v, enable_gqa=True), (2, 4, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)),
    ),
    **same("dropout", (lambda f, x: f(x, 0.4, True), (3, 4, 2)), (lambda f, x: f(x, 0.4, False), (3, 4, 2))),
    **same("dropout1d", (lambda f, x: f(x, 0.4, True), (3, 4, 2))),
    **same("dropout2d", (lambda f, x: f(x, 0.4, True), (3, 4, 2, 2))),
    **same("dropout3d", (lambda f, x: f(x, 0.4, True), (3, 4, 2, 2, 2))),
}
CASES["div"] = CASES["divide"] = CASES["div"] + CASES["true_divide"]
CALLS = [
    pytest.param(f, call, shapes, id=f"{name}-{f.__name__}-{number}")
    for name, cases in CASES.items()
    for f in dict.fromkeys(_rules.functions(name))
    for number, (call, *shapes) in enumerate(cases)
]


pytestmark = pytest.mark.usefixtures("float64")


def flat(result):
    return torch.cat([leaf.flatten() for leaf in tree_leaves(result)])


@pytest.mark.parametrize(("f", "call", "shapes"), CALLS)
def test_rule_is_torchs_forward_mode(f, call, shapes):
    if f is Tensor.cuda and not torch.cuda.is_available():
        pytest.skip("no GPU")
    with sdpa_kernel(SDPBackend.MATH):
        for moves in itertools.product([True, False], repeat=len(shapes)):  # each argument moves or is a constant
            if any(moves):
                tangents = [t if moved else None for t, moved in zip(draw(shapes, 1), moves, strict=True)]
                compare(lambda *x: flat(call(f, *x)), draw(shapes, 0), tangents)


def test_every_rule_has_a_case():
    assert CASES.keys() == RULES


def test_every_name_of_the_tables_is_one_of_torchs():
    constants = _rules.CONSTANT.split()
    assert [name for name in [*RULES, *constants] if not _rules.functions(name)] == []
    assert set(constants) & RULES == set()
