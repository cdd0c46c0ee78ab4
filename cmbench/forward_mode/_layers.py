"""Derivatives of softmax, normalisations, attention and dropout along tangents; see _rules."""

import math
from typing import Any

import torch
from torch import Tensor

from cmbench.forward_mode._call import Call

aten = torch.ops.aten

_QUERIES = 256  # queries whose attention weights are in memory at a time


def softmax(call: Call, y: Tensor) -> Any:
    """t_y = y (t - sum y t). This is symmetric, so the backward kernel computes it."""
    _, dim, *_ = call.arguments(input=None, dim=None)
    return NotImplemented if dim is None else aten._softmax_backward_data(call.tangents[0].to(y.dtype), y, dim, y.dtype)


def log_softmax(call: Call, y: Tensor) -> Any:
    _, dim, *_ = call.arguments(input=None, dim=None)
    t = call.tangents[0]
    return NotImplemented if dim is None else t - (y.exp() * t).sum(dim, keepdim=True)


def group_norm(call: Call) -> Any:
    """y = w x^ + b. The derivative of x^ is symmetric, so the backward kernel without w computes it."""
    if not call.constant_from(1):
        return NotImplemented
    x, groups, weight, bias, eps, *_ = call.arguments(input=None, num_groups=1, weight=None, bias=None, eps=1e-5)
    sizes = (x.shape[0], x.shape[1], math.prod(x.shape[2:]), groups)
    as_it_is = _needs_no_cast_or_copy(x, weight, bias)
    if as_it_is:
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *sizes, eps)
    else:
        y = call.of(*call.primals)
    with torch.no_grad():
        if not as_it_is:
            x = x.to(y.dtype).contiguous()
            _, mean, rstd = torch.native_group_norm(x, None, None, *sizes, eps)
        t = call.tangents[0].to(x.dtype).contiguous()
        t, *_ = aten.native_group_norm_backward.default(t, x, mean, rstd, None, *sizes, [True, False, False])
        return y, t if weight is None else t * weight.view(-1, *[1] * (x.ndim - 2))


def layer_norm(call: Call) -> Any:
    """As for the group norm."""
    if not call.constant_from(1):
        return NotImplemented
    x, shape, weight, bias, eps, *_ = call.arguments(input=None, normalized_shape=(), weight=None, bias=None, eps=1e-5)
    as_it_is = _needs_no_cast_or_copy(x, weight, bias)
    if as_it_is:
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
    else:
        y = call.of(*call.primals)
    with torch.no_grad():
        if not as_it_is:
            x = x.to(y.dtype).contiguous()
            _, mean, rstd = torch.native_layer_norm(x, shape, None, None, eps)
        t = call.tangents[0].to(x.dtype).contiguous()
        t, *_ = aten.native_layer_norm_backward.default(t, x, shape, mean, rstd, None, None, [True, False, False])
        return y, t if weight is None else t * weight


def _needs_no_cast_or_copy(x: Tensor, *affine: Tensor | None) -> bool:
    """Whether torch passes a normalisation's arguments to its kernel unchanged."""
    whole = all(a is None or a.is_contiguous() for a in (x, *affine))
    return whole and not torch.is_autocast_enabled(x.device.type)


def rms_norm(call: Call, y: Tensor) -> Any:
    """y = w x r with r = 1 / sqrt(mean x^2 + eps): t_y = w r (t - x r^2 mean(x t))."""
    if not call.constant_from(1):
        return NotImplemented
    x, shape, weight, eps = call.arguments(input=None, normalized_shape=(), weight=None, eps=None)
    t, over = call.tangents[0], tuple(range(-len(shape), 0))
    r = (x.square().mean(over, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    t = r * (t - x * (r.square() * (x * t).mean(over, keepdim=True)))
    return t if weight is None else t * weight


def vector_norm(call: Call, y: Tensor) -> Any:
    """y = sqrt(sum x^2): t_y = sum(x t) / y, and zero where y is zero, as in torch's own derivatives."""
    x, order, dim, keepdim = call.arguments(x=None, ord=2, dim=None, keepdim=False)[:4]
    if order != 2 or x.is_complex() or not call.constant_from(1):
        return NotImplemented
    products = x.to(y.dtype) * call.tangents[0].to(y.dtype)
    return torch.where(y == 0, 0, products.sum(dim, keepdim=keepdim) / y)


def attention(call: Call) -> Any:
    """Scaled dot product attention with any kernel that torch chooses, and its tangent."""
    q, k, v, mask, dropout_p, causal, scale, grouped = call.arguments(
        query=None, key=None, value=None, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    )
    if dropout_p or not call.constant_from(3):
        return NotImplemented
    y = call.of(*call.primals)
    with torch.no_grad():
        t_q, t_k, t_v = (
            torch.zeros_like(x) if t is None else t for x, t in zip((q, k, v), call.tangents, strict=False)
        )
        if grouped:
            k, v, t_k, t_v = (x.repeat_interleave(q.shape[-3] // k.shape[-3], -3) for x in (k, v, t_k, t_v))
        if causal:
            mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            mask = mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return y, _attention_tangent(q, scale * k.mT, v, t_q, scale * t_k.mT, t_v, y, mask)


def _attention_tangent(
    q: Tensor, k: Tensor, v: Tensor, t_q: Tensor, t_k: Tensor, t_v: Tensor, y: Tensor, mask: Tensor | None
) -> Tensor:
    """y = p v with p = softmax(q k): t_y = (p t_s) v - (sum p t_s) y + p t_v (Lu & Song 2024, appendix F).

    k (..., channels, keys). It works in blocks of queries, so that the memory is linear in the length.
    """
    blocks = []
    for first in range(0, q.shape[-2], _QUERIES):
        rows = (..., slice(first, first + _QUERIES), slice(None))
        p = _attention_weights(q[rows] @ k, None if mask is None else mask[rows])
        p_t_s = p * (t_q[rows] @ k + q[rows] @ t_k)
        blocks.append(p_t_s @ v - p_t_s.sum(-1, keepdim=True) * y[rows] + p @ t_v)
    return torch.cat(blocks, -2)


def _attention_weights(s: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.softmax(s, -1)
    s = s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask
    return torch._safe_softmax(s, -1)  # zero if a query sees nothing, as in torch's attention


def dropout(call: Call) -> Any:
    """Use one mask for both. It is the dropout of ones, which draws the random numbers of a plain call."""
    if "train" in call.keywords:  # torch.dropout's own name for it
        return NotImplemented
    x, p, training = call.arguments(input=None, p=0.5, training=True)
    if not training or p == 0:
        return call.of(*call.primals), call.tangents[0]
    with torch.no_grad():
        mask = call.of(torch.ones_like(x), *call.primals[1:])
        t = call.tangents[0] * mask
    return x * mask, t
