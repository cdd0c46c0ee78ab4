"""DDPM++ and NCSN++ (Song et al. 2021, appendix H) in the form of EDM (Karras et al. 2022, appendix F).

The two differ in their settings alone, which `ddpmpp.py` and `ncsnpp.py` hold.
"""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from cmbench.config import Channels
from cmbench.layers.embedding import add_times, each_time, more_times, time_embedding
from cmbench.layers.norm import ScaleShift
from cmbench.networks._levels import levels_of
from cmbench.networks._pictures import pictures
from cmbench.networks._residual import Style, group_norm
from cmbench.networks._settings import AttentionHeights, Depth, Multipliers, Published, Width
from cmbench.networks._trunk import Encoder, Trunk, augment_vector, class_vector

_EPS = 1e-6  # of the group norms
_EMBEDDED = 4  # length of the embedding over width
_NEARLY_ZERO = 1e-5
# Gains of the uniform first weights (Glorot & Bengio 2010), by a layer's name, where they are not 1.
_GAINS = {"conv1": _NEARLY_ZERO, "proj": _NEARLY_ZERO, "aux_conv": _NEARLY_ZERO, "qkv": math.sqrt(0.2)}


class Song(Published):
    """[network] of DDPM++ and NCSN++. The defaults are those of DDPM++ on CIFAR-10."""

    width: Width = 128
    multipliers: Multipliers = (2, 2, 2)
    depth: Depth = 4
    attention: AttentionHeights = (16,)
    heads: Channels = Field(1, description="heads of each attention, a divisor of width")
    embedding_channels: Channels = Field(1, description="size of the time embedding over width")
    encoder: Encoder = Field(
        "standard", description="whether smaller pictures enter the encoder: standard, not; skip or residual, how"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> "Song":
        if self.width % self.heads:
            raise ValueError(f"heads: found {self.heads}, allowed: a divisor of width {self.width}")
        return self


class SongNetwork(Trunk):
    """F_theta(x, c_noise, labels, augment_labels) for x (B, C, H, W) whose sides the levels halve evenly.

    `double_norm` replaces the shift before each block's second norm by a normalised scale and shift after it (Lu & Song
    2024, section 4.1); with it, Lu & Song train this network.

    Attributes:
        augment_labels: how many labels of the data's augmentation it takes; 0 for none.

    Raises:
        UsageError: the data are not pictures, or the levels do not fit their size.
    """

    kind = "ddpmpp"

    def __init__(self, config: Song, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        colours, size = pictures(self.kind, shape)
        levels = levels_of(size, config.width, config.multipliers, config.attention)
        embedded, channels = _EMBEDDED * config.width, config.embedding_channels * config.width
        style = Style(
            embedded=embedded,
            dropout=config.dropout,
            heads=lambda _: config.heads,
            taps=config.resampling,
            eps=_EPS,
            skip_scale=math.sqrt(0.5),
            adaptive=False,
            double_norm=config.double_norm,
            projects=True,
        )
        super().__init__(colours, config.width, levels, config.depth, style, config.encoder)
        self.classes, self.label_dropout, self.augment_labels = classes, config.label_dropout, config.augment_labels
        embedding = config.embedding, channels, config.embedding_scale
        self.time = time_embedding(*embedding)
        self.map_label = nn.Linear(classes, channels) if classes else None
        self.map_augment = nn.Linear(config.augment_labels, channels, bias=False) if config.augment_labels else None
        self.map_layer0, self.map_layer1 = nn.Linear(channels, embedded), nn.Linear(embedded, embedded)
        self.more_times = more_times(times, *embedding, embedded)
        self.last = levels[0].name
        self.dec[f"{self.last}_aux_norm"] = group_norm(levels[0].channels, _EPS)
        self.dec[f"{self.last}_aux_conv"] = nn.Conv2d(levels[0].channels, colours, 3, padding=1)
        _initialise(self)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,) or (B, times), labels (B,) -> (B, C, H, W).

        augment_labels (B, augment_labels), None for pictures as they are.
        """
        h = self.through(x, self._embedded(c_noise, labels, augment_labels))
        return self.dec[f"{self.last}_aux_conv"](silu(self.dec[f"{self.last}_aux_norm"](h)))

    def _embedded(self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        first, *others = each_time(c_noise)
        cos, sin = self.time(first).chunk(2, dim=1)
        emb = torch.cat([sin, cos], dim=1)  # the order of the published weights
        if self.map_label is not None:
            dropped = self.label_dropout if self.training else 0.0
            emb = emb + self.map_label(math.sqrt(self.classes) * class_vector(labels, self.classes, emb, dropped))
        if self.map_augment is not None:
            emb = emb + self.map_augment(augment_vector(augment_labels, self.augment_labels, emb))
        emb = silu(add_times(self.map_layer0(emb), others, self.more_times))
        return silu(self.map_layer1(emb))


def _initialise(network: nn.Module) -> None:
    """Draw the first weights: uniform with gains by the layer's name, biases zero. F_theta is nearly zero at first."""
    for name, layer in network.named_modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        own = name.rpartition(".")[2]
        nn.init.xavier_uniform_(layer.weight, _GAINS.get("aux_conv" if own.endswith("aux_conv") else own, 1.0))
        if layer.bias is not None and not isinstance(layer, ScaleShift):  # which begins at a scale of one
            nn.init.zeros_(layer.bias)
