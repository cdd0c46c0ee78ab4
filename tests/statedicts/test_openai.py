"""OpenAI's U-Net: its file becomes an `adm` of the same function, against the network written apart from its structure.

The structure is that of Dhariwal & Nichol 2021, section 3 and appendix A, as released (openai/guided-diffusion and
openai/consistency_models, unet.py): `resblock_updown` and `use_scale_shift_norm`, heads of a fixed size.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from cmbench.engine import importing
from cmbench.engine.weights_file import Asked, read, trained
from cmbench.errors import UsageError
from cmbench.recipe import check_tables

WIDTH, EMBEDDED, CLASSES, HEAD = 128, 512, 3, 64
CPU = torch.device("cpu")
CHANNELS = (128, 256)  # of the levels, of which the second attends
NETWORK = {"kind": "adm", "width": WIDTH, "multipliers": [1, 2], "depth": 1, "attention": [4], "head_channels": HEAD}
SIZES = {8: 0, 4: 1}


class Theirs:
    """F_theta(x, timesteps, labels) as a function of a state dict with OpenAI's names."""

    def __init__(self, order, flat):
        self.order, self.flat, self.w = order, flat, {}
        torch.manual_seed(0)
        self.linear("time_embed.0", WIDTH, EMBEDDED)
        self.linear("time_embed.2", EMBEDDED, EMBEDDED)
        self.w["label_emb.weight"] = torch.randn(CLASSES, EMBEDDED)
        self.linear("input_blocks.0.0", 3, CHANNELS[0], 3)
        self.residual("input_blocks.1.0", 128, 128)
        self.residual("input_blocks.2.0", 128, 128)  # to half the size
        self.residual("input_blocks.3.0", 128, 256)
        self.attention("input_blocks.3.1", 256)
        self.residual("middle_block.0", 256, 256)
        self.attention("middle_block.1", 256)
        self.residual("middle_block.2", 256, 256)
        self.residual("output_blocks.0.0", 256 + 256, 256)
        self.attention("output_blocks.0.1", 256)
        self.residual("output_blocks.1.0", 256 + 128, 256)
        self.attention("output_blocks.1.1", 256)
        self.residual("output_blocks.1.2", 256, 256)  # to twice the size
        self.residual("output_blocks.2.0", 256 + 128, 128)
        self.residual("output_blocks.3.0", 128 + 128, 128)
        self.norm("out.0", 128)
        self.linear("out.2", 128, 3, 3)

    def linear(self, name, c_in, c_out, *kernel):
        sides = (c_out, c_in, *(kernel * (2 if kernel == (3,) else 1)))
        self.w[f"{name}.weight"] = torch.randn(sides) * 0.7 / math.sqrt(math.prod(sides[1:]))
        self.w[f"{name}.bias"] = 0.2 * torch.randn(c_out)

    def norm(self, name, c):
        self.w[f"{name}.weight"], self.w[f"{name}.bias"] = 1 + 0.2 * torch.randn(c), 0.2 * torch.randn(c)

    def residual(self, name, c_in, c_out):
        self.norm(f"{name}.in_layers.0", c_in)
        self.linear(f"{name}.in_layers.2", c_in, c_out, 3)
        self.linear(f"{name}.emb_layers.1", EMBEDDED, 2 * c_out)
        self.norm(f"{name}.out_layers.0", c_out)
        self.linear(f"{name}.out_layers.3", c_out, c_out, 3)
        if c_in != c_out:
            self.linear(f"{name}.skip_connection", c_in, c_out, 1, 1)

    def attention(self, name, c):
        side = (1,) if self.flat else (1, 1)
        self.norm(f"{name}.norm", c)
        self.linear(f"{name}.qkv", c, 3 * c, *side)
        self.linear(f"{name}.proj_out", c, c, *side)

    def at(self, name):
        return self.w[f"{name}.weight"], self.w[f"{name}.bias"]

    def normed(self, name, h):
        """32 groups, whatever the channels."""
        B, C, *sides = h.shape
        grouped = h.reshape(B, 32, -1)
        mean, var = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
        h = ((grouped - mean) / (var + 1e-5).sqrt()).reshape(B, C, *sides)
        weight, bias = (own.reshape(1, C, *[1] * len(sides)) for own in self.at(name))
        return h * weight + bias

    def block(self, name, x, emb, size=None):
        h = F.silu(self.normed(f"{name}.in_layers.0", x))
        if size == "half":
            h, x = (a.unflatten(3, (-1, 2)).mean(4).unflatten(2, (-1, 2)).mean(3) for a in (h, x))
        if size == "twice":
            h, x = (a.repeat_interleave(2, 2).repeat_interleave(2, 3) for a in (h, x))
        h = F.conv2d(h, *self.at(f"{name}.in_layers.2"), padding=1)
        scale, shift = F.linear(F.silu(emb), *self.at(f"{name}.emb_layers.1"))[:, :, None, None].chunk(2, 1)
        h = self.normed(f"{name}.out_layers.0", h) * (1 + scale) + shift
        h = F.conv2d(F.silu(h), *self.at(f"{name}.out_layers.3"), padding=1)
        if f"{name}.skip_connection.weight" in self.w:
            x = F.conv2d(x, *self.at(f"{name}.skip_connection"))
        return x + h

    def attend(self, name, x):
        C = x.shape[1]
        weight, bias = self.at(f"{name}.qkv")
        three = torch.einsum("oc,bct->bot", weight.flatten(1), self.normed(f"{name}.norm", x).flatten(2))
        three = three + bias[:, None]
        parts = []
        for head in range(C // HEAD):
            if self.order == "by_head":  # each head's q, k and v together
                q, k, v = three[:, 3 * head * HEAD : 3 * (head + 1) * HEAD].chunk(3, 1)
            else:  # all of q, then of k, then of v
                q, k, v = (three[:, i * C + head * HEAD : i * C + (head + 1) * HEAD] for i in range(3))
            share = (torch.einsum("bct,bcs->bts", q, k) / math.sqrt(HEAD)).softmax(-1)
            parts.append(torch.einsum("bts,bcs->bct", share, v))
        weight, bias = self.at(f"{name}.proj_out")
        out = torch.einsum("oc,bct->bot", weight.flatten(1), torch.cat(parts, 1)) + bias[:, None]
        return x + out.reshape(x.shape)

    def __call__(self, x, timesteps, labels):
        half = torch.arange(WIDTH // 2, dtype=x.dtype) / (WIDTH // 2)
        angle = timesteps[:, None] * torch.exp(-math.log(10_000) * half)
        emb = F.linear(torch.cat([angle.cos(), angle.sin()], 1), *self.at("time_embed.0"))
        emb = F.linear(F.silu(emb), *self.at("time_embed.2")) + self.w["label_emb.weight"][labels]
        hs = [F.conv2d(x, *self.at("input_blocks.0.0"), padding=1)]
        hs.append(self.block("input_blocks.1.0", hs[-1], emb))
        hs.append(self.block("input_blocks.2.0", hs[-1], emb, "half"))
        hs.append(self.attend("input_blocks.3.1", self.block("input_blocks.3.0", hs[-1], emb)))
        h = self.attend("middle_block.1", self.block("middle_block.0", hs[-1], emb))
        h = self.block("middle_block.2", h, emb)
        for i in range(4):
            h = self.block(f"output_blocks.{i}.0", torch.cat([h, hs.pop()], 1), emb)
            if i < 2:
                h = self.attend(f"output_blocks.{i}.1", h)
            if i == 1:
                h = self.block("output_blocks.1.2", h, emb, "twice")
        return F.conv2d(F.silu(self.normed("out.0", h)), *self.at("out.2"), padding=1)


def recipe(**network):
    data = {"kind": "none", "shape": [3, 8, 8], "classes": CLASSES}
    own = {**NETWORK, "class_conditional": True, "qkv": "whole", **network}
    tables = {"name": "x", "data": data, "network": own, "objective": {"kind": "denoise"}}
    tables["path"] = {"c_noise": "log_1000"}
    return importing.neutral(check_tables(tables, "x"), "x", "x")


def network_of(path, **network):
    whole, shape = recipe(**network), (3, 8, 8)
    return trained(read(Asked(path), whole, shape, CLASSES), whole, shape, CLASSES, CPU).model


@pytest.mark.parametrize("prefix", ["", "module.", "ema.model."])
@pytest.mark.parametrize(("order", "flat"), [("by_head", True), ("whole", False)])
def test_openais_file_is_an_adm_of_the_same_function(tmp_path, order, flat, prefix):
    """guided-diffusion's attention has q, k, v by head, and convolutions of one side; consistency_models' neither."""
    theirs = Theirs(order, flat)
    torch.save({prefix + name: tensor for name, tensor in theirs.w.items()}, tmp_path / "x.pt")
    model = network_of(tmp_path / "x.pt", qkv=order).double()
    theirs.w = {name: tensor.double() for name, tensor in theirs.w.items()}
    sigma, labels = torch.tensor([0.02, 0.5, 40.0], dtype=torch.float64), torch.tensor([2, 0, 1])
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    s = sigma[:, None, None, None]
    total = s.square() + 0.25
    with torch.no_grad():
        wanted = theirs(x / total.sqrt(), 1000 * 0.25 * sigma.log(), labels)
        wanted = 0.25 / total * x + 0.5 * s / total.sqrt() * wanted
        found = model.on_edm_path().denoise(x, sigma, labels)
        other = network_of(tmp_path / "x.pt", qkv="whole" if order == "by_head" else "by_head").double()
        wrong = other.on_edm_path().denoise(x, sigma, labels)
    size = wanted.abs().max()
    assert (found - wanted).abs().max() < 1e-4 * size  # the frequencies of time have float32's precision
    assert (wrong - wanted).abs().max() > 1e-2 * size


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"qkv": "by_channel"}, "network.qkv: found 'by_channel', allowed for OpenAI's names: 'by_head'"),
        ({"resampling": [1, 3, 3, 1]}, "network.resampling: found [1, 3, 3, 1], allowed for OpenAI's names: [1, 1]"),
        ({"double_norm": True}, "network.double_norm: found true"),
        ({"width": 64}, "network.width: found levels of 64 channels, allowed for OpenAI's names: at least 128"),
        ({"depth": 2}, "its tensors do not fit the network: "),
        ({"class_conditional": False}, "1 unexpected (label_emb.weight)"),
    ],
)
def test_what_would_be_another_function_is_refused(tmp_path, network, says):
    torch.save(Theirs("whole", False).w, tmp_path / "x.pt")
    with pytest.raises(UsageError) as told:
        network_of(tmp_path / "x.pt", **network)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_network_that_resamples_by_convolutions_alone_is_refused(tmp_path):
    w = Theirs("whole", False).w
    w = {name: tensor for name, tensor in w.items() if not name.startswith("input_blocks.2.0")}
    w["input_blocks.2.0.op.weight"], w["input_blocks.2.0.op.bias"] = torch.ones(128, 128, 3, 3), torch.ones(128)
    torch.save(w, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"do not fit the network: .* missing \(enc.4x4_down"):
        network_of(tmp_path / "x.pt")


def test_a_network_that_adds_the_embedding_is_refused(tmp_path):
    """Without use_scale_shift_norm, as LSUN's, its layer gives one number a channel."""
    w = Theirs("whole", False).w
    w = {name: t[: len(t) // 2] if "emb_layers" in name else t for name, t in w.items()}
    torch.save(w, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"of another shape \(enc.8x8_block0.affine.weight \[128, 512\] there"):
        network_of(tmp_path / "x.pt")
