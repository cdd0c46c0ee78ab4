"""How a recipe's network compiles: whole graphs, the same numbers, the same masks, and the speed.

The first two checks are for users who compile the network in their own loop. The last is what `train.compile` does.
"""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from cmbench.engine import passes
from cmbench.engine.bench import timing
from cmbench.engine.compiled import Compiled
from cmbench.engine.doctor.check import Check, first_line
from cmbench.engine.doctor.probe import Points
from cmbench.engine.trainer import Trainer
from cmbench.errors import CmbenchError
from cmbench.model import Model, products
from cmbench.randomness import StepRandom

_BACKEND = "inductor"
_ALLOWED = {"float32": 1e-4, "tf32": 2e-2, "bfloat16": 5e-2}  # relative difference: sums change order and fusion
_TIMED = 5


def checks(built: Trainer, model: Model, at: Points) -> list[Check]:
    """Compile F_theta for value and gradient, and again with its forward derivative. This takes about a minute.

    Args:
        built: the recipe.
        model: its model, from `probe.copied`.
        at: the points.
    """
    random = StepRandom(built.device, built.recipe.seed, 0)
    x, c_noise = model.path.x_t(at.x_0, at.eps, at.t), model.c_noise(at.t, at.t / 2 if model.times == 2 else None)
    allowed, network = _ALLOWED[model.arithmetic(built.device)], model.F_theta

    def pass_through(f: Callable) -> tuple[Tensor, ...]:
        with random.dropout(), model.precision(x):
            F = f(x, c_noise, at.labels)
        used = [p for p in network.parameters() if p.requires_grad]
        with products(model.matmul_precision, x.device):
            gradients = torch.autograd.grad(F.float().square().mean(), used, allow_unused=True)
        return F.detach(), torch.cat([g.flatten() for g in gradients if g is not None])

    def derivative(f: Callable) -> tuple[Tensor, ...]:
        with random.dropout(), model.precision(x), torch.no_grad():
            return (f(x, c_noise),)

    def along(x: Tensor, c_noise: Tensor) -> Tensor:
        rates = torch.ones_like(x), torch.ones_like(c_noise)
        return torch.func.jvp(lambda *inputs: network(*inputs, at.labels), (x, c_noise), rates)[1]

    model.train()
    fallback, torch._inductor.config.fallback_random = torch._inductor.config.fallback_random, True
    try:
        return [
            _compared("compile", network, pass_through, allowed, built.device),
            _compared("compiled derivative", along, derivative, allowed, built.device),
            of_step(built, model),
        ]
    finally:
        torch._inductor.config.fallback_random = fallback
        torch.compiler.reset()
        model.eval()


def _compared(
    name: str, f: Callable, run: Callable[[Callable], tuple[Tensor, ...]], allowed: float, device: torch.device
) -> Check:
    """Compare the results and run times of a function and its compiled version.

    Torch's warnings are part of the finding, whether this Python shows, hides or raises warnings.
    """
    try:
        plain = run(f)
    except (NotImplementedError, RuntimeError) as reason:
        return Check(name, "-", f"not looked at: uncompiled it fails too ({first_line(reason)})")
    compiled = torch.compile(f, fullgraph=True, dynamic=False, backend=_BACKEND)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        try:
            difference = max(_relative(a, b) for a, b in zip(run(compiled), plain, strict=True))
        except Exception as reason:  # a compiler may raise anything
            return Check(name, "warn", f"torch.compile fails: {first_line(reason)}", "leave it uncompiled")
        works = {"compiled": lambda: run(compiled), "plain": lambda: run(f)}
        seconds = timing.interleaved(works, lambda done: done < _TIMED, device)
        ratio = timing.ratio(seconds["compiled"], seconds["plain"])
    said = sorted({first_line(warning.message) for warning in warned})
    values = {"error": difference, "allowed": allowed, "seconds_ratio": ratio, "warnings": said}
    found = f"one graph, differs by {difference:.1e} ({allowed:g} allowed), {ratio:.2f} of the time"
    found += "".join(f"; torch warns: {text}" for text in said)
    if difference <= allowed:
        return Check(name, "ok", found, values=values)
    return Check(name, "warn", found, "leave it uncompiled: its numbers or its dropout mask differ", values)


def of_step(built: Trainer, model: Model) -> Check:
    """Compare the gradients of a batch and the seconds of its passes with those that `train.compile` gives.

    Args:
        built: the recipe.
        model: its model, from `probe.copied`.
    """
    allowed = _ALLOWED[model.arithmetic(built.device)]
    state, train, random = copy.copy(built.state), built.recipe.train, StepRandom(built.device, built.recipe.seed, 0)
    state.model = copy.deepcopy(model).train()
    x_0, labels = passes.drawn(built.data, train.batch_size, random)
    used = [p for p in state.model.parameters() if p.requires_grad]

    def run(compiled: Compiled | None) -> tuple[Tensor, ...]:
        state.compiled = compiled
        state.model.zero_grad(set_to_none=True)
        with passes.compiled(state):
            passes.backward(state, x_0, labels if built.conditional else None, random, train.at_once)
        return (torch.cat([p.grad.flatten() for p in used if p.grad is not None]),)

    name, compiled = "train.compile", Compiled()
    (plain,) = run(None)
    try:
        (found,) = run(compiled)
    except CmbenchError as reason:
        return Check(name, "warn", first_line(reason), "leave it false")
    took, _ = compiled.taken()
    works = {"compiled": lambda: run(compiled), "plain": lambda: run(None)}
    seconds = timing.interleaved(works, lambda done: done < _TIMED, built.device)
    difference, ratio = _relative(found, plain), timing.ratio(seconds["compiled"], seconds["plain"])
    values = {"error": difference, "allowed": allowed, "seconds_ratio": ratio, "compiling_s": took}
    told = f"gradients differ by {difference:.1e} ({allowed:g} allowed), {ratio:.2f} of the time"
    told += f"; the first step takes {took:.0f} s more"
    if difference <= allowed:
        return Check(name, "ok", told, values=values)
    return Check(name, "warn", told, "leave it false: its numbers or its dropout mask differ", values)


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
