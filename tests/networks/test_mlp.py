import pytest
import torch
from torch import nn

from cmbench.errors import UsageError
from cmbench.networks.mlp import Config, Network


def network(classes=0, dimensions=2, **settings):
    torch.manual_seed(0)
    return Network(Config(**{"width": 16, "embedding_channels": 8, **settings}), (dimensions,), classes)


def randomise(net):
    """Give every weight a value, the output layer too, which starts at zero."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


X, C = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.linspace(-1.5, 1, 5)


@pytest.mark.parametrize("dimensions", [1, 2, 7])
@pytest.mark.parametrize("depth", [1, 3])
def test_output_has_the_shape_of_the_input_and_is_zero_at_first(dimensions, depth):
    y = network(dimensions=dimensions, depth=depth)(torch.ones(5, dimensions), C)
    assert torch.equal(y, torch.zeros(5, dimensions))


def test_network_is_its_formula():
    """h = silu(A x + B emb(c) + label), h = silu(W h), F = V h."""
    net = randomise(network(classes=3, depth=2))
    labels = torch.tensor([0, 1, 2, 0, 1])
    emb = net.time(C)
    h = X @ net.input.weight.T + net.input.bias + emb @ net.time_linear.weight.T + net.time_linear.bias
    h = h + net.label.weight[labels]
    h = h * h.sigmoid()
    h = h @ net.hidden[0].weight.T + net.hidden[0].bias
    h = h * h.sigmoid()
    torch.testing.assert_close(net(X, C, labels), h @ net.output.weight.T + net.output.bias)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depth_is_the_number_of_hidden_layers(depth):
    assert len(network(depth=depth).hidden) == depth - 1


def test_time_matters():
    net = randomise(network())
    assert (net(X, C) - net(X, C + 0.5)).abs().min() > 1e-4


def test_labels_matter_to_a_conditional_network_alone():
    conditional, unconditional = randomise(network(classes=3)), randomise(network())
    zeros, ones = torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long)
    assert (conditional(X, C, zeros) - conditional(X, C, ones)).abs().min() > 1e-4
    assert torch.equal(unconditional(X, C, zeros), unconditional(X, C, ones))


def test_dropout_acts_in_training_alone():
    net = randomise(network(dropout=0.5))
    assert not torch.equal(net(X, C), net(X, C))
    net.eval()
    assert torch.equal(net(X, C), net(X, C))


def test_dropout_drops_its_share_after_every_hidden_layer():
    net, shares = randomise(network(dropout=0.25, width=256, depth=3)), []
    net.dropout.register_forward_hook(lambda module, args, out: shares.append((out == 0).float().mean().item()))
    net(torch.randn(64, 2), torch.zeros(64))
    assert shares == pytest.approx([0.25] * 3, abs=4 * (0.25 * 0.75 / 64 / 256) ** 0.5)


@pytest.mark.parametrize("embedding", ["positional", "fourier"])
def test_gradients_reach_every_parameter_after_one_step(embedding):
    net = network(classes=2, embedding=embedding, embedding_scale=0.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (net(X, C, torch.tensor([0, 1, 0, 1, 0])) - X).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in net.parameters())


def test_pictures_are_refused():
    with pytest.raises(UsageError, match=r"network\.kind: found 'mlp' for data of shape \[1, 8, 8\].*'unet', 'dit'"):
        Network(Config(), (1, 8, 8), 0)
