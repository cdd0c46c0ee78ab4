"""Training in a notebook: a few lines, and nothing on disk."""

from pathlib import Path

import torch

from cmbench.engine import loop, trainer

RECIPE = Path(__file__).parents[1] / "recipes" / "ct_edm_ring.toml"


def test_ten_lines_train_and_sample(home):
    overrides = ["train.steps=40", "train.batch_size=32", "network.width=32", "log.every=10", "evaluate.n=32"]
    built = trainer.from_file(RECIPE, [*overrides, "train.device=cpu"])
    losses = {}
    for event in loop.train(built):
        if isinstance(event, loop.Metrics):
            losses[event.step] = event.values["loss"]
    samples = built.sample(n=50, steps=1)

    assert list(losses) == [10, 20, 30, 40]
    assert all(loss > 0 for loss in losses.values())
    assert samples.shape == (50, 2)
    assert samples.isfinite().all()
    assert torch.equal(samples, built.sample(n=50, steps=1))
    assert not torch.equal(samples, built.sample(n=50, steps=2))
    assert built.state.step == 40
    assert {path.name for path in home.iterdir()} == {"tiny.toml"}


def test_training_approaches_the_closed_form(home):
    """A denoiser that is trained on the ring comes nearer to the ring's own."""
    overrides = ["objective={kind='denoise', P_mean=-0.7, P_std=0.8}", "train.steps=300", "train.batch_size=64"]
    overrides += ["network={kind='mlp', width=64, depth=2, embedding_channels=16}", "optimizer.kind=adam"]
    overrides += ["optimizer.lr=0.01", "evaluate.every=0", "snapshot.every=0", "ema.lengths=[]", "train.device=cpu"]
    built = trainer.from_file(RECIPE, overrides)
    sigma = torch.full((500,), 0.3)
    x_t = built.data.held_out(500) + 0.3 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    closed = built.data.oracle().denoise(x_t, sigma)

    def distance() -> float:
        return float((built.state.model.denoise(x_t, sigma) - closed).square().mean().detach())

    before = distance()
    for _ in loop.train(built):
        pass
    assert distance() < 0.6 * before
