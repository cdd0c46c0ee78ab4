"""Keys that mean the same in several networks, and what the recipes of DDPM++, NCSN++ and ADM have in common."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from cmbench.config import Channels, Fraction, Ints, Layers, Positive
from cmbench.config import Config as BaseConfig
from cmbench.layers.embedding import TimeEmbedding

_LARGEST_MULTIPLIER = 64
_FILTERS = ((1, 1), (1, 3, 3, 1))


def _multipliers(found: tuple[int, ...]) -> tuple[int, ...]:
    if not found or not all(1 <= m <= _LARGEST_MULTIPLIER for m in found):
        raise PydanticCustomError(
            "multipliers", "Input should be one or more integers from 1 to {most}", {"most": _LARGEST_MULTIPLIER}
        )
    return found


Width = Annotated[
    Channels, Field(ge=4, multiple_of=4, description="channels of the levels over their multipliers, a multiple of 4")
]
Multipliers = Annotated[
    Ints,
    AfterValidator(_multipliers),
    Field(description="channels of each level over width; each level halves the size"),
]
Depth = Annotated[Layers, Field(description="residual blocks of each level")]
AttentionHeights = Annotated[Ints, Field(description="picture heights (pixels) at which blocks attend, e.g. [16, 8]")]
Resampling = Annotated[Ints, Field(description="filter of each change of size: [1, 1] or [1, 3, 3, 1]")]


class Published(BaseConfig):
    """The keys that mean the same in each of these networks."""

    idle = {"label_dropout": ("class_conditional", (False,))}  # noqa: RUF012

    width: Width
    multipliers: Multipliers
    depth: Depth
    attention: AttentionHeights
    resampling: Resampling = (1, 1)
    double_norm: bool = Field(False, description="scale and shift each norm by normalised vectors (ADN)")
    embedding: TimeEmbedding = Field("positional", description="time embedding: positional or fourier")
    embedding_scale: Positive = Field(1.0, description="factor on the embedding's frequencies")
    dropout: Fraction = Field(0.0, description="share of a block's channels-times-pixels dropped in training")
    class_conditional: bool = Field(False, description="give the network the labels")
    label_dropout: Fraction = Field(0.0, description="share of the labels that training leaves out")
    augment_labels: int = Field(0, ge=0, le=64, description="how many numbers tell of data.augment; 0: none")

    @model_validator(mode="after")
    def _makes_a_network(self) -> "Published":
        if self.resampling not in _FILTERS:
            allowed = " or ".join(str(list(taps)) for taps in _FILTERS)
            raise ValueError(f"resampling: found {list(self.resampling)}, allowed: {allowed}")
        return self
