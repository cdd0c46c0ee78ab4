"""Requirements on a network: the boundary, a bounded time embedding, one dropout mask, no memory of past batches."""

import copy

import torch
from torch import Tensor

from cmbench.engine.doctor import probe
from cmbench.engine.doctor.check import Check, first_line
from cmbench.engine.doctor.probe import Points
from cmbench.engine.trainer import Trainer
from cmbench.equations.gaussian_path import like
from cmbench.equations.tangent import Method
from cmbench.layers.embedding import embeddings_of
from cmbench.model import Model
from cmbench.randomness import StepRandom

_LEVELS = 1024  # noise levels at which the embedding is checked
_SAME_MASK = 1e-2  # relative error of the derivative in float64; another mask makes it of order 1
_ROUNDING = 1e-5  # of f(x, epsilon) - x relative to the largest x, if the path's clock rounds the time of epsilon


def checks(built: Trainer, model: Model, at: Points) -> list[Check]:
    """Return the findings about a model, from `probe.copied`, at some points."""
    at = at.few()
    return [
        embedding_check(model),
        boundary_check(model, at),
        *_dropout(built, model, at),
        _statistics(model),
        _buffers(model, at),
    ]


def steepness(model: Model) -> tuple[float, float] | None:
    """Return the largest |d emb / dt| cos t sin t over TrigFlow's t: the rms over channels, and the L2 norm.

    On any path this is |d emb / d ln n|, with n the noise level. With two times it is that of the steeper embedding;
    the second time, t - r, moves as t does. None if the network does not name its embedding modules. The bound of 1 on
    the rms puts Lu & Song 2024, section 4.1, into a number: their positional embedding of t has .09, Fourier features
    of scale 16 of ln(n) / 4 about 18.
    """
    n = torch.logspace(0, 1, _LEVELS, dtype=torch.float64)  # from 1 to 10, stretched to the model's range
    n = model.sigma_min * (model.sigma_max / model.sigma_min) ** torch.log10(n)
    t = model.path.t_of_noise_level(n)
    rates = [model.parameterisation.dc_noise(t), torch.ones_like(t)]
    zero, found = torch.zeros(1, device=next(model.parameters()).device), []
    for embedding, rate in zip(embeddings_of(model.F_theta), rates, strict=False):
        L2 = (rate * probe.log_unit(model.path, t)).abs().max().item() * embedding.derivative_norm()
        found.append((L2 / embedding(zero).shape[1] ** 0.5, L2))
    return max(found, default=None)


def embedding_check(model: Model) -> Check:
    """Return whether the embedding of the time is too steep for a tangent."""
    steep = steepness(model)
    if steep is None:
        found = "not looked at: the network has no attribute `time` with a derivative_norm()"
        return Check("embedding", "-", found)
    rms, L2 = steep
    of_both = "of both times " if model.times == 2 else ""
    found = f"|d emb/dt| cos t sin t {of_both}at most {rms:.3g} (rms over channels; L2 {L2:.3g}); 1 allowed"
    values = {"rms": rms, "L2": L2}
    if rms <= 1:
        return Check("embedding", "ok", found, values=values)
    return Check("embedding", "warn", found, "network.embedding = 'positional', a smaller embedding_scale", values)


@torch.no_grad()
def boundary_check(model: Model, at: Points) -> Check:
    """Check whether f(x, epsilon) = x to the last bit, or to rounding."""
    p = model.parameterisation
    t = model.time(torch.full_like(at.t, p.epsilon))
    x = at.x_0 + p.epsilon * at.eps
    name = f"f(x, {p.epsilon:g}) = x"
    c_skip, c_out, _ = p.of_f(t)
    f = model(like(p.path.s(t), x) * x, t, at.labels)
    if not torch.isfinite(f).all() and not (c_out.any() or (c_skip != 1).any()):
        found = f"{name}: c_skip = 1 and c_out = 0; F itself has no value there (c_noise = '{p.noise}')"
        return Check("boundary", "ok", found, values={"error": 0.0})
    error = (f - x).abs().max().item()
    if error <= _ROUNDING * x.abs().max().item():
        exactly = "exactly" if error == 0 else f"to rounding ({error:.0e}): the path's clock rounds the time"
        return Check("boundary", "ok", f"{name} {exactly}", values={"error": error})
    return Check(
        "boundary", "fail", f"{name} is off by {error:.2g}", "the parameterisation is not that of f", {"error": error}
    )


def _dropout(built: Trainer, model: Model, at: Points) -> list[Check]:
    """Check whether all passes of a step use one mask: the two branches, and the value and its derivative."""
    random = StepRandom(built.device, built.recipe.seed, 0)
    model.train()
    try:
        (first, drew), (second, _) = _pass(model, at, random), _pass(model, at, random)
        if not torch.equal(first, second):
            advice = "draw only from torch's default generator; otherwise student and target differ by more than time"
            return [Check("dropout", "fail", "two passes of one step differ", advice)]
        if not drew:
            return [Check("dropout", "ok", "none: a pass in training mode draws no random numbers")]
        return [Check("dropout", "ok", "one mask for student and target"), _derivative_mask(built, model, at, random)]
    finally:
        model.eval()
        model.last_F = None


@torch.no_grad()
def _pass(model: Model, at: Points, random: StepRandom) -> tuple[Tensor, bool]:
    """Return F under the mask of a step, and whether the pass drew random numbers."""
    x_t = model.path.x_t(at.x_0, at.eps, at.t)
    with random.dropout():
        before = _state(random.device)
        F = model.F(x_t, at.t, at.labels)
        return F, not torch.equal(before, _state(random.device))


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _derivative_mask(built: Trainer, model: Model, at: Points, random: StepRandom) -> Check:
    """Compare value and derivative of one call, in float64, with passes under the same mask."""
    double, there, own = probe.in_float64(model).train(), at.double(), probe.method_of(built)
    other: Method = "jvp" if own == "finite_difference" else "finite_difference"
    try:
        with random.dropout():
            F, dF = probe.value_and_derivative(built, double, there, own)
        with random.dropout():
            alone, difference = probe.value_and_derivative(built, double, there, other)
    except (NotImplementedError, RuntimeError) as reason:
        return Check("dropout mask", "-", f"of the derivative: not compared ({first_line(reason)})")
    error = float((dF - difference).norm() / difference.norm())
    if torch.equal(F, alone) and error <= _SAME_MASK:
        return Check("dropout mask", "ok", "one mask for the value and its derivative", values={"error": error})
    found = f"value and derivative have different masks (they differ by {error:.1e})"
    return Check("dropout mask", "fail", found, "another objective.tangent_method", {"error": error})


def _statistics(model: Model) -> Check:
    """Name modules whose output depends on the rest of the batch or on earlier batches."""
    names = [
        f"{name.removeprefix('F_theta.')} ({type(module).__name__})"
        for name, module in model.named_modules()
        if getattr(module, "running_mean", None) is not None or isinstance(module, torch.nn.modules.batchnorm._NormBase)
    ]
    if not names:
        return Check("batch norm", "ok", "none: no sample depends on the others")
    advice = "a group or layer norm: the passes of student and target disturb each other's running statistics"
    return Check("batch norm", "warn", _some(names), advice, {"modules": names})


@torch.no_grad()
def _buffers(model: Model, at: Points) -> Check:
    """Name the buffers that one pass in training mode changes."""
    used = copy.deepcopy(model).train()
    used.F(used.path.x_t(at.x_0, at.eps, at.t), at.t, at.labels)
    before = dict(model.named_buffers())
    names = [n.removeprefix("F_theta.") for n, b in used.named_buffers() if n not in before or not b.equal(before[n])]
    if not names:
        return Check("buffers", "ok", "a pass in training mode changes none")
    advice = "the passes of target, derivative and student all change them; averages of the weights copy the last"
    return Check("buffers", "warn", f"changed by a pass: {_some(names)}", advice, {"buffers": names})


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
