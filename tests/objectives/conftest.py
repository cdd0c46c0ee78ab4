import pytest
import torch
from torch import nn
from toy import Tiny

from cmbench.equations import gaussian_path
from cmbench.model import Model
from cmbench.randomness import StepRandom


@pytest.fixture
def tiny_model():
    """Build a model of one sample's shape around Tiny(*weights), in double precision throughout."""

    def build(*weights, shape=(3,), path="edm", sigma_data=0.5, **settings):
        on = gaussian_path.named(path, sigma_data)
        return Model(Tiny(*weights), shape, on, sigma_data, 0.002, 80.0, time_dtype=torch.float64, **settings)

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
    """Record the arguments of every forward pass of a module, as (x, t, labels): first the pass with gradient."""

    def record(module):
        seen = []
        module.register_forward_pre_hook(
            lambda module, args: seen.insert(0 if torch.is_grad_enabled() else len(seen), args)
        )
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
