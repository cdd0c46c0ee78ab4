"""The magnitude-preserving U-Net against one written apart, from names and formulas alone."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from cmbench.errors import UsageError
from cmbench.layers.magnitude import mp_layers
from cmbench.networks.edm2 import Block, Config, Network

SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1, "attention": (4,), "head_channels": 8}
X = torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
C, LABELS = torch.tensor([-1.3, 0.1, 1.0], dtype=torch.float64), torch.tensor([2, 0, 1])


def network(shape=(2, 8, 8), classes=0, times=1, **settings):
    """A network in double precision with gains that are not zero."""
    torch.manual_seed(0)
    net = Network(Config(**{**SMALL, **settings}), shape, classes, times).double()
    for parameter in net.parameters():
        if parameter.ndim == 0:
            nn.init.uniform_(parameter, 0.3, 0.9)
    return net


# The same network, written apart


def unit(a, dim):
    """Return a over its root mean square along some dimensions."""
    return a / (a.square().mean(dim, keepdim=True).sqrt() + 1e-4)


def layer(state, name, h, gain=1.0):
    w = state[f"{name}.weight"]
    w = unit(w.flatten(1), 1).view_as(w) * gain / w[0].numel() ** 0.5
    return h @ w.T if w.ndim == 2 else functional.conv2d(h, w, padding="same")


def silu(h):
    return h * h.sigmoid() / 0.596


def mixed(a, b, share):
    return (a + share * (b - a)) / (share**2 + (1 - share) ** 2) ** 0.5


def heads_of(state, name, c, head):
    return c // head if f"{name}.attn_qkv.weight" in state else 0


def block(state, name, h, emb, encodes, head=8, double_norm=False):
    if encodes:
        if f"{name}.conv_skip.weight" in state:
            h = layer(state, f"{name}.conv_skip", h)
        h = unit(h, 1)
    y = layer(state, f"{name}.conv_res0", silu(h))
    gain = state[f"{name}.emb_gain"]
    if double_norm:
        scale, shift = layer(state, f"{name}.emb_linear", emb).chunk(2, dim=1)
        scale = 1 + gain * scale
        scale, shift = (a / (a.square().mean(1, keepdim=True) + 1e-8).sqrt() for a in (scale, shift))
        y = (unit(y, 1) * scale[..., None, None] + shift[..., None, None]) / math.sqrt(2)
    else:
        y = y * (1 + gain * layer(state, f"{name}.emb_linear", emb))[..., None, None]
    y = layer(state, f"{name}.conv_res1", silu(y))
    if not encodes and f"{name}.conv_skip.weight" in state:
        h = layer(state, f"{name}.conv_skip", h)
    h = mixed(h, y, 0.3)
    if heads := heads_of(state, name, h.shape[1], head):
        qkv = layer(state, f"{name}.attn_qkv", h)
        out = torch.empty_like(h)
        for i in range(heads):
            d = h.shape[1] // heads
            own = qkv[:, 3 * d * i : 3 * d * (i + 1)].unflatten(1, (d, 3)).flatten(3)
            q, k, v = (unit(own[:, :, j], 1) for j in range(3))
            weights = torch.einsum("bcp,bcr->bpr", q, k).div(d**0.5).exp()
            weights = weights / weights.sum(2, keepdim=True)
            out[:, d * i : d * (i + 1)] = torch.einsum("bpr,bcr->bcp", weights, v).view_as(out[:, :d])
        h = mixed(h, layer(state, f"{name}.attn_proj", out), 0.3)
    return h.clip(-256, 256)


def reference(state, x, c, labels=None, levels=("8x8", "4x4"), depth=1, **more):
    state = {name.removeprefix("unet."): value for name, value in state.items()}
    features = math.sqrt(2) * torch.cos(c[:, None] * state["emb_fourier.freqs"] + state["emb_fourier.phases"])
    emb = layer(state, "emb_noise", features)
    if "emb_label.weight" in state:
        classes = state["emb_label.weight"].shape[1]
        one_hot = torch.zeros(len(x), classes).to(x)
        if labels is not None:
            one_hot[torch.arange(len(x)), labels] = classes**0.5
        emb = mixed(emb, layer(state, "emb_label", one_hot), 0.5)
    emb = silu(emb)
    h = layer(state, f"enc.{levels[0]}_conv", torch.cat([x, torch.ones(len(x), 1, *x.shape[2:]).to(x)], 1))
    skips = [h]
    for i, size in enumerate(levels):
        if i:
            h = h.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
            h = block(state, f"enc.{size}_down", h, emb, True, **more)
            skips.append(h)
        for j in range(depth):
            h = block(state, f"enc.{size}_block{j}", h, emb, True, **more)
            skips.append(h)
    for j in range(2):
        h = block(state, f"dec.{levels[-1]}_in{j}", h, emb, False, **more)
    for i, size in reversed(list(enumerate(levels))):
        if i < len(levels) - 1:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = block(state, f"dec.{size}_up", h, emb, False, **more)
        for j in range(depth + 1):
            skip = skips.pop()
            both = (h.shape[1] + skip.shape[1]) / 2
            h = torch.cat([h * (both / h.shape[1]) ** 0.5, skip * (both / skip.shape[1]) ** 0.5], 1)
            h = block(state, f"dec.{size}_block{j}", h, emb, False, **more)
    return layer(state, "out_conv", h, state["out_gain"])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("labels", [LABELS, None])
def test_network_is_the_one_written_apart(classes, labels):
    net = network(classes=classes)
    found = net(X, C, labels)
    torch.testing.assert_close(found, reference(net.state_dict(), X, C, labels), rtol=1e-10, atol=1e-10)
    assert found.square().mean() > 0.1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"depth": 2, "attention": (8, 4)}, {"depth": 2}),
        ({"head_channels": 4}, {"head": 4}),
        ({"attention": (), "head_channels": 64}, {}),
        ({"double_norm": True}, {"double_norm": True}),
    ],
)
def test_network_of_other_settings_is_too(settings, told):
    net = network(**settings)
    torch.testing.assert_close(net(X, C), reference(net.state_dict(), X, C, **told), rtol=1e-10, atol=1e-10)


def test_pictures_need_not_be_square():
    net, x = network((2, 8, 12)), torch.randn(3, 2, 8, 12, dtype=torch.float64)
    assert "unet.enc.8x12_conv.weight" in net.state_dict()
    expected = reference(net.state_dict(), x, C, levels=("8x12", "4x6"))
    torch.testing.assert_close(net(x, C), expected, rtol=1e-10, atol=1e-10)


def test_a_second_time_joins_the_first_at_unit_size():
    net, state = network(times=2), network(times=2).state_dict()
    first, second = C, 0.5 * C
    features = [
        math.sqrt(2) * torch.cos(c[:, None] * state[f"unet.{place}.freqs"] + state[f"unet.{place}.phases"])
        for c, place in ((first, "emb_fourier"), (second, "more_times.0.0"))
    ]
    a, b = layer(state, "unet.emb_noise", features[0]), layer(state, "unet.more_times.0.1", features[1])
    expected = silu((a + b) / math.sqrt(2))
    torch.testing.assert_close(net.unet.embedded(torch.stack([first, second], dim=1), None), expected)


# Sizes and names


def test_names_of_tensors_are_the_published_ones():
    names = set(network(classes=3).state_dict())
    assert {
        "unet.emb_fourier.freqs",
        "unet.emb_label.weight",
        "unet.enc.8x8_conv.weight",
        "unet.enc.4x4_down.conv_res1.weight",
        "unet.enc.4x4_block0.attn_qkv.weight",
        "unet.dec.4x4_in1.emb_gain",
        "unet.dec.8x8_up.emb_linear.weight",
        "unet.dec.8x8_block1.conv_skip.weight",
        "unet.out_gain",
        "logvar_fourier.phases",
        "logvar_linear.weight",
    } <= names


def test_edm2_s_has_the_published_size_and_cost():
    """Karras et al. 2024, table 2: 280 million parameters, 102 billion multiplications and additions.

    torch counts those of layers and attention alone.
    """
    with torch.device("meta"), torch.no_grad():
        net = Network(Config(class_conditional=True), (4, 64, 64), 1000)
        with FlopCounterMode(display=False) as counted:
            net(torch.empty(1, 4, 64, 64), torch.empty(1), torch.zeros(1, dtype=torch.long))
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(280.2, abs=0.05)
    assert counted.get_total_flops() / 2e9 == pytest.approx(101, abs=0.5)


def test_activations_keep_unit_size_through_the_network():
    net, sizes = network((2, 16, 16), width=32, multipliers=(1, 1, 1), depth=3, head_channels=16), []
    for module in net.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda module, args, out: sizes.append(out.square().mean().sqrt().item()))
    with torch.no_grad():
        net(torch.randn(4, 2, 16, 16, dtype=torch.float64), torch.zeros(4))
    assert len(sizes) == 3 * 3 + 2 + 2 + 3 * 4 + 2
    assert 0.5 < min(sizes) <= max(sizes) < 1.5


def test_output_is_zero_at_first():
    torch.manual_seed(0)
    net = Network(Config(**SMALL), (2, 8, 8), 0).double()
    assert torch.equal(net(X, C), torch.zeros_like(X))


def test_attention_stands_in_the_middle_and_at_the_sizes_that_are_asked_for():
    net = network((2, 16, 16), multipliers=(1, 2, 2), depth=2, attention=(8,))
    attending = {name for name, module in net.unet.named_modules() if isinstance(module, Block) and module.heads}
    assert attending == {
        *("enc.8x8_block0", "enc.8x8_block1", "dec.4x4_in0"),  # not in1, whatever sizes are asked for
        *("dec.8x8_block0", "dec.8x8_block1", "dec.8x8_block2"),
    }


@pytest.mark.parametrize(("sizes", "blocks"), [((), 14), ((4,), 8)])
def test_dropout_stands_at_the_sizes_that_are_asked_for(sizes, blocks):
    net = network((2, 8, 8), dropout=0.3, dropout_sizes=sizes, depth=2)
    dropping = [name for name, module in net.unet.named_modules() if isinstance(module, Block) and module.dropout]
    assert len(dropping) == blocks
    assert all("4x4" in name for name in dropping) == bool(sizes)
    assert not torch.equal(net(X, C), net(X, C))
    net.eval()
    assert torch.equal(net(X, C), net(X, C))


def test_gradients_are_those_of_differences():
    net = network(classes=3)
    v = [torch.randn_like(p) for p in net.parameters()]
    net.unet.requires_grad_(True)
    (net(X, C, LABELS) * X).sum().backward()
    slope = sum((p.grad * d).sum() for p, d in zip(net.parameters(), v, strict=True) if p.grad is not None)

    def at(h):
        with torch.no_grad():
            for p, d in zip(net.parameters(), v, strict=True):
                p += h * d
            value = (net(X, C, LABELS) * X).sum()
            for p, d in zip(net.parameters(), v, strict=True):
                p -= h * d
        return value

    torch.testing.assert_close(slope, (at(1e-6) - at(-1e-6)) / 2e-6, rtol=1e-6, atol=0)


def test_every_parameter_but_the_sleeping_head_gets_a_gradient():
    net = network(classes=3)
    (net(X, C, LABELS) * X).sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["logvar_linear.weight"]
    assert not net.logvar_linear.weight.requires_grad


def test_log_variance_is_a_unit_layer_on_features_of_c():
    net = network(log_variance_channels=6)
    w = net.logvar_linear.weight[0]
    features = math.sqrt(2) * torch.cos(C[:, None] * net.logvar_fourier.freqs + net.logvar_fourier.phases)
    expected = features @ w / (w.norm() + 6**0.5 * 1e-4)
    torch.testing.assert_close(net.log_variance(C), expected, rtol=1e-10, atol=0)
    net.train_log_variance()
    net.log_variance(C).sum().backward()
    assert net.logvar_linear.weight.grad.any()


def test_a_step_is_prepared_by_weights_of_unit_size_in_the_same_function():
    net = network(classes=3)
    before = net(X, C, LABELS)
    for made in mp_layers(net):
        made.weight.data *= 2.5
    net.before_step()
    torch.testing.assert_close(net(X, C, LABELS), before, rtol=1e-2, atol=1e-3)
    sizes = torch.stack([made.weight.square().mean().sqrt() for made in mp_layers(net)])
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=1e-3, atol=0)


# Refusals


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((2,), {}, r"network\.kind: found 'edm2' for data of shape \[2\].*'mlp'"),
        ((1, 8, 8), {"dropout": 0.1, "dropout_sizes": (2,)}, r"network\.dropout_sizes: found 2, allowed: the sizes"),
    ],
)
def test_what_makes_no_network_is_refused(shape, settings, message):
    with pytest.raises(UsageError, match=message):
        Network(Config(**{**SMALL, **settings}), shape, 0)


def test_a_network_without_a_head_cannot_train_one():
    with pytest.raises(UsageError, match=r"network\.log_variance_channels: found 0"):
        network(log_variance_channels=0).train_log_variance()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"width": 7}, "multiple of 2"), ({"dropout": 1.0}, "less than 1"), ({"dropout_sizes": [0]}, "from 1 to 65536")],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)
