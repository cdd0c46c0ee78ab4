"""w_phi(t), the logarithm of the weight that continuous-time objectives learn beside F_theta."""

from torch import Tensor, nn

from cmbench.layers.embedding import Positional


class LogWeight(nn.Module):
    """One linear layer on a positional embedding of t, zero at first, so that every weight starts at one.

    The loss e^w / D ||.||^2 - w has its optimum where the weighted loss is the same at every time (Lu & Song 2024,
    section 4.2; Karras et al. 2024, section 2.3 and equation 21). `optimizer.weight_decay` draws w away from
    it, to zero.

    Args:
        channels: size of the embedding, even.
        scale: factor on the embedding's frequencies.
    """

    def __init__(self, channels: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        self.time = Positional(channels, scale)
        self.linear = nn.Linear(channels, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """Return w_phi. t (B,) -> (B,)."""
        return self.linear(self.time(t)).squeeze(1)
