"""Softmax attention with a forward derivative, reproducible gradients and memory linear in the length."""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

_FUSED = ("cpu",)  # devices whose fused kernel has reproducible gradients
_AT_ONCE = 1024  # most tokens for which the backward pass keeps the whole matrix of scores
_QUERIES = 256  # queries of a block beyond that; at 4096 tokens a block's scores take the memory of 1024 tokens at once


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v. q, k, v (B, heads, N, d) -> (B, heads, N, d).

    On a CPU torch's fused kernel does it: its gradients are equal bit for bit, whatever the number of threads and of
    samples, and it keeps no scores. It has no forward derivative, so one of torch's takes the way of GPUs.

    There, beyond 1024 tokens, it computes the scores block by block of queries, and again in the backward pass instead
    of keeping them (Rabe & Staats 2021, here over queries only). A forward derivative that is itself differentiated
    backward keeps the scores at any length; one taken without gradients does not.
    """
    derived = any(unpack_dual(x).tangent is not None for x in (q, k, v))
    if q.device.type in _FUSED and not derived:
        return scaled_dot_product_attention(q, k, v)
    if q.shape[2] <= _AT_ONCE:
        return _plain(q, k, v)
    # Without gradients nothing needs recomputing. And recomputing would lose what a forward derivative has recorded for
    # a later backward pass.
    again = torch.is_grad_enabled() and not derived
    return torch.cat([_recomputed(b, k, v) if again else _plain(b, k, v) for b in q.split(_QUERIES, dim=2)], dim=2)


def _recomputed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return checkpoint(_plain, q, k, v, use_reentrant=False, preserve_rng_state=False)  # _plain draws nothing random


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Fused kernels have no forward derivative, and their gradients are not reproducible on every GPU.
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(q, k, v)
