import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import gelu, layer_norm

from cmbench.errors import UsageError
from cmbench.layers.attention import attention
from cmbench.networks.dit import Block, Config, Network, position_embedding


def network(size=8, colours=1, classes=0, **settings):
    torch.manual_seed(0)
    return Network(Config(**{"width": 16, "depth": 2, "heads": 2, **settings}), (colours, size, size), classes)


def randomise(module):
    """Give every weight a value, also those that start at zero."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def pictures(n, colours, size):
    return torch.randn(n, colours, size, size, generator=torch.Generator().manual_seed(0))


X, C = pictures(4, 1, 8), torch.linspace(-1.5, 1, 4)


@pytest.mark.parametrize(
    ("size", "colours", "settings"),
    [
        (8, 1, {}),
        (8, 1, {"patch": 8, "double_norm": True}),
        (28, 1, {"patch": 7, "heads": 4}),
        (32, 3, {"patch": 4, "mlp_ratio": 1, "double_norm": True}),
        (7, 2, {"patch": 1, "width": 4, "heads": 1}),
    ],
)
def test_output_has_the_shape_of_the_input_and_is_zero_at_first(size, colours, settings):
    x = pictures(2, colours, size)
    net = network(size, colours, **settings)
    assert torch.equal(net(x, C[:2]), torch.zeros_like(x))
    y = randomise(net)(x, C[:2])
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_a_patch_of_the_output_comes_from_its_own_token():
    """Without blocks that mix them, each patch of the output depends on that patch of the input alone."""
    net, x = randomise(network(depth=1, patch=4, colours=2)), pictures(1, 2, 8).requires_grad_()
    for gate in (net.blocks[0].gates.weight, net.blocks[0].gates.bias):
        nn.init.zeros_(gate)
    (gradient,) = torch.autograd.grad(net(x, C[:1])[0, 1, 4:, :4].sum(), x)
    inside = torch.zeros(2, 8, 8, dtype=torch.bool)
    inside[:, 4:, :4] = True
    assert torch.equal(gradient[0] != 0, inside)


def test_every_pixel_sees_the_whole_picture():
    net, x = randomise(network()), X[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, C[:1])[0, 0, 0, 0], x)
    assert (gradient != 0).all()


def test_patches_are_told_apart_by_their_place():
    """Exchanging two patches of the input does not merely exchange them in the output."""
    net, swapped = randomise(network(patch=4)), X.roll(4, dims=3)
    assert (net(swapped, C) - net(X, C).roll(4, dims=3)).abs().max() > 1e-3


def test_time_matters():
    net = randomise(network())
    assert (net(X, C) - net(X, C + 0.5)).flatten(1).norm(dim=1).min() > 1e-3


def test_labels_matter_to_a_conditional_network_alone():
    conditional, unconditional = randomise(network(classes=3)), randomise(network())
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    assert (conditional(X, C, zeros) - conditional(X, C, ones)).flatten(1).norm(dim=1).min() > 1e-3
    assert torch.equal(unconditional(X, C, zeros), unconditional(X, C, ones))


def test_samples_of_a_batch_do_not_see_each_other():
    net = randomise(network(double_norm=True))
    apart = torch.cat([net(X[i : i + 1], C[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(X, C), apart, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_alone():
    net = randomise(network(dropout=0.5))
    assert not torch.equal(net(X, C), net(X, C))
    net.eval()
    assert torch.equal(net(X, C), net(X, C))


@pytest.mark.parametrize("double_norm", [False, True])
def test_gradients_reach_every_parameter_once_the_zeros_are_left(double_norm):
    """The output layer moves first, then the gates, then all the rest."""
    net = network(classes=2, double_norm=double_norm)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (net(X, C, torch.tensor([0, 1, 0, 1])) - X).square().mean().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def tokens():
    random = torch.Generator().manual_seed(2)
    return torch.randn(2, 9, 16, generator=random), torch.randn(2, 16, generator=random)


@pytest.mark.parametrize("double_norm", [False, True])
def test_block_is_the_identity_at_first(double_norm):
    x, emb = tokens()
    assert torch.equal(Block(16, 2, 32, 0.0, double_norm)(x, emb), x)


@pytest.mark.parametrize("double_norm", [False, True])
def test_block_is_its_formula(double_norm):
    """Peebles & Xie 2023, figure 3; with double norms s and b over their own root mean squares."""
    block, (x, emb) = randomise(Block(16, 2, 32, 0.0, double_norm)), tokens()

    def conditioned(h, affine):
        scale, shift = (emb @ affine.weight.T + affine.bias).chunk(2, dim=1)
        scale = 1 + scale
        if double_norm:
            scale, shift = (a / a.square().mean(dim=1, keepdim=True).sqrt() for a in (scale, shift))
        return layer_norm(h, (16,), eps=1e-6) * scale[:, None] + shift[:, None]

    gate_0, gate_1 = (emb @ block.gates.weight.T + block.gates.bias)[:, None].chunk(2, dim=2)
    q, k, v = block.qkv(conditioned(x, block.affine_0)).chunk(3, dim=2)
    heads = [attention(*(a[:, None, :, 8 * i : 8 * i + 8] for a in (q, k, v)))[:, 0] for i in range(2)]
    h = x + gate_0 * block.proj(torch.cat(heads, dim=2))
    hidden = gelu(block.mlp[0](conditioned(h, block.affine_1)), approximate="tanh")
    torch.testing.assert_close(block(x, emb), h + gate_1 * block.mlp[3](hidden), rtol=1e-4, atol=1e-5)


def test_positions_are_sines_and_cosines_of_row_and_column():
    got = position_embedding(3, 5, 8)
    assert len(got) == 15
    for row in range(3):
        for column in range(5):
            omega = torch.tensor([1.0, 0.01])
            parts = [f(place * omega) for place in (row, column) for f in (torch.sin, torch.cos)]
            torch.testing.assert_close(got[5 * row + column], torch.cat(parts))


def test_positions_are_no_weights():
    net = network()
    assert "positions" not in net.state_dict()
    assert "positions" not in dict(net.named_parameters())


def test_points_are_refused():
    with pytest.raises(UsageError, match=r"network\.kind: found 'dit' for data of shape \[2\].*'mlp'"):
        Network(Config(), (2,), 0)


@pytest.mark.parametrize(("shape", "patch"), [((1, 8, 6), 2), ((3, 4, 12), 4), ((1, 5, 3), 1)])
def test_pictures_need_not_be_square(shape, patch):
    net = randomise(Network(Config(width=16, depth=1, heads=2, patch=patch), shape, 0))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = net(x, C[:2])
    assert y.shape == x.shape
    (gradient,) = torch.autograd.grad(y[0, 0, -1, -1], x)
    assert (gradient[0] != 0).all()


def test_a_pixel_of_a_wide_picture_comes_from_its_own_token():
    net = randomise(Network(Config(width=16, depth=1, heads=2, patch=2), (1, 4, 8), 0))
    for gate in (net.blocks[0].gates.weight, net.blocks[0].gates.bias):
        nn.init.zeros_(gate)
    x = torch.randn(1, 1, 4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, C[:1])[0, 0, 3, 5], x)
    inside = torch.zeros(1, 4, 8, dtype=torch.bool)
    inside[:, 2:, 4:6] = True
    assert torch.equal(gradient[0] != 0, inside)


def test_a_patch_must_divide_both_sides():
    with pytest.raises(UsageError, match=r"found 4 for pictures of 8x6 pixels, allowed: a divisor, \[1, 2\]"):
        Network(Config(patch=4), (1, 8, 6), 0)


def test_patches_that_do_not_fill_the_picture_are_refused():
    with pytest.raises(
        UsageError, match=r"network\.patch: found 3 for pictures of 8 pixels, allowed:.* \[1, 2, 4, 8\]"
    ):
        network(8, patch=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 16, "heads": 3}, "heads: found 3, allowed: a divisor of width 16"),
        ({"width": 18}, "multiple of 4"),
        ({"patch": 0}, "greater than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)
