"""A multilayer perceptron for points."""

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from cmbench.config import Channels, Fraction, Layers, Positive
from cmbench.config import Config as BaseConfig
from cmbench.errors import UsageError
from cmbench.layers.embedding import TimeEmbedding, add_times, each_time, more_times, time_embedding


class Config(BaseConfig):
    """[network] kind = "mlp"."""

    width: Channels = Field(256, description="units of each hidden layer")
    depth: Layers = Field(3, description="hidden layers")
    embedding: TimeEmbedding = Field("positional", description="time embedding: positional or fourier")
    embedding_channels: Channels = Field(64, ge=2, multiple_of=2, description="size of the time embedding, even")
    embedding_scale: Positive = Field(1.0, description="factor on the embedding's frequencies")
    dropout: Fraction = Field(0.0, description="share of hidden units dropped in training")
    class_conditional: bool = Field(False, description="give the network the labels")


class Network(nn.Module):
    """F_theta(x, c_noise, labels) for x (B, d).

    x and the embedding of each time pass through their own linear layers, whose outputs are added. Concatenated, the
    embedding would drown out x.

    Raises:
        UsageError: the data are not points.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        super().__init__()
        if len(shape) != 1:
            raise UsageError(
                f"network.kind: found 'mlp' for data of shape {list(shape)}, allowed for pictures: 'unet', 'dit'"
            )
        (dimensions,) = shape
        self.input = nn.Linear(dimensions, config.width)
        embedding = config.embedding, config.embedding_channels, config.embedding_scale
        self.time = time_embedding(*embedding)
        self.time_linear = nn.Linear(config.embedding_channels, config.width)
        self.label = nn.Embedding(classes, config.width) if classes else None
        self.hidden = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth - 1))
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.output = nn.Linear(config.width, dimensions)
        self.more_times = more_times(times, *embedding, config.width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, d), c_noise (B,) or (B, times), labels (B,) -> (B, d)."""
        first, *others = each_time(c_noise)
        h = add_times(self.input(x) + self.time_linear(self.time(first)), others, self.more_times)
        if self.label is not None and labels is not None:
            h = h + self.label(labels)
        h = self.dropout(silu(h))
        for layer in self.hidden:
            h = layer(h)  # on its own line, which frees the tangent of the previous h before silu
            h = self.dropout(silu(h))
        return self.output(h)
