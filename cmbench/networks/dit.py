"""DiT, a transformer for pictures: patches as tokens, blocks conditioned through their norms (Peebles & Xie 2023)."""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from cmbench.config import Channels, Fraction, Layers, Positive
from cmbench.config import Config as BaseConfig
from cmbench.errors import UsageError
from cmbench.layers.attention import attention
from cmbench.layers.embedding import TimeEmbedding, add_times, each_time, more_times, time_embedding
from cmbench.layers.norm import ScaleShift
from cmbench.networks._pictures import measures, pictures


class Config(BaseConfig):
    """[network] kind = "dit"."""

    width: Channels = Field(64, ge=4, multiple_of=4, description="channels of each token, a multiple of 4")
    depth: Layers = Field(4, description="blocks of attention and perceptron")
    heads: Channels = Field(4, description="heads of each attention, a divisor of width")
    patch: Channels = Field(2, description="side of a token's patch in pixels, a divisor of the picture's sides")
    mlp_ratio: Channels = Field(4, description="hidden units of a block's perceptron over width")
    double_norm: bool = Field(False, description="normalise scale and shift of each norm (ADN)")
    embedding: TimeEmbedding = Field("positional", description="time embedding: positional or fourier")
    embedding_scale: Positive = Field(1.0, description="factor on the embedding's frequencies")
    dropout: Fraction = Field(0.0, description="share of the perceptrons' hidden units dropped in training")
    class_conditional: bool = Field(False, description="give the network the labels")

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if self.width % self.heads:
            raise ValueError(f"heads: found {self.heads}, allowed: a divisor of width {self.width}")
        return self


class Network(nn.Module):
    """F_theta(x, c_noise, labels) for x (B, C, H, W), H and W divisible by the patch.

    Raises:
        UsageError: the data are not pictures, or the patch does not divide their sides.
    """

    positions: Tensor

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        super().__init__()
        colours, sides = pictures("dit", shape)
        if any(side % config.patch for side in sides):
            divisors = [n for n in range(1, min(sides) + 1) if not any(side % n for side in sides)]
            found = f"found {config.patch} for pictures of {measures(*sides)} pixels"
            raise UsageError(f"network.patch: {found}, allowed: a divisor, {divisors}")
        width, self.patch = config.width, config.patch
        self.rows, self.columns = (side // config.patch for side in sides)
        embedding = config.embedding, width, config.embedding_scale
        self.time = time_embedding(*embedding)
        self.label = nn.Embedding(classes, width) if classes else None
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.more_times = more_times(times, *embedding, width)
        self.input = nn.Conv2d(colours, width, config.patch, stride=config.patch)
        self.register_buffer("positions", position_embedding(self.rows, self.columns, width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio * width, config.dropout, config.double_norm)
            for _ in range(config.depth)
        )
        self.norm, self.affine = _layer_norm(width), ScaleShift(width, width, config.double_norm, constant=True)
        self.output = _zero(nn.Linear(width, colours * config.patch**2))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,) or (B, times), labels (B,) -> (B, C, H, W)."""
        first, *others = each_time(c_noise)
        emb = self.time(first)
        if self.label is not None and labels is not None:
            emb = emb + self.label(labels)
        emb = self.embed[1:](add_times(self.embed[0](emb), others, self.more_times))
        h = self.input(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            h = block(h, emb)
        patches = self.output(_modulate(self.norm(h), self.affine, emb))  # (B, tokens, C patch patch)
        return pixel_shuffle(patches.transpose(1, 2).unflatten(2, (self.rows, self.columns)), self.patch)


class Block(nn.Module):
    """x + gate attention(norm(x)), then x + gate mlp(norm(x)), with both norms conditioned (see ScaleShift).

    AdaLN-Zero (Peebles & Xie 2023, section 3.2): the gates start at zero, so the block starts as the identity.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, double_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm_0, self.affine_0 = _layer_norm(width), ScaleShift(width, width, double_norm, constant=True)
        self.qkv, self.proj = _xavier(nn.Linear(width, 3 * width)), _xavier(nn.Linear(width, width))
        self.norm_1, self.affine_1 = _layer_norm(width), ScaleShift(width, width, double_norm, constant=True)
        self.mlp = nn.Sequential(
            _xavier(nn.Linear(width, hidden)),
            nn.GELU(approximate="tanh"),
            nn.Dropout(dropout),
            _xavier(nn.Linear(hidden, width)),
        )
        self.gates = _zero(nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, tokens, width), emb (B, width) -> the shape of x."""
        gate_0, gate_1 = self.gates(emb)[:, None].chunk(2, dim=2)
        x = x + gate_0 * self._attend(_modulate(self.norm_0(x), self.affine_0, emb))
        return x + gate_1 * self.mlp(_modulate(self.norm_1(x), self.affine_1, emb))

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, d)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))


def position_embedding(rows: int, columns: int, width: int) -> Tensor:
    """Return the fixed embedding (rows columns, width) of the tokens' rows and then of their columns.

    Each is sines and cosines of the row or column number at width / 4 geometric frequencies from 1 to 1/10000 (Vaswani
    et al. 2017, section 3.5, in two dimensions as in Peebles & Xie 2023, section 3.2).
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (row, column)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()


def _modulate(h: Tensor, affine: ScaleShift, emb: Tensor) -> Tensor:
    scale, shift = affine.pair(emb)
    return h * scale[:, None] + shift[:, None]


def _layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _xavier(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
