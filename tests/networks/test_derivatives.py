"""The forward derivative of every network, which continuous-time objectives take, against central differences."""

import pytest
import torch
from torch import nn

from cmbench.networks import adm, ddpmpp, dit, edm2, mlp, ncsnpp, unet

SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1, "attention": (4,)}
HEADS = {**SMALL, "head_channels": 8}
NETWORKS = {
    "mlp": (mlp, {"width": 16, "depth": 2, "embedding_channels": 8}, (3,)),
    "unet-adagn": (unet, {"width": 8, "depth": 1, "attention": (4,), "heads": 2, "double_norm": False}, (2, 8, 8)),
    "unet-adn": (unet, {"width": 8, "depth": 1, "attention": (4,), "heads": 2, "double_norm": True}, (2, 8, 8)),
    "dit-adaln": (dit, {"width": 16, "depth": 2, "heads": 2, "double_norm": False}, (2, 8, 8)),
    "dit-adn": (dit, {"width": 16, "depth": 2, "heads": 2, "double_norm": True}, (2, 8, 8)),
    "ddpmpp": (ddpmpp, SMALL, (2, 8, 8)),
    "ddpmpp-adn": (ddpmpp, {**SMALL, "double_norm": True}, (2, 8, 8)),
    "ncsnpp": (ncsnpp, SMALL, (2, 8, 8)),
    "adm": (adm, HEADS, (2, 8, 8)),
    "adm-adn": (adm, {**HEADS, "double_norm": True}, (2, 8, 8)),
    "edm2": (edm2, {**HEADS, "double_norm": False}, (2, 8, 8)),
    "edm2-adn": (edm2, {**HEADS, "double_norm": True}, (2, 8, 8)),
}
NEARLY_ZERO = {"ddpmpp": 1e-4, "ncsnpp": 1e-4}  # of the output at first, where it is not zero: kinds whose gain is 1e-5


def network(name, times=1, embedding="positional", classes=0):
    """A network in double precision, every weight moved, so that nothing is hidden behind a layer of zeros."""
    module, settings, shape = NETWORKS[name]
    torch.manual_seed(0)
    config = module.Config(**settings, embedding=embedding, embedding_scale=0.5)
    net = module.Network(config, shape, classes, times).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter) if parameter.ndim else 1.0
    return net


def samples(name, times, seed=1):
    """x and c_noise, also a direction to move them in."""
    shape = NETWORKS[name][2]
    random = torch.Generator().manual_seed(seed)
    x, v = torch.randn(2, 3, *shape, dtype=torch.float64, generator=random)
    c, w = torch.randn(2, 3, times, dtype=torch.float64, generator=random)
    return (x, c.squeeze(1), v, w.squeeze(1)) if times == 1 else (x, c, v, w)


def central_difference(function, point, direction, step=1e-5):
    ahead, back = (function(*(p + h * d for p, d in zip(point, direction, strict=True))) for h in (step, -step))
    return (ahead - back) / (2 * step)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at the first torch.func.jvp
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("embedding", ["positional", "fourier"])
@pytest.mark.parametrize("name", NETWORKS)
def test_jvp_is_the_central_difference(name, embedding, times):
    net = network(name, times, embedding, classes=3)
    x, c, v, w = samples(name, times)

    def function(x, c):
        return net(x, c, torch.tensor([0, 1, 2]))

    for direction in ((v, w), (torch.zeros_like(v), w)):  # along a path, and in time alone
        with torch.no_grad():
            y, derivative = torch.func.jvp(function, (x, c), direction)
            expected = central_difference(function, (x, c), direction)
            torch.testing.assert_close(y, function(x, c))
        assert derivative.flatten(1).norm(dim=1).min() > 1e-2
        torch.testing.assert_close(derivative, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("embedding", ["positional", "fourier"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_of_two_times_matters_in_its_own_way(name, embedding):
    net = network(name, 2, embedding)
    x, c, _, _ = samples(name, 2)
    outputs = [net(x, c), net(x, c + torch.tensor([0.5, 0])), net(x, c + torch.tensor([0, 0.5])), net(x, c.flip(1))]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert (a - b).flatten(1).norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("edm2")])
def test_a_second_time_adds_its_embedding_and_its_linear_layer_alone(name):
    one, two = network(name), network(name, 2)
    size = two.time(torch.zeros(1)).shape[1]
    (second,) = two.more_times
    width = second[1].out_features
    assert count(two) - count(one) == width * (size + 1)
    two.load_state_dict(one.state_dict(), strict=False)
    nn.init.zeros_(second[1].weight)
    nn.init.zeros_(second[1].bias)
    x, c, _, _ = samples(name, 2)
    torch.testing.assert_close(two(x, c), one(x, c[:, 0]))


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("embedding", ["positional", "fourier"])
@pytest.mark.parametrize("name", NETWORKS)
def test_time_is_the_embedding_that_the_network_uses(name, embedding):
    net, seen = network(name, 2, embedding), []
    net.time.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    x, c, _, _ = samples(name, 2)
    net(x, c)
    assert torch.equal(torch.stack(seen)[0], c[:, 0])
    assert net.time.derivative_norm() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_one_time_refuses_two_and_the_other_way_round(name):
    x, c, _, _ = samples(name, 2)
    with pytest.raises(ValueError, match="zip"):
        network(name)(x, c)
    with pytest.raises(ValueError, match="zip"):
        network(name, 2)(x, c[:, 0])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("times", [1, 2])
def test_weights_follow_from_the_seed_and_the_output_starts_at_zero(name, times):
    module, settings, shape = NETWORKS[name]
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        net = module.Network(module.Config(**settings), shape, 3, times)
        states.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))
    x, c, _, _ = samples(name, times)
    y = net(x.float(), c.float(), torch.tensor([0, 1, 2]))
    assert y.shape == (3, *shape)
    assert y.abs().max() <= NEARLY_ZERO.get(name.partition("-")[0], 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_times_in_double_precision_pass_through_a_single_precision_network(name):
    net = network(name).float()
    x, c, _, _ = samples(name, 1)
    y = net(x.float(), c)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, net(x.float(), c.float()), rtol=1e-4, atol=1e-4)
