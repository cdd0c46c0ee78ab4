import torch
from torch import nn

from cmbench.layers.log_weight import LogWeight

C = torch.linspace(-1, 1.5, 6)


def test_log_weight_is_zero_at_first_one_for_each_time():
    assert torch.equal(LogWeight()(C), torch.zeros(6))


def test_log_weight_is_a_linear_layer_on_the_positional_embedding():
    w = LogWeight(channels=8, scale=2.0)
    nn.init.normal_(w.linear.weight, generator=torch.Generator().manual_seed(0))
    nn.init.constant_(w.linear.bias, 0.3)
    omega = 10_000.0 ** -(torch.arange(4) / 3)
    angle = 2.0 * C[:, None] * omega
    expected = torch.cat([angle.cos(), angle.sin()], dim=1) @ w.linear.weight[0] + 0.3
    torch.testing.assert_close(w(C), expected)
    assert {name for name, _ in w.named_parameters()} == {"linear.weight", "linear.bias"}


def test_times_in_double_precision_are_taken():
    assert LogWeight()(C.double()).dtype == torch.float32


def test_log_weight_finds_the_logarithm_of_one_over_the_loss():
    """The minimum of e^w(t) l(t) - w(t) over w is -ln l(t) (Karras et al. 2024, section 2.3)."""
    w = LogWeight(channels=16)
    loss = torch.exp(2 * C)
    optimizer = torch.optim.LBFGS(w.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        objective = (w(C).exp() * loss - w(C)).mean()
        objective.backward()
        return objective

    optimizer.step(closure)
    torch.testing.assert_close(w(C), -2 * C, rtol=0, atol=0.02)
