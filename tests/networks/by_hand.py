"""DDPM++, NCSN++ and ADM as plain functions of a state dict under the published names, written apart from the package.

They follow the descriptions in Song et al. 2021, Dhariwal & Nichol 2021 and Karras et al. 2022, appendix F, walk the
levels by their sizes, attend by explicit sums, and resample by shifted pictures instead of convolutions. They gave the
outputs of the authors' own networks (NVlabs/edm at 008a4e5), for small random weights, to 3e-6 of their size.
"""

import math

import torch
from torch.nn.functional import conv2d, pad, silu


def halved(x, taps, around=True):
    """Filter rows and columns, zeros around them, and keep every second."""
    for dim in (-1, -2):
        beside = (len(taps) // 2 - 1) * around
        x = pad(x, (beside, beside) if dim == -1 else (0, 0, beside, beside))
        count = (x.shape[dim] - len(taps)) // 2 + 1
        picked = [x.narrow(dim, k, x.shape[dim] - len(taps) + 1) for k in range(len(taps))]
        x = sum(tap * own for tap, own in zip(taps, picked, strict=True)) / sum(taps)
        x = x.index_select(dim, 2 * torch.arange(count))
    return x


def doubled(x, taps):
    """Each pixel adds its taps to the larger picture, which the border cuts off."""
    for dim in (-1, -2):
        n, beside = x.shape[dim], len(taps) // 2 - 1
        wide = [*x.shape]
        wide[dim] = 2 * n + 2 * beside
        out = x.new_zeros(wide)
        for k, tap in enumerate(taps):
            out.index_add_(dim, 2 * torch.arange(n) + k, 2 * tap / sum(taps) * x)
        x = out.narrow(dim, beside, 2 * n)
    return x


class ByHand:
    """A network as a function.

    Args:
        w: the weights by their published names.
        kind: "song" or "adm".
        taps: the resampling filter.
        encoder: "standard", "skip" or "residual".
        heads: of an attention over so many channels.
    """

    def __init__(self, w, kind, taps=(1, 1), encoder="standard", heads=lambda channels: 1):
        self.w, self.kind, self.taps, self.encoder, self.heads = w, kind, taps, encoder, heads
        self.eps, self.a = (1e-6, math.sqrt(0.5)) if kind == "song" else (1e-5, 1.0)

    def __call__(self, x, c_noise, one_hot=None, augment=None):
        emb = self.embedded(c_noise, one_hot, augment)
        names = [*dict.fromkeys(".".join(name.split(".")[:2]) for name in self.w)]
        size = "{}x{}".format(*x.shape[2:])
        h = self.conv(f"enc.{size}_conv", x)
        skips, aux = [h], x
        for down, blocks in self.levels(names, "enc", x.shape[2:]):
            if down:
                h = self.block(down, h, emb, lambda y: halved(y, self.taps))
                small = down.removesuffix("_down")
                if self.encoder == "skip":
                    aux = halved(aux, self.taps)
                    h = h + self.conv(f"{small}_aux_skip", aux)
                if self.encoder == "residual":
                    bias = self.w[f"{small}_aux_residual.bias"]
                    wide = conv2d(aux, self.w[f"{small}_aux_residual.weight"], padding=len(self.taps) // 2)
                    h = aux = (h + halved(wide, self.taps, around=False) + bias[:, None, None]) / math.sqrt(2)
                skips.append(h)
            for name in blocks:
                h = self.block(name, h, emb)
                skips.append(h)
        for up, blocks in reversed(self.levels(names, "dec", x.shape[2:])):
            if up:
                h = self.block(up, h, emb, lambda y: doubled(y, self.taps))
            for name in blocks:
                joined = h if name.endswith(("in0", "in1")) else torch.cat([h, skips.pop()], 1)
                h = self.block(name, joined, emb)
        assert not skips
        last = "out" if self.kind == "adm" else f"dec.{size}_aux"
        return self.conv(f"{last}_conv", silu(self.norm(f"{last}_norm", h)))

    @staticmethod
    def levels(names, half, size):
        """The block that changes the size, and the others, of each level, from the largest."""
        found, (H, W) = [], size
        while any(name.startswith(f"{half}.{H}x{W}_") for name in names):
            own = [name for name in names if name.startswith(f"{half}.{H}x{W}_")]
            change = [name for name in own if name.endswith(("_down", "_up"))]
            middle = [name for name in own if name.endswith(("_in0", "_in1"))]
            blocks = sorted((n for n in own if "_block" in n), key=lambda n: int(n.partition("_block")[2]))
            found.append((change[0] if change else None, [*sorted(middle), *blocks]))
            H, W = H // 2, W // 2
        return found

    def embedded(self, c_noise, one_hot, augment):
        width = self.w["map_layer0.weight"].shape[1]
        half = width // 2
        if "time.frequencies" in self.w:
            angles = 2 * math.pi * c_noise[:, None] * self.w["time.frequencies"]
        else:
            last = half - 1 if self.kind == "song" else half
            angles = c_noise[:, None] / 10_000 ** (torch.arange(half, dtype=c_noise.dtype) / last)
        parts = [angles.sin(), angles.cos()] if self.kind == "song" else [angles.cos(), angles.sin()]
        emb = torch.cat(parts, 1)
        if augment is not None:
            emb = emb + augment @ self.w["map_augment.weight"].T
        if self.kind == "adm":
            emb = self.linear("map_layer1", silu(self.linear("map_layer0", emb)))
            return silu(emb if one_hot is None else emb + one_hot @ self.w["map_label.weight"].T)
        if one_hot is not None:
            emb = emb + self.linear("map_label", one_hot * one_hot.shape[1] ** 0.5)
        return silu(self.linear("map_layer1", silu(self.linear("map_layer0", emb))))

    def block(self, name, x, emb, resample=lambda y: y):
        h = self.conv(f"{name}.conv0", resample(silu(self.norm(f"{name}.norm0", x))))
        c = h.shape[1]
        affine = self.linear(f"{name}.affine", emb)[:, :, None, None]
        if affine.shape[1] == c:
            h = self.norm(f"{name}.norm1", h + affine)
        else:
            h = self.norm(f"{name}.norm1", h) * (affine[:, :c] + 1) + affine[:, c:]
        x = resample(x)
        if f"{name}.skip.weight" in self.w:
            x = self.conv(f"{name}.skip", x)
        x = (x + self.conv(f"{name}.conv1", silu(h))) * self.a
        if f"{name}.qkv.weight" not in self.w:
            return x
        return (x + self.conv(f"{name}.proj", self.attended(name, x))) * self.a

    def attended(self, name, x):
        B, C, H, W = x.shape
        d = C // self.heads(C)
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", x)).reshape(B, C, 3, H * W)
        out = torch.empty(B, C, H * W, dtype=x.dtype)
        for first in range(0, C, d):
            q, k, v = (qkv[:, first : first + d, i] for i in range(3))
            scores = torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(d)
            out[:, first : first + d] = torch.einsum("bqk,bck->bcq", scores.softmax(2), v)
        return out.view(B, C, H, W)

    def norm(self, name, x):
        B, C, H, W = x.shape
        g = x.reshape(B, min(32, C // 4), -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, unbiased=False, keepdim=True) + self.eps).sqrt()
        return g.view(B, C, H, W) * self.w[f"{name}.weight"][:, None, None] + self.w[f"{name}.bias"][:, None, None]

    def conv(self, name, x):
        weight = self.w[f"{name}.weight"]
        return conv2d(x, weight, self.w[f"{name}.bias"], padding=weight.shape[2] // 2)

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]
