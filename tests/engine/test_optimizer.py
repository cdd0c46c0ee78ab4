import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cmbench.engine.optimizer import build, learning_rate, load_state_tensors, state_tensors
from cmbench.layers.log_weight import LogWeight
from cmbench.tables import Optimizer


def model() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.SiLU(), torch.nn.Linear(5, 2))


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer, k: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(k))
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["radam", "adam", "adamw"])
@pytest.mark.parametrize("before", [1, 7])
def test_with_its_state_put_back_an_optimiser_goes_on_identically(kind, before):
    config = Optimizer(kind=kind, lr=0.05, weight_decay=0.01, betas=(0.8, 0.95))
    net, copy = model(), model()
    optimizer = build(config, net)
    for k in range(before):
        step(net, optimizer, k)
    tensors = {name: value.clone() for name, value in state_tensors(optimizer).items()}
    copy.load_state_dict(net.state_dict())
    again = build(config, copy)
    load_state_tensors(again, tensors)
    assert {name: value.dtype for name, value in state_tensors(again).items()} == {
        n: v.dtype for n, v in tensors.items()
    }
    for k in range(before, before + 10):
        step(net, optimizer, k)
        step(copy, again, k)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), copy.parameters(), strict=True))
    fresh = build(config, copy)  # without the state it goes elsewhere
    step(net, optimizer, 99)
    step(copy, fresh, 99)
    assert not any(torch.equal(a, b) for a, b in zip(net.parameters(), copy.parameters(), strict=True))


def test_the_state_is_named_by_parameter_and_moment():
    net = model()
    optimizer = build(Optimizer(kind="adam"), net)
    assert state_tensors(optimizer) == {}
    step(net, optimizer, 0)
    assert set(state_tensors(optimizer)) == {
        f"{i}.{name}" for i in range(4) for name in ("step", "exp_avg", "exp_avg_sq")
    }


def test_settings_reach_torch():
    config = Optimizer(kind="adamw", lr=0.3, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2)
    optimizer = build(config, model())
    assert isinstance(optimizer, torch.optim.AdamW)
    settings = optimizer.defaults
    assert [settings[key] for key in ("lr", "betas", "eps", "weight_decay")] == [0.3, (0.5, 0.6), 1e-3, 0.2]
    assert isinstance(build(Optimizer(kind="radam"), model()), torch.optim.RAdam)
    assert isinstance(build(Optimizer(kind="adam"), model()), torch.optim.Adam)


@pytest.mark.parametrize("kind", ["radam", "adam", "adamw"])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999999])
def test_torch_takes_every_learning_rate_up_to_the_largest(kind, beta):
    """Beyond it Adam's first step raises: value cannot be converted to type float without overflow."""
    largest = float(np.finfo(np.float32).max) * (1 - beta)
    for lr in (0.99999 * largest, 1.0):
        weight_decay = 3.4e38 if lr == 1.0 else 0.0
        config = Optimizer(kind=kind, lr=lr, betas=(beta, 0.95), weight_decay=weight_decay)
        net = model()
        optimizer = build(config, net)
        for k in range(8):
            step(net, optimizer, k)
    with pytest.raises(ValidationError, match="lr: found"):
        Optimizer(kind=kind, lr=1.00001 * largest, betas=(beta, 0.95))
    with pytest.raises(ValidationError, match="weight_decay: found"):
        Optimizer(kind=kind, weight_decay=3.5e38)


def test_parameters_that_want_no_gradient_are_left_out():
    net = model()
    net[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in build(Optimizer(), net).param_groups) == 2


def test_weight_decay_reaches_the_learned_weight_as_its_key_says():
    """Without a gradient adamw shrinks it by 1 - lr times the decay."""
    w_phi = LogWeight(channels=4)
    with torch.no_grad():
        w_phi.linear.weight.fill_(1.0)
    optimizer = build(Optimizer(kind="adamw", lr=0.1, weight_decay=0.5), model(), w_phi)
    for parameter in w_phi.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert w_phi.linear.weight.flatten().tolist() == pytest.approx([0.95] * 4)
    assert "w_phi" in Optimizer.model_fields["weight_decay"].description


@pytest.mark.parametrize(
    ("settings", "k", "factor"),
    [
        ({}, 0, 1.0),
        ({}, 99, 1.0),
        ({"warmup": 10}, 0, 0.1),
        ({"warmup": 10}, 4, 0.5),
        ({"warmup": 10}, 9, 1.0),
        ({"warmup": 10}, 50, 1.0),
        ({"decay": "cosine"}, 0, 1.0),
        ({"decay": "cosine"}, 25, (1 + math.sqrt(0.5)) / 2),
        ({"decay": "cosine"}, 50, 0.5),
        ({"decay": "cosine"}, 100, 0.0),
        ({"decay": "cosine", "decay_after": 60}, 60, 1.0),
        ({"decay": "cosine", "decay_after": 60}, 80, 0.5),
        ({"decay": "cosine", "warmup": 10}, 4, 0.5 * 0.5 * (1 + math.cos(math.pi * 0.04))),
        ({"decay": "inverse_sqrt", "decay_after": 10}, 5, 1.0),
        ({"decay": "inverse_sqrt", "decay_after": 10}, 10, 1.0),
        ({"decay": "inverse_sqrt", "decay_after": 10}, 40, 0.5),
        ({"decay": "inverse_sqrt", "decay_after": 10}, 90, 1 / 3),
    ],
)
def test_learning_rate(settings, k, factor):
    config = Optimizer(lr=0.2, **settings)
    assert learning_rate(config, k, 100) == pytest.approx(0.2 * factor, abs=1e-12)
