"""Small parameters joined into one take the steps of torch's own optimisers, bit for bit."""

import pytest
import torch
from torch import nn

from cmbench.engine import joined
from cmbench.engine.optimizer import load_state_tensors, state_tensors

KINDS = {joined.RAdam: torch.optim.RAdam, joined.Adam: torch.optim.Adam, joined.AdamW: torch.optim.AdamW}
SIZES = [(), (1,), (3,), (5, 3), (16,), (31,), (33,), (3, 3, 3, 3), (1000,), (130, 130), (17,)]  # one is not small
SETTINGS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.02, "foreach": True}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in SIZES]


def take(step, own, optimizer, without=()):
    """Take a step with gradients that follow from its number, of sizes from 1 to 1e-6."""
    generator = torch.Generator().manual_seed(step)
    for i, p in enumerate(own):
        scale = 10 ** (-6 * torch.rand((), generator=generator))
        p.grad = torch.randn(p.shape, generator=generator) * scale
        if i in without:
            p.grad = None
    for group in optimizer.param_groups:
        group["lr"] = 0.01 / (1 + step)
    optimizer.step()


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def assert_same_state(optimizer, plain):
    a, b = state_tensors(optimizer), state_tensors(plain)
    assert [(name, x.dtype, x.shape) for name, x in a.items()] == [(name, x.dtype, x.shape) for name, x in b.items()]
    assert same(list(a.values()), list(b.values()))


def pair(kind):
    return [(own, cls(own, **SETTINGS)) for cls, own in ((kind, parameters()), (KINDS[kind], parameters()))]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_state_are_those_of_torch(kind):
    (ours, optimizer), (theirs, plain) = pair(kind)
    for step in range(20):
        take(step, ours, optimizer)
        take(step, theirs, plain)
    assert optimizer._joined is not None
    assert same(ours, theirs)
    assert_same_state(optimizer, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_may_lack_its_gradient_for_some_steps(kind):
    (ours, optimizer), (theirs, plain) = pair(kind)
    for step in range(30):
        without = [(), (2, 9), (4,)][step // 4 % 3]
        take(step, ours, optimizer, without)
        take(step, theirs, plain, without)
    assert same(ours, theirs)
    assert same(list(state_tensors(optimizer).values()), list(state_tensors(plain).values()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_torch", [True, False])
def test_each_takes_up_the_state_of_the_other(kind, from_torch):
    both = pair(kind)
    (before, old), (after, new) = reversed(both) if from_torch else both
    for step in range(6):
        take(step, before, old)
        take(step + 50, after, new)  # whose state is then replaced
    with torch.no_grad():
        for p, q in zip(after, before, strict=True):
            p.copy_(q)
    load_state_tensors(new, {name: value.clone() for name, value in state_tensors(old).items()})
    for step in range(6, 12):
        take(step, before, old)
        take(step, after, new)
    assert same(before, after)


def test_weights_that_others_set_between_two_steps_count():
    (ours, optimizer), (theirs, plain) = pair(joined.RAdam)
    for step in range(8):
        take(step, ours, optimizer)
        take(step, theirs, plain)
        with torch.no_grad():
            for p in (*ours, *theirs):
                p.mul_(0.9)
    assert same(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_several_types_take_the_steps_of_torch(kind):
    """Such as a weighting in float64 beside a network in float32: each keeps its own type, and its bits."""

    def mixed():
        dtypes = [torch.float32, torch.float64, torch.bfloat16]
        return [nn.Parameter(p.detach().to(dtypes[i % 3])) for i, p in enumerate(parameters())]

    def step_with(own, optimizer, step):
        take_gradients = torch.Generator().manual_seed(step)
        for p in own:
            p.grad = torch.randn(p.shape, generator=take_gradients).to(p.dtype)
        optimizer.step()

    ours, theirs = mixed(), mixed()
    optimizer, plain = kind(ours, **SETTINGS), KINDS[kind](theirs, **SETTINGS)
    for step in range(6):
        step_with(ours, optimizer, step)
        step_with(theirs, plain, step)
    assert optimizer._joined is not None
    assert same(ours, theirs)
    assert_same_state(optimizer, plain)
