import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from cmbench.engine import compute
from cmbench.layers import attention as layer
from cmbench.layers.attention import attention


def qkv(tokens, heads=2, d=4):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, tokens, d, dtype=torch.float64, generator=random) for _ in range(3)]


def by_hand(q, k, v):
    return torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=3) @ v


@pytest.fixture(params=["fused", "plain"])
def way(request, monkeypatch):
    """The way of a CPU, and that of a GPU."""
    if request.param == "plain":
        monkeypatch.setattr(layer, "_FUSED", ())
    return request.param


@pytest.mark.parametrize("tokens", [1, 64, 1024, 1025, 1300])
def test_attention_is_softmax_attention_with_its_gradients(tokens, way):
    """1024 tokens are the last to be taken at once; 1300 do not fill whole blocks of queries."""
    ours, plain = ([x.clone().requires_grad_() for x in qkv(tokens)] for _ in range(2))
    y, expected = attention(*ours), by_hand(*plain)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-13)
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((weights * out).sum(), x) for out, x in ((y, ours), (expected, plain))]
    for got, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-11, atol=1e-13)


def gradients(tokens, rows=slice(None)):
    x = [torch.cat([x, -x, 2 * x])[rows].float().requires_grad_() for x in qkv(tokens)]
    return torch.autograd.grad(attention(*x).square().sum(), x)


@pytest.mark.parametrize("tokens", [16, 300, 1300])
def test_gradients_are_the_same_twice(tokens, way):
    assert all(torch.equal(a, b) for a, b in zip(gradients(tokens), gradients(tokens), strict=True))


@pytest.mark.parametrize("tokens", [16, 300])
def test_gradients_of_the_fused_kernel_know_neither_threads_nor_other_samples(tokens):
    """So runs are equal on any number of cores, and in micro batches."""
    threads, whole = torch.get_num_threads(), gradients(tokens)
    torch.set_num_threads(3)
    try:
        on_more = gradients(tokens)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(whole, on_more, strict=True))
    assert all(torch.equal(a[1:2], b) for a, b in zip(whole, gradients(tokens, slice(1, 2)), strict=True))


def saved_bytes(tokens):
    """Bytes that autograd keeps between forward and backward, each piece of memory counted once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    x = [x.requires_grad_() for x in qkv(tokens)]
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = attention(*x)
    assert y.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_is_linear_in_the_sequence_beyond_what_is_taken_at_once(monkeypatch):
    """Kept are q, k and v alone, plus at most a few hundred bytes of bookkeeping."""
    monkeypatch.setattr(layer, "_FUSED", ())
    for tokens in (1280, 2560, 3840):
        qkv_bytes = 3 * 2 * tokens * 4 * 8
        assert saved_bytes(tokens) == pytest.approx(qkv_bytes, rel=0.01)
    assert saved_bytes(1024) > 2 * 1024**2 * 8  # up to there the scores are kept


def test_memory_of_the_fused_kernel_is_linear_in_any_sequence():
    """It keeps the output and a sum for each query too."""
    for tokens in (16, 1024, 2560):
        assert saved_bytes(tokens) == pytest.approx((4 * 4 + 1) * 2 * tokens * 8, rel=0.1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at the first torch.func.jvp
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("at_once", [1024, 8])
def test_forward_derivative_is_that_of_central_differences(monkeypatch, at_once, grad):
    monkeypatch.setattr(layer, "_AT_ONCE", at_once)
    monkeypatch.setattr(layer, "_QUERIES", 5)
    x = tuple(x.requires_grad_(grad) for x in qkv(12))
    v = tuple(torch.randn(x[0].shape, dtype=torch.float64) for _ in x)
    with torch.set_grad_enabled(grad):
        y, derivative = torch.func.jvp(attention, x, v)
    step = 1e-5
    ahead, back = (by_hand(*(a + h * b for a, b in zip(x, v, strict=True))) for h in (step, -step))
    torch.testing.assert_close(y, by_hand(*x))
    torch.testing.assert_close(derivative, (ahead - back) / (2 * step), rtol=1e-7, atol=1e-8)
    if grad:
        for got, expected in zip(
            torch.autograd.grad(y.square().sum(), x), torch.autograd.grad(by_hand(*x).square().sum(), x), strict=True
        ):
            torch.testing.assert_close(got, expected)


def test_bfloat16_is_recomputed_as_it_was_computed(way):
    """Under autocast, the blocks are recomputed outside of it; values and dtype must be the first ones."""
    x = [x.float().requires_grad_() for x in qkv(1300)]
    with torch.autocast("cpu", torch.bfloat16):
        y = attention(*x)
        plain = layer._plain(*x)
    assert y.dtype == plain.dtype
    torch.testing.assert_close(y, plain, rtol=0.02, atol=0.02)
    for got, expected in zip(
        torch.autograd.grad(y.float().sum(), x), torch.autograd.grad(plain.float().sum(), x), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("grad", [True, False])
def test_operations_are_those_of_two_products_and_of_their_gradients(way, grad):
    x = [x.requires_grad_(grad) for x in qkv(48)]

    def run():
        with torch.set_grad_enabled(grad):
            y = attention(*x)
        if grad:
            torch.autograd.grad(y.sum(), x)

    one = 2 * 2 * 48 * 48 * 4  # heads, queries, keys, channels; an addition and a multiplication
    assert compute.operations(run) == (6 if grad else 2) * one
