"""Checks of plug-ins: call `check_objective(Objective, config)` in your own test to check what the engine relies on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cmbench.contracts import HasGroups, HasLowest, HasTimes, Objective, Terms, has
from cmbench.equations import gaussian_path
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.networks import mlp
from cmbench.randomness import Part, StepRandom, forked_seed

_STEP, _STEPS, _B, _SHAPE = 30, 100, 64, (3,)
_ALLOWED = 1e-10  # relative difference of a mean over parts, in float64
_SIGMA_DATA, _SIGMA_MIN, _SIGMA_MAX = 0.5, 0.002, 80.0
# scalings, c_noise and boundary as in the recipes
_CUSTOM: dict[str, tuple[Any, Any, str]] = {
    "edm": ("edm", "log", "sigma_min"),
    "vp": ("edm", "log", "zero"),
    "trigflow": ("trigflow", "identity", "zero"),
    "linear": ("linear", "identity", "zero"),
}


def check_objective(objective: type[Any], config: Any, path: str | None = None) -> None:
    """Check that an objective does what the engine relies on; otherwise raise AssertionError, which says what is wrong.

    The check runs a small perceptron with dropout, in float64, with labels. If the objective takes a teacher, that is
    the closed-form denoiser of N(0, sigma_data^2), or a model if it needs a consistency model.

    - It has the members of `cmbench.contracts.Objective`.
    - Its random numbers depend only on `random`, and it leaves torch's own generators unchanged.
    - All passes of a step draw the same dropout mask.
    - Only `Terms.total` carries a gradient, which reaches every parameter of the network; the rest has shape (B,).
    - In float64 the loss is float64.
    - A non-finite sample affects only its own loss: the loss of a batch is that of its slices together.
    - The times are on the model's path, and within `profile_edges`, which ascend.
    - Rebuilt from its state, it continues identically.
    - For a batch in parts, drawn by `random.draw`, total and gradients are the mean of the parts', weighted by size.

    Args:
        objective: the class.
        config: its settings.
        path: "edm", "vp", "trigflow" or "linear"; by default the first of the objective's paths.
    """
    with forked_seed(0):
        tried = _Tried(objective, config, path or objective.paths[0])
        for check in _CHECKS:
            check(tried)


@dataclass(frozen=True)
class _Tried:
    cls: type[Any]
    config: Any
    path: str

    def build(self, dropout: float = 0.0) -> tuple[Any, Model]:
        """Return the objective and its model, always with the same weights."""
        model = self._model(dropout)
        teacher = None
        if self.cls.teacher == "consistency":
            teacher = _on_edm_path(self._model(0.0))
        elif self.cls.teacher != "none":
            teacher = _Gaussian()
        made = self.cls(self.config, model, teacher, _STEPS)
        for part in made.children():  # like the network; the objective's own buffers keep their dtype
            part.double()
        return made, model.train()

    def _model(self, dropout: float) -> Model:
        scalings, noise, boundary = _CUSTOM[self.path]
        times = self.cls.times if has(self.cls, HasTimes) else 1
        with forked_seed(1):
            network = mlp.Network(mlp.Config(width=16, depth=2, dropout=dropout), _SHAPE, 3, times)
            nn.init.normal_(network.output.weight)
        at = gaussian_path.named(self.path, _SIGMA_DATA)
        about = (_SHAPE, at, _SIGMA_DATA, _SIGMA_MIN, _SIGMA_MAX, "float32", scalings, noise, boundary, times)
        return Model(network.double(), *about, torch.float64)


class _Gaussian:
    """The denoiser of N(0, sigma_data^2): E[x_0 | x] = x sigma_data^2 / (sigma_data^2 + sigma^2)."""

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x]. (B, ...)."""
        return x * (_SIGMA_DATA**2 / (_SIGMA_DATA**2 + sigma**2)).view(-1, *[1] * (x.ndim - 1))


def _on_edm_path(model: Model) -> Any:
    return model.requires_grad_(False).eval().on_edm_path()


def _batch() -> tuple[Tensor, Tensor]:
    x_0 = torch.randn(_B, *_SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return _SIGMA_DATA * x_0, torch.arange(_B) % 3


def _random(step: int = _STEP, seed: int = 0) -> StepRandom:
    return StepRandom(torch.device("cpu"), seed, step)


def _terms(made: Any, model: Model, random: StepRandom | None = None, step: int = _STEP) -> Terms:
    x_0, labels = _batch()
    return made.loss(model, x_0, labels, step, random or _random(step))


def _of_samples(terms: Terms) -> Iterator[tuple[str, Tensor]]:
    for name in ("t", "loss", "weight", "tangent_norm", "r"):
        if (value := getattr(terms, name)) is not None:
            yield name, value
    yield from terms.per_sample.items()


def _is_an_objective(tried: _Tried) -> None:
    made, _ = tried.build()
    members = [name for name in dir(Objective) if not name.startswith("_")] + [*Objective.__annotations__]
    missing = sorted({name for name in members if not hasattr(made, name)})
    assert not missing, f"it lacks {', '.join(missing)}"
    assert all(cost >= 0 for cost in made.forwards.values()), (
        f"forwards: found {dict(made.forwards)}, allowed: 0 or more"
    )
    assert isinstance(made, nn.Module), "it is not an nn.Module"


def _draws_from_random_alone(tried: _Tried) -> None:
    made, model = tried.build(dropout=0.5)
    before = torch.get_rng_state()
    first = _terms(made, model).total.item()
    assert torch.equal(torch.get_rng_state(), before), "it leaves torch's generator changed"
    torch.manual_seed(99)
    assert _terms(made, model).total.item() == first, "with equal `random` its loss differs"
    for other in (_random(seed=1), _random(step=_STEP + 1)):
        assert _terms(made, model, other).total.item() != first, "with another seed or step its loss is the same"


def _draws_one_mask(tried: _Tried) -> None:
    made, model = tried.build(dropout=0.5)
    seen: list[list[Tensor]] = []
    for network in (model, *(own for own in made.modules() if isinstance(own, Model))):
        (layer,) = (own for own in network.modules() if isinstance(own, nn.Dropout))  # called by both hidden layers
        own: list[Tensor] = []
        seen.append(own)
        layer.register_forward_hook(lambda _, given, out, own=own: own.append((out == 0) & (given[0] != 0)))
    _terms(made, model)
    for i in (0, 1):
        masks = [mask for of_network in seen for mask in of_network[i::2] if mask.any()]
        assert masks, "no pass of its network drops anything"
        assert all(torch.equal(mask, masks[0]) for mask in masks), "its passes draw different dropout masks"


def _only_the_total_has_a_gradient(tried: _Tried) -> None:
    made, model = tried.build()
    terms = _terms(made, model)
    assert terms.total.shape == (), f"total has shape {tuple(terms.total.shape)}, allowed: ()"
    assert bool(torch.isfinite(terms.total)), "total is not finite"
    assert terms.total.dtype == torch.float64, f"for float64 samples total is {terms.total.dtype}"
    for name, value in _of_samples(terms):
        assert value.shape == (_B,), f"{name} has shape {tuple(value.shape)}, allowed: ({_B},)"
        assert not value.requires_grad, f"{name} carries a gradient"
        assert bool(value.isfinite().all()), f"{name} is not finite"
    terms.total.backward()
    still = [name for name, p in model.F_theta.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still, f"no gradient reaches {', '.join(still)}"


def _samples_are_apart(tried: _Tried) -> None:
    made, model = tried.build()
    x_0, labels = _batch()
    x_0[7, 1] = torch.nan
    terms = made.loss(model, x_0, labels, _STEP, _random())
    found = terms.loss.isnan().nonzero().flatten().tolist()
    assert found == [7], f"with nan in sample 7 alone, the losses of {found} are nan"
    assert bool(terms.total.isnan()), "a sample with nan does not show in total"


def _times_are_profiled(tried: _Tried) -> None:
    made, model = tried.build()
    t, edges = _terms(made, model).t, made.profile_edges(6)
    assert edges.shape == (7,), f"profile_edges(6) has shape {tuple(edges.shape)}, allowed: (7,)"
    assert bool((edges.diff() > 0).all()), "profile_edges do not ascend"
    lowest = tried.cls.sigma_lowest(tried.config) if has(tried.cls, HasLowest) else 0.0
    low, high = (model.path.noise_level(end) for end in (t.min(), t.max()))
    assert float(low) >= lowest * (1 - 1e-6), f"it trains at noise level {float(low):g}, below {lowest:g}"
    assert bool(high.isfinite()), "a time has no noise level on the path"


def _goes_on_from_its_state(tried: _Tried) -> None:
    def train(made: Any, model: Model, steps: range) -> None:
        for step in steps:
            model.zero_grad()
            made.zero_grad()
            _terms(made, model, step=step).total.backward()
            with torch.no_grad():
                for p in (*model.parameters(), *(p for p in made.parameters() if p.requires_grad)):
                    p -= 0.01 * torch.zeros_like(p) if p.grad is None else 0.01 * p.grad.clamp(-1, 1)
            made.after_step(model, step)

    made, model = tried.build()
    train(made, model, range(10, 14))
    again, copy = tried.build()
    again.load_state_dict(made.state_dict())
    copy.load_state_dict(model.state_dict())
    train(made, model, range(14, 17))
    train(again, copy, range(14, 17))
    alike = zip((*model.parameters(), *made.parameters()), (*copy.parameters(), *again.parameters()), strict=True)
    assert all(torch.equal(a, b) for a, b in alike), "rebuilt from its state it continues differently"
    assert _terms(made, model).scalars == _terms(again, copy).scalars, "rebuilt from its state its scalars differ"


def _is_the_mean_of_its_parts(tried: _Tried) -> None:
    group = tried.cls.group if has(tried.cls, HasGroups) else 1
    cuts = [group * n for n in (1, 6, 8) if group * n < _B]  # uneven parts
    whole, of_whole = _total_and_gradient(tried, [])
    try:
        total, of_parts = _total_and_gradient(tried, cuts)
    except UsageError as error:
        raise AssertionError(f"it cannot take a part of a batch: {error}") from None
    assert _differ(total, whole) <= _ALLOWED, (
        f"its total is not the mean of those of its parts: found {total.item():g}, allowed: {whole.item():g}"
    )
    for name, gradient in of_whole.items():
        assert _differ(of_parts[name], gradient) <= _ALLOWED, (
            f"the gradient of {name} is not the mean of those of the parts of the batch"
        )


def _total_and_gradient(tried: _Tried, cuts: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean total of the parts that the cuts make of a batch, and its gradients by parameter."""
    made, model = tried.build()
    x_0, labels = _batch()
    total = torch.zeros((), dtype=torch.float64)
    for start, stop in pairwise([0, *cuts, _B]):
        part = Part(start, stop, _B)
        random = replace(_random(), part=part) if cuts else _random()
        terms = made.loss(model, x_0[part.rows], labels[part.rows], _STEP, random)
        (part.share * terms.total).backward()
        total += part.share * terms.total.detach()
    named = [*model.named_parameters(), *((f"its own {name}", p) for name, p in made.named_parameters())]
    return total, {name.removeprefix("F_theta."): p.grad for name, p in named if p.grad is not None}


def _differ(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to the largest of the numbers."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300))


_CHECKS: list[Callable[[_Tried], None]] = [
    _is_an_objective,
    _draws_from_random_alone,
    _draws_one_mask,
    _only_the_total_has_a_gradient,
    _samples_are_apart,
    _times_are_profiled,
    _goes_on_from_its_state,
    _is_the_mean_of_its_parts,
]
