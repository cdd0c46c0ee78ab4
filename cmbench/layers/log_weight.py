"""w_phi(t), the logarithm of the weight that continuous-time objectives learn together with F_theta."""

from torch import Tensor, nn

from cmbench.layers.embedding import Positional


class LogWeight(nn.Module):
    """One linear layer on a positional embedding of t. It starts at zero, so every weight starts at one.

    At the optimum of the loss e^w / D ||.||^2 - w the weighted loss is the same at every time (Lu & Song 2024,
    section 4.2; Karras et al. 2024, section 2.3 and equation 21). `optimizer.weight_decay` pulls w away from the
    optimum, to zero.

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
