"""Draw samples from a model. The latents depend only on the seed (drawn on the CPU, equal on every device)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cmbench.engine.ranks import Ranks
from cmbench.equations import sampling, timesteps
from cmbench.model import Model
from cmbench.randomness import Part, StepRandom

_AT_ONCE = 1024


def draw(
    model: Model,
    sampler: str,
    n: int,
    sigmas: Sequence[float],
    seed: int = 0,
    labels: Tensor | None = None,
    ranks: Ranks | None = None,
) -> Tensor:
    """Return n samples (n, *shape).

    Args:
        model: on any path; samples are drawn on the EDM path, which is the same up to scale and clock.
        sampler: "consistency" (one evaluation of f for each sigma), "ode" (Heun steps of D down the sigmas) or
            "average_velocity" (one step of u from each sigma to the next, the last to zero).
        n: number of samples.
        sigmas: descending noise levels; the first scales the latents.
        seed: of the latents and of the noise between steps.
        labels: (n,), for a conditional model.
        ranks: which share the samples out, and all get them; all must draw.
    """
    ranks = ranks or Ranks()
    device = next(model.parameters()).device
    generator = StepRandom(torch.device("cpu"), seed, 0).generator("renoise")
    z = latents(model.shape, n, seed).to(device)
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, n, _AT_ONCE):
        chunk = slice(start, start + _AT_ONCE)
        at, own = z[chunk], None if labels is None else labels[chunk].to(device)

        def rows(part: Part | None, at: Tensor = at, own: Tensor | None = own) -> Tensor:
            of = part.rows if part else slice(None)
            return _draw_chunk(model, sampler, at[of], sigmas, generator, None if own is None else own[of], part)

        parts.append(ranks.shared(len(at), rows))
    model.train(was_training)
    return torch.cat(parts)


def draw_numbered(
    model: Model, sampler: str, numbers: Sequence[int], sigmas: Sequence[float], seed: int, labels: Tensor | None
) -> Tensor:
    """Return the samples of these numbers, (b, *shape): all that is drawn for one follows from the seed and its number.

    So it does not matter how many are drawn, and which beside it. They are other samples than those of `draw`. Only
    the arithmetic of a device may round otherwise in a batch of another size.

    Args:
        model: in evaluation mode.
        sampler: as for `draw`.
        numbers: of the samples, from 0.
        sigmas: as for `draw`.
        seed: of all noise.
        labels: (b,), for a conditional model.
    """
    device, cpu = next(model.parameters()).device, torch.device("cpu")
    generators = [StepRandom(cpu, seed, k).generator("numbered") for k in numbers]

    def noise() -> Tensor:
        return torch.stack([torch.randn(model.shape, generator=each) for each in generators]).to(device)

    return _draw_chunk(model, sampler, noise(), sigmas, noise, None if labels is None else labels.to(device))


def latents(shape: tuple[int, ...], n: int, seed: int) -> Tensor:
    """Return the n latents of a seed, eps ~ N(0, I), on the CPU. (n, *shape)."""
    return torch.randn(n, *shape, generator=StepRandom(torch.device("cpu"), seed, 0).generator("latents"))


def _draw_chunk(
    model: Model,
    sampler: str,
    latents: Tensor,
    sigmas: Sequence[float],
    generator: torch.Generator | Callable[[], Tensor],
    labels: Tensor | None,
    part: Part | None = None,
) -> Tensor:
    if sampler == "average_velocity":
        times = [model.time(torch.tensor([sigma], device=latents.device)) for sigma in sigmas]
        return sampling.average_velocity(lambda x, t, r: model.F(x, t, labels, r), latents, times, model.path)
    f = model.on_edm_path()
    if sampler == "ode":
        return sampling.heun_ode(lambda x, sigma: f.denoise(x, sigma, labels), latents, sigmas)
    epsilon = model.parameterisation.epsilon
    f_of = lambda x, sigma: f(x, sigma, labels)  # noqa: E731
    return sampling.multistep_consistency(f_of, latents, sigmas, epsilon, generator, part)


def default_sigmas(
    model: Model, sampler: str, steps: int, lowest: float | None = None, mid: float = 0.0
) -> list[float]:
    """Return the noise levels of a sampler with that many steps.

    Args:
        model: the model.
        sampler: as in `draw`.
        steps: at least 1.
        lowest: the lowest noise level that was trained; None for the model's sigma_min.
        mid: the second noise level when a consistency function is sampled in two steps; 0 takes the Karras grid's.
            No level below `lowest` is used: the model is not trained there.
    """
    lowest = model.sigma_min if lowest is None else lowest
    if sampler == "ode":
        return timesteps.karras_grid(max(2, steps), lowest, model.sigma_max).flip(0).tolist()[:steps]
    if sampler == "average_velocity":
        return sampling.even_sigmas(steps, model.sigma_max, model.path)
    if steps == 2 and mid:
        return [model.sigma_max, max(mid, lowest)]
    return sampling.consistency_sigmas(steps, lowest, model.sigma_max)


def round_robin_labels(n: int, classes: int) -> Tensor:
    """Return 0, 1, ..., classes - 1, 0, 1, ... (n,): a fixed set of labels for a conditional model."""
    return torch.arange(n) % classes
