"""DDPM++, NCSN++ and ADM: their equations written apart, and what was published of them."""

import math

import pytest
import torch
from by_hand import ByHand, doubled, halved
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cmbench.errors import UsageError
from cmbench.forward_mode.dual import value_and_derivative
from cmbench.networks import adm, ddpmpp, ncsnpp
from cmbench.networks._residual import Block, Resample, Style, group_norm
from cmbench.statedicts import names

MODULES = {"ddpmpp": ddpmpp, "ncsnpp": ncsnpp, "adm": adm}
CLOSE = {"rtol": 1e-7, "atol": 1e-7}  # the frequencies of time have the precision of float32
SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1, "attention": (4,)}
CASES = {
    "ddpmpp": ("ddpmpp", {}),
    "ddpmpp of three levels": ("ddpmpp", {"multipliers": (1, 2, 3), "depth": 2, "attention": (8, 4), "heads": 2}),
    "ncsnpp": ("ncsnpp", {}),
    "skip": ("ncsnpp", {"encoder": "skip", "multipliers": (1, 1, 2)}),
    "residual": ("ncsnpp", {"multipliers": (1, 2, 1), "embedding_channels": 3}),
    "smooth ddpmpp": ("ddpmpp", {"resampling": (1, 3, 3, 1)}),
    "adm": ("adm", {}),
    "narrow adm": ("adm", {"head_channels": 64, "attention": ()}),
    "smooth adm": ("adm", {"resampling": (1, 3, 3, 1), "multipliers": (2, 1, 2), "depth": 2, "head_channels": 4}),
}


def config_of(kind, settings):
    heads = {"head_channels": 8} if kind == "adm" else {}
    return MODULES[kind].Config(**{**SMALL, **heads, **settings})


def network(kind, shape=(3, 8, 8), classes=0, times=1, **settings):
    """A network in double precision, every weight moved, so that nothing is hidden behind a layer near zero."""
    torch.manual_seed(0)
    net = MODULES[kind].Network(config_of(kind, settings), shape, classes, times).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return net


def inputs(shape, n=3):
    random = torch.Generator().manual_seed(1)
    draw = {"dtype": torch.float64, "generator": random}
    return torch.randn(n, *shape, **draw), torch.linspace(-1, 1, n, dtype=torch.float64), torch.randn(n, 9, **draw)


def by_hand(net, kind, settings):
    config = config_of(kind, settings)
    per_head = getattr(config, "head_channels", 0)
    heads = (lambda c: c // per_head) if per_head else (lambda c: config.heads)
    encoder = getattr(config, "encoder", "standard")
    return ByHand(net.state_dict(), "adm" if kind == "adm" else "song", config.resampling, encoder, heads)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 16)], ids=["square", "wide"])
@pytest.mark.parametrize("case", CASES)
def test_output_is_that_of_the_equations(case, shape):
    kind, settings = CASES[case]
    shape = (shape[0], *(2 * side for side in shape[1:])) if 8 in settings.get("attention", ()) else shape
    net = network(kind, shape, classes=4, augment_labels=9, **settings)
    x, c, augment = inputs(shape)
    labels = torch.tensor([0, 3, 1])
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    expected, with_labels = by_hand(net, kind, settings), net(x, c, labels, augment)
    torch.testing.assert_close(with_labels, expected(x, c, one_hot, augment), **CLOSE)
    torch.testing.assert_close(net(x, c), expected(x, c, torch.zeros_like(one_hot)), **CLOSE)
    assert (with_labels - net(x, c, labels)).abs().max() > 1e-3
    assert (with_labels - net(x, c, None, augment)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", MODULES)
def test_no_augmentation_is_the_augmentation_with_labels_of_zero(kind):
    net, (x, c, augment) = network(kind, augment_labels=9), inputs((3, 8, 8))
    assert torch.equal(net(x, c), net(x, c, None, torch.zeros_like(augment)))


PUBLISHED = {  # kind, settings, shape, classes: millions of parameters, GFLOP of a forward pass of one picture
    "DDPM++, CIFAR-10": ("ddpmpp", {"augment_labels": 9}, (3, 32, 32), 0, 55.7, 42.4),
    "ADM, ImageNet-64": ("adm", {"class_conditional": True}, (3, 64, 64), 1000, 295.9, 219.3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_and_costs_are_the_published_ones(name):
    """Karras et al. 2022, table 7 (parameters); Karras et al. 2024, table 6 (ADM: 296 M, 219 GFLOP)."""
    kind, settings, shape, classes, millions, giga = PUBLISHED[name]
    with torch.device("meta"):
        net = MODULES[kind].Network(MODULES[kind].Config(**settings), shape, classes)
        x, c, labels = torch.empty(1, *shape), torch.empty(1), torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            net(x, c, labels if classes else None)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions
    assert round(counter.get_total_flops() / 1e9, 1) == giga


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_is_the_filter_and_keeps_what_is_constant(taps):
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    down, up = Resample("down", taps).double(), Resample("up", taps).double()
    torch.testing.assert_close(down(x), halved(x, taps))
    torch.testing.assert_close(up(x), doubled(x, taps))
    inside = (..., slice(1, -1), slice(1, -1))
    ones = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(down(ones)[inside], ones[..., :2, :2])
    torch.testing.assert_close(up(ones)[inside], torch.ones(1, 2, 14, 14, dtype=torch.float64))
    (transposed,) = torch.autograd.grad(down(z := x.clone().requires_grad_()).square().sum() / 2, z)
    torch.testing.assert_close(transposed, up(down(x)) / 4)  # halving and doubling are transposes of each other


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at the first torch.func.jvp
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("double_norm", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_value_and_derivative_in_one_pass_are_those_of_torch_func_jvp(case, double_norm, times):
    """With a rule for every function on the way: one without would warn."""
    kind, settings = CASES[case]
    shape = (3, 16, 16) if 8 in settings.get("attention", ()) else (3, 8, 8)
    settings = {**settings, "double_norm": double_norm, "embedding_scale": 0.5}
    net = network(kind, shape, 4, times, augment_labels=9, **settings)
    x, c, augment = inputs(shape)
    c = c if times == 1 else torch.stack([c, c + 0.3], dim=1)
    v, w = torch.randn_like(x), torch.randn_like(c)

    def function(x, c):
        return net(x, c, torch.tensor([0, 3, 1]), augment)

    y, derivative = value_and_derivative(function, (x, c), (v, w))
    with torch.no_grad():
        y_of_torch, expected = torch.func.jvp(function, (x, c), (v, w))
    torch.testing.assert_close(y, y_of_torch, rtol=1e-9, atol=1e-9 * y_of_torch.abs().max().item())
    torch.testing.assert_close(derivative, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    assert y.requires_grad
    assert not derivative.requires_grad


@pytest.mark.parametrize("kind", MODULES)
def test_double_norm_scales_and_shifts_every_block_by_vectors_of_unit_size(kind):
    """Lu & Song 2024, section 4.1: y = norm(x) pnorm(s(t)) + pnorm(b(t))."""
    net = network(kind, double_norm=True)
    emb = torch.randn(2, net.map_layer1.out_features, dtype=torch.float64)
    for block in (layer for layer in net.modules() if isinstance(layer, Block)):
        c = block.conv0.out_channels
        h = torch.randn(2, c, 4, 4, dtype=torch.float64)
        affine = emb @ block.affine.weight.T + block.affine.bias
        scale, shift = 1 + affine[:, :c], affine[:, c:]
        scale, shift = (a / a.square().mean(dim=1, keepdim=True).sqrt() for a in (scale, shift))
        expected = block.norm1(h) * scale[:, :, None, None] + shift[:, :, None, None]
        torch.testing.assert_close(block._conditioned(h, emb), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp"])
def test_first_weights_of_song_s_networks(kind):
    """Uniform with the variance 2 / (fan_in + fan_out); nearly zero at the end of each branch and of the network."""
    torch.manual_seed(0)
    net = MODULES[kind].Network(MODULES[kind].Config(**{**SMALL, "width": 32}), (3, 8, 8), 4)
    for name, layer in net.named_modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        gain = 1e-5 if name.endswith(("conv1", "proj", "aux_conv")) else 0.2**0.5 if name.endswith("qkv") else 1.0
        fans = sum(layer.weight.shape[:2]) * layer.weight[0, 0].numel()
        expected = gain * (6 / fans) ** 0.5
        assert expected * 0.9 < layer.weight.abs().max().item() <= expected * (1 + 1e-6), name
        assert layer.weight.std().item() == pytest.approx(expected / 3**0.5, rel=0.2), name
        assert not layer.bias.any()
    x, c, _ = (value.float() for value in inputs((3, 8, 8)))
    assert 0 < net(x, c).abs().max() < 1e-3


def test_first_weights_of_adm():
    """Torch's own, but for zeros at the end of each branch and of the network, and labels from N(0, 1)."""
    torch.manual_seed(0)
    net = adm.Network(config_of("adm", {"augment_labels": 9}), (3, 8, 8), 50)
    for name, layer in net.named_modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)) or name == "map_label":
            continue
        if name.endswith(("conv1", "proj", "out_conv", "map_augment")):
            assert not layer.weight.any(), name
        else:
            assert layer.weight.abs().max().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.1), name
    assert net.map_label.weight.std().item() == pytest.approx(1, rel=0.1)
    x, c, _ = (value.float() for value in inputs((3, 8, 8)))
    assert not net(x, c).any()


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (8, 2), (128, 32), (192, 32), (320, 32), (144, 16), (36, 9)])
def test_a_norm_has_32_groups_or_fewer_of_four_channels_and_more(channels, groups):
    assert group_norm(channels, 1e-5).num_groups == groups


@pytest.mark.parametrize("kind", MODULES)
def test_labels_are_dropped_in_training_alone_as_if_there_were_none(kind):
    net, (x, c, _) = network(kind, classes=4, class_conditional=True, label_dropout=0.5), inputs((3, 8, 8), 64)
    labels = torch.arange(64) % 4
    assert torch.equal(net(x, c, labels), net(x, c, labels))
    torch.manual_seed(0)
    found, given, without = net.train()(x, c, labels), net.eval()(x, c, labels), net(x, c)
    dropped, kept = ((found - other).flatten(1).abs().amax(1) < 1e-9 for other in (without, given))
    assert (dropped ^ kept).all()
    assert 16 < dropped.sum() < 48


@pytest.mark.parametrize("kind", MODULES)
def test_samples_of_a_batch_do_not_see_each_other_and_all_pixels_do(kind):
    net, (x, c, _) = network(kind), inputs((3, 8, 8))
    apart = torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, c), apart)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, c)[0, 0, 0, 0], x)
    assert (gradient[0] != 0).all()
    assert not gradient[1:].any()


@pytest.mark.parametrize("kind", MODULES)
def test_dropout_of_the_recipe_is_in_every_block(kind):
    net = network(kind, dropout=0.3)
    assert {block.dropout.p for block in net.modules() if isinstance(block, Block)} == {0.3}
    x, c, _ = inputs((3, 8, 8))
    assert not torch.equal(net.train()(x, c), net(x, c))
    assert torch.equal(net.eval()(x, c), net(x, c))


@pytest.mark.parametrize("kind", MODULES)
def test_gradients_reach_every_parameter(kind):
    net, (x, c, augment) = network(kind, classes=3, augment_labels=9), inputs((3, 8, 8))
    net(x, c, torch.tensor([0, 1, 2]), augment).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", MODULES)
def test_names_are_those_of_published_weights(kind):
    """Names as in the state dicts of NVlabs/edm, here for some layers of each part."""
    net = network(kind, classes=3, augment_labels=9)
    theirs = ["map_label.weight", "map_augment.weight", "map_layer0.bias", "enc.8x8_conv.weight"]
    theirs += ["enc.4x4_down.conv0.weight", "enc.4x4_block0.qkv.weight", "dec.4x4_in0.norm2.bias"]
    theirs += ["out_conv.weight"] if kind == "adm" else ["dec.8x8_aux_norm.weight", "enc.4x4_down.skip.weight"]
    constants = ["enc.4x4_down.conv0.resample_filter", "dec.8x8_up.skip.resample_filter"]
    if kind == "ncsnpp":
        theirs += ["map_noise.freqs", "enc.4x4_aux_residual.weight"]
        constants += ["enc.4x4_aux_residual.resample_filter"]
    ours = names.schemes(kind)[1].ours
    own, buffers = net.state_dict(), dict(net.named_buffers())
    assert [name for name in theirs if ours(name) not in own] == []
    side = torch.tensor(MODULES[kind].Config().resampling, dtype=torch.float64)
    for name in constants:
        assert ours(name) not in own
        torch.testing.assert_close(buffers[ours(name)][0, 0], side.outer(side) / side.sum() ** 2)


def test_the_encoder_s_filter_of_pictures_has_its_published_name():
    net = network("ncsnpp", encoder="skip")
    ours = names.schemes("ncsnpp")[1].ours
    assert ours("enc.4x4_aux_down.resample_filter") in dict(net.named_buffers())


@pytest.mark.parametrize("kind", MODULES)
def test_what_makes_no_network_is_refused(kind):
    module = MODULES[kind]
    with pytest.raises(UsageError, match=rf"network\.kind: found '{kind}' for data of shape \[2\].*'mlp'"):
        network(kind, (2,))
    for settings, message in (
        ({"resampling": (1, 2, 1)}, r"resampling: found \[1, 2, 1\], allowed: \[1, 1\] or \[1, 3, 3, 1\]"),
        ({"width": 6}, "multiple of 4"),
    ):
        with pytest.raises(ValidationError, match=message):
            module.Config(**settings)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValidationError, match="heads: found 3, allowed: a divisor of width 16"):
        ddpmpp.Config(width=16, heads=3)


def test_a_block_without_a_change_begins_as_a_part_of_its_input():
    style = Style(5, 0.0, lambda c: 1, (1, 1), 1e-6, math.sqrt(0.5), False, False, True)
    block, x = Block(8, 8, style, attends=True), torch.randn(2, 8, 4, 4)
    for layer in (block.conv1, block.proj):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    torch.testing.assert_close(block(x, torch.ones(2, 5)), x / 2)
