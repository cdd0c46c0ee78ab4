"""Networks that set their weights before each step: the loop calls them once a step, before any pass."""

import pytest
import torch

from cmbench.engine import loop, trainer
from cmbench.layers.magnitude import mp_layers
from cmbench.networks import edm2

EDM2 = [
    "data.kind=digits",
    "network={kind='edm2', width=8, multipliers=[1, 2], depth=1, attention=[4], head_channels=8}",
    "optimizer.kind=adam",
    "optimizer.lr=0.05",
    "log.every=100",
    "profile.every=0",
    "snapshot.every=0",
    "evaluate.every=0",
    "checkpoint.every=0",
]


def built(home, *overrides):
    return trainer.from_file(home / "tiny.toml", [*EDM2, *overrides])


def sizes(model):
    """Return the size of each layer's weights."""
    return torch.stack([layer.weight.detach().square().mean().sqrt() for layer in mp_layers(model)])


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective={kind='denoise', log_variance='network'}"],
        ["objective={kind='ct', mu_0=0.9}"],
        ["objective={kind='ect'}", "train.micro_batch_size=3"],
        ["objective={kind='sct'}", "path.kind=trigflow", "network.dropout=0.3"],
        ["objective={kind='cd'}", "teacher.kind=oracle"],
        ["objective={kind='meanflow'}", "path.kind=linear", "path.scalings=linear", "path.c_noise=identity"],
    ],
    ids=["denoise", "target", "micro batches", "derivative", "distilled", "two times"],
)
def test_every_pass_of_a_step_sees_the_same_weights_at_unit_size(home, monkeypatch, overrides):
    seen, steps, own = [], 0, edm2.Network.forward
    made = built(home, "train.steps=4", *overrides)
    student = made.state.model.F_theta

    def forward(network, *arguments):
        if network is student:
            seen.append((made.state.step, [w.detach().clone() for w in network.parameters()], sizes(network)))
        return own(network, *arguments)

    monkeypatch.setattr(edm2.Network, "forward", forward)
    for event in loop.train(made):
        steps += isinstance(event, loop.Stepped)
    assert steps == 4
    for step in range(4):
        passes = [found for found in seen if found[0] == step]
        assert passes
        for _, weights, size in passes:
            assert all(map(torch.equal, weights, passes[0][1]))
            torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-3, atol=0)
    assert (sizes(student) > 1.0002).any()  # the last step has turned them since


def test_the_first_step_of_weights_from_elsewhere_is_prepared_too(home):
    weights = []
    for factor in (1.0, 3.0):
        made = built(home, "train.steps=1")
        with torch.no_grad():
            for layer in mp_layers(made.state.model):
                layer.weight *= factor
        list(loop.train(made))
        weights.append(list(made.state.model.parameters()))
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-3)


def test_averages_are_those_of_the_weights_after_each_step(home):
    """As in NVlabs/edm2: what a step has lengthened is averaged as it is, and used at unit size."""
    made, after = built(home, "train.steps=3", "ema.lengths=[0.5]"), []
    average = [w.clone() for w in made.state.model.parameters()]
    for event in loop.train(made):
        if isinstance(event, loop.Stepped):
            after = [w.detach().clone() for w in made.state.model.parameters()]
            average = [0.5 * (a + b) for a, b in zip(average, after, strict=True)]
    torch.testing.assert_close(list(made.state.averages[0].model.parameters()), average)


def test_the_head_moves_where_it_is_asked_for_alone(home):
    moved = []
    for kind in ("network", "none"):
        made = built(home, "train.steps=3", f"objective={{kind='denoise', log_variance='{kind}'}}")
        head = made.state.model.F_theta.logvar_linear.weight
        made.state.model.F_theta.before_step()
        before = head.detach().clone()
        list(loop.train(made))
        moved.append(not torch.allclose(head, before, atol=1e-3))
    assert moved == [True, False]
