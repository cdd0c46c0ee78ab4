"""value_and_derivative against torch: value and gradients of a plain pass, and the derivative of torch.func.jvp."""

import warnings

import torch

from cmbench.forward_mode.dual import value_and_derivative


def draw(shapes, seed):
    """Return standard normal tensors."""
    torch.manual_seed(seed)
    return [torch.randn(shape) for shape in shapes]


def jvp(function, primals, tangents):
    """Return the derivative by torch.func.jvp; arguments with the tangent None are constants."""
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def of_moving(*moved):
        own = dict(zip(moving, moved, strict=True))
        return function(*(own.get(i, x) for i, x in enumerate(primals)))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)  # torch 2.15 of itself
        _, derivative = torch.func.jvp(of_moving, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving))
    return derivative.detach()


def compare(function, primals, tangents, parameters=()):
    """Assert that both agree on value, derivative and all gradients, with random numbers from the same seed."""
    primals = [x.requires_grad_() if t is not None else x for x, t in zip(primals, tangents, strict=True)]
    leaves = [*parameters, *(x for x, t in zip(primals, tangents, strict=True) if t is not None)]
    torch.manual_seed(5)
    plain = function(*primals)
    torch.manual_seed(5)
    expected = jvp(function, primals, tangents)
    torch.manual_seed(5)
    value, derivative = value_and_derivative(function, tuple(primals), tuple(tangents))
    assert not derivative.requires_grad
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(derivative, expected, rtol=1e-10, atol=1e-10)
    assert value.requires_grad == plain.requires_grad
    if plain.requires_grad:
        weights = torch.linspace(1, 2, plain.numel(), dtype=plain.dtype).view_as(plain)
        gradients = [torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True) for y in (value, plain)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
