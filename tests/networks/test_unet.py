import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import group_norm, silu

from cmbench.errors import UsageError
from cmbench.networks.unet import Attention, Block, Config, Downsample, Network, Upsample


def network(size=8, colours=1, classes=0, **settings):
    torch.manual_seed(0)
    return Network(Config(**{"width": 8, "depth": 1, **settings}), (colours, size, size), classes)


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
        (8, 1, {"multipliers": [1, 2, 2, 2], "attention": [8, 1]}),
        (28, 1, {"multipliers": [1, 2, 3], "attention": [14, 7], "depth": 2}),
        (32, 3, {"multipliers": [2, 1], "attention": [16], "heads": 2, "width": 16}),
        (7, 2, {"multipliers": [3]}),
    ],
)
def test_output_has_the_shape_of_the_input_and_is_zero_at_first(size, colours, settings):
    x = pictures(2, colours, size)
    net = network(size, colours, **settings)
    assert torch.equal(net(x, C[:2]), torch.zeros_like(x))
    y = randomise(net)(x, C[:2])
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_attention_stands_at_the_sizes_that_are_asked_for():
    net, sizes = network(16, multipliers=[1, 1, 1], attention=[16, 4]), []
    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda module, args, out: sizes.append(out.shape[-1]))
    net(pictures(1, 1, 16), C[:1])
    assert sizes == [16] + [4] + [4] * 2 + [4] * 2 + [16] * 2


def test_time_matters():
    net = randomise(network())
    assert (net(X, C) - net(X, C + 0.5)).flatten(1).norm(dim=1).min() > 1e-3


def test_labels_matter_to_a_conditional_network_alone():
    conditional, unconditional = randomise(network(classes=3)), randomise(network())
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    assert (conditional(X, C, zeros) - conditional(X, C, ones)).flatten(1).norm(dim=1).min() > 1e-3
    assert torch.equal(unconditional(X, C, zeros), unconditional(X, C, ones))


def test_samples_of_a_batch_do_not_see_each_other():
    net = randomise(network(attention=[4]))
    apart = torch.cat([net(X[i : i + 1], C[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(X, C), apart, rtol=1e-4, atol=1e-4)


def test_every_pixel_sees_the_whole_picture():
    net, x = randomise(network(attention=[4])), X[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, C[:1])[0, 0, 0, 0], x)
    assert (gradient != 0).all()


def test_dropout_acts_in_training_alone():
    net = randomise(network(dropout=0.5))
    assert not torch.equal(net(X, C), net(X, C))
    net.eval()
    assert torch.equal(net(X, C), net(X, C))


def test_dropout_of_the_recipe_is_in_every_block():
    net = network(dropout=0.3, depth=2)
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    assert len(blocks) == 2 * 2 + 2 + 2 * 3
    assert {block.dropout.p for block in blocks} == {0.3}


@pytest.mark.parametrize(("embedding", "double_norm"), [("positional", False), ("fourier", True)])
def test_gradients_reach_every_parameter_once_the_zeros_are_left(embedding, double_norm):
    """The output layer moves first, then the zero layers of the blocks, then all the rest."""
    net = network(classes=2, attention=[4], embedding=embedding, embedding_scale=0.1, double_norm=double_norm)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (net(X, C, torch.tensor([0, 1, 0, 1])) - X).square().mean().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_points_are_refused():
    with pytest.raises(UsageError, match=r"network\.kind: found 'unet' for data of shape \[2\].*'mlp'"):
        Network(Config(), (2,), 0)


@pytest.mark.parametrize(("size", "levels", "allowed"), [(28, 4, 3), (7, 2, 1), (8, 5, 4)])
def test_sizes_that_cannot_be_halved_are_refused(size, levels, allowed):
    with pytest.raises(UsageError, match=rf"network\.multipliers: found {levels} levels.* at most {allowed} levels"):
        network(size, multipliers=[1] * levels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 16, "heads": 3}, "heads: found 3, allowed: a divisor of width 16"),
        ({"width": 12}, "multiple of 8"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_softmax_attention_over_the_pixels(heads):
    attention, x = randomise(Attention(16, heads)), pictures(3, 16, 4)
    h = group_norm(x, 2, attention.norm.weight, attention.norm.bias)
    qkv = torch.einsum("oc,bcp->bop", attention.qkv.weight[:, :, 0, 0], h.flatten(2)) + attention.qkv.bias[:, None]
    q, k, v = qkv.split(16, dim=1)
    y, d = torch.empty(3, 16, 16), 16 // heads
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        scores = torch.einsum("bcp,bcq->bpq", q[:, own], k[:, own]) / math.sqrt(d)
        weights = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
        y[:, own] = torch.einsum("bpq,bcq->bcp", weights, v[:, own])
    y = torch.einsum("oc,bcp->bop", attention.proj.weight[:, :, 0, 0], y) + attention.proj.bias[:, None]
    torch.testing.assert_close(attention(x), x + y.view_as(x), rtol=1e-4, atol=1e-5)


def test_attention_and_block_are_the_identity_at_first():
    x, emb = pictures(2, 8, 4), torch.ones(2, 5)
    assert torch.equal(Attention(8, 2)(x), x)
    assert torch.equal(Block(8, 8, embedded=5, dropout=0.0, heads=2)(x, emb), x)


def test_block_scales_and_shifts_by_the_embedding_after_its_norm():
    """Dhariwal & Nichol 2021, section 3: y = norm(x) s(t) + b(t), here with s = 1 + what the embedding gives."""
    block = randomise(Block(8, 16, embedded=5, dropout=0.0, heads=0))
    x, emb = pictures(2, 8, 4), torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    h = block.conv_0(silu(group_norm(x, 1, block.norm_0.weight, block.norm_0.bias)))
    affine = emb @ block.affine.weight.T + block.affine.bias
    scale, shift = 1 + affine[:, :16, None, None], affine[:, 16:, None, None]
    h = group_norm(h, 2, block.norm_1.weight, block.norm_1.bias) * scale + shift
    torch.testing.assert_close(block(x, emb), block.skip(x) + block.conv_1(silu(h)))


def test_double_block_scales_and_shifts_by_vectors_of_unit_size():
    """Lu & Song 2024, section 4.1: y = norm(x) pnorm(s(t)) + pnorm(b(t))."""
    block = randomise(Block(8, 16, embedded=5, dropout=0.0, heads=0, double_norm=True))
    x, emb = pictures(2, 8, 4), torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    h = block.conv_0(silu(group_norm(x, 1, block.norm_0.weight, block.norm_0.bias)))
    affine = emb @ block.affine.weight.T + block.affine.bias
    scale, shift = 1 + affine[:, :16], affine[:, 16:]
    scale, shift = (a / a.square().mean(dim=1, keepdim=True).sqrt() for a in (scale, shift))
    h = group_norm(h, 2, block.norm_1.weight, block.norm_1.bias) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(block(x, emb), block.skip(x) + block.conv_1(silu(h)))


@pytest.mark.parametrize("double_norm", [False, True])
def test_norm_of_the_recipe_is_in_every_block(double_norm):
    blocks = [module for module in network(double_norm=double_norm).modules() if isinstance(module, Block)]
    assert {block.affine.double_norm for block in blocks} == {double_norm}


def test_groups_of_a_norm_have_eight_channels():
    for module in network(width=16, multipliers=[1, 3]).modules():
        if isinstance(module, nn.GroupNorm):
            assert module.num_channels == 8 * module.num_groups


def test_upsample_repeats_pixels_before_its_convolution():
    up, x = Upsample(3), pictures(2, 3, 4)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x, torch.ones(2, 1)), up.conv(doubled))


def test_downsample_halves_the_size():
    assert Downsample(3)(pictures(2, 3, 8), torch.ones(2, 1)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(("shape", "levels"), [((1, 8, 6), 2), ((3, 12, 32), 3), ((2, 5, 3), 1), ((1, 64, 4), 3)])
def test_pictures_need_not_be_square(shape, levels):
    net = randomise(Network(Config(width=8, multipliers=[1] * levels, depth=1, attention=[shape[1]]), shape, 0))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = net(x, C[:2])
    assert y.shape == x.shape
    (gradient,) = torch.autograd.grad(y[0, 0, 0, 0], x)
    assert (gradient[0] != 0).all()


def test_pictures_that_are_not_square_attend_by_their_heights():
    net, seen = Network(Config(width=8, multipliers=[1, 1], depth=1, attention=[4]), (1, 8, 16), 0), []
    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape[2:])))
    net(torch.zeros(1, 1, 8, 16), C[:1])
    assert set(seen) == {(4, 8)}


@pytest.mark.parametrize(("shape", "allowed"), [((1, 8, 6), 2), ((1, 6, 8), 2), ((1, 9, 8), 1)])
def test_both_sides_must_halve(shape, allowed):
    with pytest.raises(
        UsageError, match=rf"3 levels for pictures of {shape[1]}x{shape[2]} .* at most {allowed} levels"
    ):
        Network(Config(width=8, multipliers=[1, 1, 1]), shape, 0)
