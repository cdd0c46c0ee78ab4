"""The derivative that continuous-time objectives train on: whether it exists, and how exact it is at each time."""

import traceback
import warnings
from typing import Any

import torch
from torch import Tensor

from cmbench.engine.doctor import probe
from cmbench.engine.doctor.check import Check, Level, first_line
from cmbench.engine.doctor.probe import BINS, Points
from cmbench.engine.trainer import Trainer
from cmbench.equations.tangent import Method
from cmbench.model import Model

_REFERENCES: tuple[Method, ...] = ("jvp", "finite_difference")
_WAYS_OUT: tuple[Method, ...] = ("dual", *_REFERENCES)
_ALLOWED = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 1e-2}  # relative error
_ALLOWED_DIFFERENCE = 1e-2  # for the recipe's own central differences in float32: 2e-4 at best, 6e-3 at the ends of t
_RULES_AGREE = 1e-4  # in float64: rounding alone leaves 1e-9


def checks(built: Trainer, model: Model, at: Points) -> list[Check]:
    """Return whether the network has the derivative that the recipe uses, and its error in each time bin.

    Args:
        built: the recipe.
        model: its model, from `probe.copied`.
        at: the points.
    """
    found, method = _rules(built, model, at)
    if method is None:
        return [found, Check("tangent", "-", "not compared: there is no derivative to compare")]
    return [found, *_errors(built, model, at, method)]


def _rules(built: Trainer, model: Model, at: Points) -> tuple[Check, Method | None]:
    """Take the derivative as training does, in training mode, and collect errors and warnings.

    Returns the finding, and the method whose error can be measured.
    """
    method, kind = probe.method_of(built), built.recipe.objective["kind"]
    needed = probe.needs_tangent(built)
    error, said = _tried(built, model, at, method)
    if error is not None:
        way_out = next((m for m in _WAYS_OUT if m != method and _tried(built, model, at, m)[0] is None), None)
        level: Level = "fail" if needed else "warn"
        use = "" if needed else f"; objective '{kind}' takes none, continuous-time ones do"
        advice = f"objective.tangent_method = '{way_out}' works here" if way_out else "no method works"
        if "scaled_dot_product" in str(error) or "attention" in str(error):
            advice += "; or the MATH kernel, torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        values = {"method": method, "error": first_line(error), "way_out": way_out}
        found = f"none by '{method}': {first_line(error)}{_place(error)}{use}"
        return Check("derivative", level, found, advice, values), None if way_out == "finite_difference" else way_out
    heard: dict[str, Any] = {"method": method, "warnings": said}
    if said:
        advice = "training works, more slowly; compare objective.tangent_method = 'jvp'"
        return Check("derivative", "warn", "; ".join(said), advice, heard), method
    if method == "finite_difference":
        found = "by central differences, for which no function needs a rule"
    else:
        found = f"by '{method}' every function has its rule"
    unused = "" if needed else f", though objective '{kind}' takes none"
    return Check("derivative", "ok", found + unused, values=heard), method


def _tried(built: Trainer, model: Model, at: Points, method: Method) -> tuple[Exception | None, list[str]]:
    """Take the derivative in training mode; return the exception that was raised, and the warnings."""
    model.train()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", FutureWarning)
            probe.value_and_derivative(built, model, at.few(), method)
    except (NotImplementedError, RuntimeError) as error:
        return error, []
    finally:
        model.eval()
        model.last_F = None
    return None, list(dict.fromkeys(" ".join(str(w.message).split()) for w in said))


def _place(error: Exception) -> str:
    """Return the line of the network's own code where an exception arose, unless its message names one."""
    if ".py:" in str(error):
        return ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    outside = [f for f in frames if "/cmbench/equations/" not in f.filename and not f.filename.startswith("<")]
    return f" ({outside[-1].filename}:{outside[-1].lineno})" if outside else ""


def _errors(built: Trainer, model: Model, at: Points, method: Method) -> list[Check]:
    own_step = None if method == probe.method_of(built) else method
    _, own = probe.value_and_derivative(built, model, at, own_step)
    exact, unavailable = _in_float64(built, model, at)
    if not exact:
        return [Check("tangent", "-", f"not compared: no float64 copy of the network ({unavailable})")]
    errors = {name: relative_errors(own, reference) for name, reference in exact.items()}
    bins = [
        {
            "sigma": [float(at.edges[i]), float(at.edges[i + 1])],
            **{f"error_{name}": float(error[i]) for name, error in errors.items()},
        }
        for i in range(BINS)
    ]
    return [_verdict(built, bins, errors, method), *_agreement(exact, unavailable)]


def _in_float64(built: Trainer, model: Model, at: Points) -> tuple[dict[str, Tensor], str]:
    """Return the derivative by each reference method that works, and why another is missing."""
    exact: dict[str, Tensor] = {}
    missing, double = "", probe.in_float64(model)
    for method in _REFERENCES:
        try:
            exact[method] = probe.value_and_derivative(built, double, at.double(), method)[1]
        except (NotImplementedError, RuntimeError) as error:
            missing = first_line(error)
    return exact, missing


def relative_errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Return ||found - wanted|| / ||wanted|| over the samples of each bin, (BINS,); 0 where both vanish."""
    difference, size = ((x.double().view(BINS, -1)).norm(dim=1) for x in (found.double() - wanted, wanted))
    return torch.where(difference == 0, 0, difference / size).cpu()


def _verdict(built: Trainer, bins: list[dict], errors: dict[str, Tensor], method: Method) -> Check:
    precision = built.state.model.arithmetic(built.device)
    allowed = _ALLOWED[precision]
    if precision == "float32" and method == "finite_difference":
        allowed = _ALLOWED_DIFFERENCE
    worst = torch.stack(list(errors.values())).amax(dim=0)
    values = {"bins": bins, "allowed": allowed, "precision": precision, "method": method}
    found = f"relative error at most {worst.max():.1e} of dF/dt by '{method}' in {precision}; {allowed:g} allowed"
    bad = [i for i in range(BINS) if not worst[i] <= allowed]  # a nan is bad too
    if not bad:
        return Check("tangent", "ok", found, values=values)
    where = f"{bins[bad[0]]['sigma'][0]:.3g} to {bins[bad[-1]]['sigma'][1]:.3g}"
    by_jvp = errors.get("jvp")
    wrong_rule = len(errors) == 2 and by_jvp is not None and bool((by_jvp <= allowed).all())
    advice = "as exact as the functions' own rules: see `rules`" if wrong_rule else _how(built)
    return Check("tangent", "warn", f"{found}; exceeded at noise levels {where}", advice, values)


def _how(built: Trainer) -> str:
    """Return advice that makes the derivative more exact."""
    if probe.method_of(built) == "finite_difference":
        return "another objective.tangent_step, or tangent_method = 'dual'"
    if built.recipe.train.precision == "bfloat16":
        return "train.precision = 'float32', or a smoother time embedding"
    if built.state.model.arithmetic(built.device) == "tf32":
        return "train.matmul_precision = 'highest'"
    return "path.time_precision = 'float64', or a smoother time embedding"


def _agreement(exact: dict[str, Tensor], unavailable: str) -> list[Check]:
    """Compare torch's forward derivative with central differences, both in float64: a wrong rule shows here."""
    if len(exact) < len(_REFERENCES):
        return [Check("rules", "-", f"not compared: float64 has only one reference ({unavailable})")]
    jvp, difference = exact.values()
    error = float(relative_errors(jvp, difference).max())
    found, values = f"float64: torch.func.jvp and central differences differ by {error:.1e}", {"error": error}
    if error <= _RULES_AGREE:
        return [Check("rules", "ok", found, values=values)]
    advice = "a function's own jvp is wrong, or the network is not differentiable or draws its own random numbers"
    return [Check("rules", "fail", found, advice, values)]
