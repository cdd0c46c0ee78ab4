"""DDPM++, the U-Net of EDM's results on CIFAR-10 (Song et al. 2021, appendix H; Karras et al. 2022, appendix F).

Positional time embedding, pictures averaged and repeated between sizes.
"""

from cmbench.networks._song import Song, SongNetwork


class Config(Song):
    """[network] kind = "ddpmpp"."""


class Network(SongNetwork):
    """See SongNetwork."""

    kind = "ddpmpp"
