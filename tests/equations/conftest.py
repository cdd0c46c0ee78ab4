import pytest
import torch

from cmbench.equations.gaussian_path import EDM, VP, Linear, TrigFlow

PATHS = {"edm": EDM(), "vp": VP(), "trigflow": TrigFlow(0.5), "trigflow_unit": TrigFlow(1.0), "linear": Linear()}
TIMES = {
    "edm": [0.002, 0.1, 0.7, 5.0, 80.0],
    "vp": [0.01, 0.1, 0.4, 0.7, 0.99],
    "trigflow": [0.01, 0.2, 0.8, 1.1, 1.55],
    "trigflow_unit": [0.01, 0.2, 0.8, 1.1, 1.55],
    "linear": [0.01, 0.2, 0.5, 0.8, 0.98],
}


@pytest.fixture(params=PATHS)
def name(request):
    return request.param


@pytest.fixture
def path(name):
    return PATHS[name]


@pytest.fixture
def t(name):
    """Times of the path, (5,) float64."""
    return torch.tensor(TIMES[name], dtype=torch.float64)
