"""NCSN++, the U-Net of the first consistency models (Song et al. 2021, appendix H; Karras et al. 2022, appendix F).

Fourier time embedding, a smoother filter between sizes, and a second, shallow encoder of the noisy picture.
"""

from pydantic import Field

from cmbench.config import Channels, Positive
from cmbench.layers.embedding import TimeEmbedding
from cmbench.networks._settings import Resampling
from cmbench.networks._song import Song, SongNetwork
from cmbench.networks._trunk import Encoder


class Config(Song):
    """[network] kind = "ncsnpp"."""

    resampling: Resampling = (1, 3, 3, 1)
    embedding: TimeEmbedding = Field("fourier", description="time embedding: positional or fourier")
    embedding_scale: Positive = Field(16.0, description="factor on the embedding's frequencies")
    embedding_channels: Channels = Field(2, description="size of the time embedding over width")
    encoder: Encoder = Field(
        "residual", description="whether smaller pictures enter the encoder: standard, not; skip or residual, how"
    )


class Network(SongNetwork):
    """See SongNetwork."""

    kind = "ncsnpp"
