"""ADM, the U-Net of the results on ImageNet (Dhariwal & Nichol 2021, section 3), as EDM has it (Karras et al. 2022)."""

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from cmbench.config import Channels
from cmbench.layers.embedding import add_times, each_time, more_times, time_embedding
from cmbench.networks._levels import check_heads, heads_of, levels_of
from cmbench.networks._pictures import pictures
from cmbench.networks._residual import Block, QkvOrder, Style, group_norm
from cmbench.networks._settings import AttentionHeights, Depth, Multipliers, Published, Width
from cmbench.networks._trunk import Trunk, augment_vector, class_vector

_EPS = 1e-5  # of the group norms
_EMBEDDED = 4  # length of the embedding over width


class Config(Published):
    """[network] kind = "adm". The defaults are those for ImageNet at 64x64."""

    width: Width = 192
    multipliers: Multipliers = (1, 2, 3, 4)
    depth: Depth = 3
    attention: AttentionHeights = (32, 16, 8)
    head_channels: Channels = Field(64, description="channels of each head; fewer channels do not attend")
    qkv: QkvOrder = Field("by_channel", description="order of q, k, v in an attention: by_channel, by_head or whole")


class Network(Trunk):
    """F_theta(x, c_noise, labels, augment_labels) for x (B, C, H, W) whose sides the levels halve evenly.

    Attributes:
        augment_labels: how many labels of the data's augmentation it takes; 0 for none.

    Raises:
        UsageError: the data are not pictures, the levels do not fit their size, or the heads the channels.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        colours, size = pictures("adm", shape)
        levels = levels_of(size, config.width, config.multipliers, config.attention)
        check_heads(config.head_channels, levels)
        embedded, width = _EMBEDDED * config.width, config.width
        style = Style(
            embedded=embedded,
            dropout=config.dropout,
            heads=lambda channels: heads_of(channels, config.head_channels),
            taps=config.resampling,
            eps=_EPS,
            skip_scale=1.0,
            adaptive=True,
            double_norm=config.double_norm,
            projects=False,
            qkv=config.qkv,
        )
        super().__init__(colours, levels[0].channels, levels, config.depth, style, attends_often=True)
        self.classes, self.label_dropout, self.augment_labels = classes, config.label_dropout, config.augment_labels
        embedding = config.embedding, width, config.embedding_scale
        self.time = time_embedding(*embedding, endpoint=False)
        self.map_augment = nn.Linear(config.augment_labels, width, bias=False) if config.augment_labels else None
        self.map_layer0, self.map_layer1 = nn.Linear(width, embedded), nn.Linear(embedded, embedded)
        self.map_label = nn.Linear(classes, embedded, bias=False) if classes else None
        self.more_times = more_times(times, *embedding, embedded)
        self.out_norm = group_norm(levels[0].channels, _EPS)
        self.out_conv = nn.Conv2d(levels[0].channels, colours, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Let each branch and the output begin at zero, and labels at N(0, 1); all else begins as torch has it."""
        blocks = [layer for layer in self.modules() if isinstance(layer, Block)]
        last = [own for block in blocks for own in (block.conv1, *([block.proj] if block.heads else []))]
        zero = [*last, self.out_conv, *([] if self.map_augment is None else [self.map_augment])]
        for parameter in (p for layer in zero for p in layer.parameters()):
            nn.init.zeros_(parameter)
        if self.map_label is not None:
            nn.init.normal_(self.map_label.weight)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,) or (B, times), labels (B,) -> (B, C, H, W).

        augment_labels (B, augment_labels), None for pictures as they are.
        """
        h = self.through(x, self._embedded(c_noise, labels, augment_labels))
        return self.out_conv(silu(self.out_norm(h)))

    def _embedded(self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        first, *others = each_time(c_noise)
        emb = self.time(first)
        if self.map_augment is not None:
            emb = emb + self.map_augment(augment_vector(augment_labels, self.augment_labels, emb))
        emb = self.map_layer1(silu(add_times(self.map_layer0(emb), others, self.more_times)))
        if self.map_label is not None:
            dropped = self.label_dropout if self.training else 0.0
            emb = emb + self.map_label(class_vector(labels, self.classes, emb, dropped))
        return silu(emb)
