import pytest
import torch
from torch import nn

from cmbench.equations.gaussian_path import EDM
from cmbench.networks._model import Model
from cmbench.randomness import StepRandom


class Tiny(nn.Module):
    """F = a tanh(b x + c c_noise) (+ d label) in double precision."""

    def __init__(self, a=0.7, b=1.3, c=0.4, d=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([a, b, c, d], dtype=torch.float64))

    def forward(self, x, c_noise, labels):
        a, b, c, d = self.weights
        shift = c * c_noise if labels is None else c * c_noise + d * labels
        return a * torch.tanh(b * x + shift.view(-1, *[1] * (x.ndim - 1)))


@pytest.fixture
def tiny_model():
    """Build a model of one sample's shape around Tiny(*weights)."""

    def build(*weights, shape=(3,), sigma_data=0.5):
        return Model(Tiny(*weights), shape, EDM(), sigma_data, 0.002, 80.0)

    return build


@pytest.fixture
def random():
    return StepRandom(torch.device("cpu"), seed=3, step=5)


@pytest.fixture
def x_0():
    """A batch of 64 samples (64, 3), of standard deviation one half."""
    return 0.5 * torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls():
    """Record the arguments of every forward pass of a module, as (x, t, labels)."""

    def record(module):
        seen = []
        module.register_forward_pre_hook(lambda module, args: seen.append(args))
        return seen

    return record


@pytest.fixture
def dropout_masks():
    """Record what each dropout layer of a module drops."""

    def record(module):
        masks = []
        for layer in module.modules():
            if isinstance(layer, nn.Dropout):
                layer.register_forward_hook(lambda layer, args, out: masks.append((out == 0) & (args[0] != 0)))
        return masks

    return record


@pytest.fixture
def check_gradient():
    """Compare the gradient of a loss in Tiny's first weights with central differences."""

    def check(model, loss, weights=4):
        loss().backward()
        tiny, h = model.F_theta.weights, 1e-6
        for i in range(weights):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    tiny[i] += sign * h
                    values.append(loss().item())
                    tiny[i] -= sign * h
            assert tiny.grad[i].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)

    return check
