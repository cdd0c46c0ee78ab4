"""Conditioning of a normalised layer by scale and shift: y = norm(x) * s(t) + b(t)."""

import torch
from torch import Tensor, nn


def pnorm(a: Tensor, eps: float = 1e-8) -> Tensor:
    """Return a / sqrt(mean over channels of a^2 + eps), at least in float32. (B, C, ...) -> the same shape.

    This is pixel normalisation (Karras et al. 2018, section 4.2; eps is theirs). The result has unit root mean square.
    It does not depend on the scale of a, if that is large against sqrt(eps).
    """
    a = a.to(torch.promote_types(a.dtype, torch.float32))  # a mean of squares loses too much in bfloat16
    return a * (a.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class ScaleShift(nn.Linear):
    """The linear layer from the embedding to s and b.

    Single: s = 1 + W_s emb + c_s, b = W_b emb + c_b, the adaptive (group or layer) normalisation of Dhariwal & Nichol
    2021, section 3, and Peebles & Xie 2023, section 3.2. Double: pnorm(s) and pnorm(b) instead, so that no weight can
    make them large. This is adaptive double normalisation (Lu & Song 2024, section 4.1).

    Args:
        embedded: length of the embedding.
        channels: length of s and of b.
        double_norm: whether to normalise s and b.
        constant: whether s and b initially ignore the embedding (AdaLN-Zero).
    """

    def __init__(self, embedded: int, channels: int, double_norm: bool, constant: bool = False) -> None:
        super().__init__(embedded, 2 * channels)
        self.double_norm = double_norm
        if constant:
            nn.init.zeros_(self.weight)
        if constant or double_norm:
            nn.init.zeros_(self.bias)
        if double_norm:
            # The derivative of pnorm is 1 / rms(a), up to 1 / sqrt(eps) = 10,000 where a vanishes, and pnorm(b) has
            # unit size however small b is. So both start at unit size, and the embedding moves them by a part of that.
            # s starts at ones, so pnorm(s) is near 1 as in the single form; b starts at random numbers. Public code
            # starts b at W_b emb alone, where even a small embedding gives a large derivative.
            nn.init.normal_(self.bias[channels:])

    def pair(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        """Return s and b for emb (B, embedded), each (B, channels)."""
        scale, shift = self(emb).chunk(2, dim=1)
        return (pnorm(1 + scale), pnorm(shift)) if self.double_norm else (1 + scale, shift)
