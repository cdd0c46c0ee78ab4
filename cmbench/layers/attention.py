"""Softmax attention that has a forward derivative, the same gradients everywhere and memory linear in the length."""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

_AT_ONCE = 1024  # tokens up to which the whole matrix of scores is kept for the backward pass
_QUERIES = 256  # queries of a block beyond that; at 4096 tokens a block's scores fill what 1024 tokens fill at once


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v. q, k, v (B, heads, N, d) -> (B, heads, N, d).

    Beyond 1024 tokens the scores are computed for one block of queries after the other, and once more in the backward
    pass instead of being kept (Rabe & Staats 2021, here over queries alone). Only a forward derivative that is to be
    differentiated backward in turn keeps them at any length; one taken without gradients does not.
    """
    if q.shape[2] <= _AT_ONCE:
        return _plain(q, k, v)
    # Without gradients there is nothing to recompute for. And recomputing would miss what a forward derivative has
    # recorded for a later backward pass.
    again = torch.is_grad_enabled() and all(unpack_dual(x).tangent is None for x in (q, k, v))
    return torch.cat([_recomputed(b, k, v) if again else _plain(b, k, v) for b in q.split(_QUERIES, dim=2)], dim=2)


def _recomputed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return checkpoint(_plain, q, k, v, use_reentrant=False, preserve_rng_state=False)  # there is nothing random in it


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # The fused kernels have no forward derivative, and their gradients are not reproducible on every GPU.
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(q, k, v)
