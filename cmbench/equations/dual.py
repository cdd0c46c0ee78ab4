import warnings

import torch
from torch.func import jvp


def value_and_derivative(function, primals, tangents):
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def fn(*a):
        w = list(primals)
        for i, x in zip(moving, a):
            w[i] = x
        return function(*w)

    with torch.random.fork_rng([]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        d = jvp(fn, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving))[1]
    return function(*primals), d
