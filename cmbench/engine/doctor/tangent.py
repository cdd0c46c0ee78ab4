"""The derivative that continuous-time objectives train on: whether there is one, and how exact it is, time by time."""

import traceback
import warnings

import torch
from torch import Tensor

from cmbench.engine.doctor import probe
from cmbench.engine.doctor.check import Check, Level, first_line
from cmbench.engine.doctor.probe import BINS, Points
from cmbench.engine.trainer import Trainer
from cmbench.equations.tangent import Method
from cmbench.networks._model import Model

_REFERENCES: tuple[Method, ...] = ("jvp", "finite_difference")
_ALLOWED = {"float32": 1e-4, "bfloat16": 1e-2}  # relative error
_ALLOWED_DIFFERENCE = 1e-2  # of the recipe's own central differences in float32: 2e-4 at best, 6e-3 at the ends of t
_RULES_AGREE = 1e-4  # in float64: rounding alone leaves 1e-9
_WAY_OUT = (
    "objective.tangent_method = 'finite_difference'; for attention: the MATH kernel, "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
)


def checks(built: Trainer, model: Model, at: Points) -> list[Check]:
    """Return whether the network has the derivative that the recipe takes, and its error in each time bin.

    Args:
        built: the recipe.
        model: its model, from `probe.copied`.
        at: the points.
    """
    rules = _rules(built, model, at)
    if rules.level == "fail" or "error" in rules.values:
        return [rules, Check("tangent", "-", "not compared: there is no derivative to compare")]
    return [rules, *_errors(built, model, at)]


def _rules(built: Trainer, model: Model, at: Points) -> Check:
    """Take the derivative as training does, in training mode, and listen to what is said about it."""
    method, needed = probe.method_of(built), probe.needs_tangent(built)
    model.train()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", FutureWarning)
            probe.value_and_derivative(built, model, at.few())
    except (NotImplementedError, RuntimeError) as error:
        level: Level = "fail" if needed else "warn"
        use = "" if needed else f"; objective '{built.recipe.objective['kind']}' takes none, continuous-time ones do"
        found = f"none by '{method}': {first_line(error)}{_place(error)}{use}"
        advice = "" if "finite_difference" in str(error) else _WAY_OUT
        return Check("derivative", level, found, advice, {"method": method, "error": first_line(error)})
    finally:
        model.eval()
        model.last_F = None
    values = {"method": method, "warnings": [" ".join(str(w.message).split()) for w in said]}
    if said:
        return Check("derivative", "warn", "; ".join(dict.fromkeys(values["warnings"])), _WAY_OUT, values)
    if method == "finite_difference":
        return Check("derivative", "ok", "by central differences, for which no function needs a rule", values=values)
    unused = "" if needed else f", though objective '{built.recipe.objective['kind']}' takes none"
    return Check("derivative", "ok", f"by '{method}' every function has its rule{unused}", values=values)


def _place(error: Exception) -> str:
    """Return the line of the network's own code that an exception came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    outside = [f for f in frames if "/cmbench/equations/" not in f.filename and not f.filename.startswith("<")]
    return f" ({outside[-1].filename}:{outside[-1].lineno})" if outside else ""


def _errors(built: Trainer, model: Model, at: Points) -> list[Check]:
    _, own = probe.value_and_derivative(built, model, at)
    exact, unavailable = _in_float64(built, model, at)
    if not exact:
        return [Check("tangent", "-", f"not compared: no float64 copy of the network ({unavailable})")]
    errors = {method: _relative(own, reference) for method, reference in exact.items()}
    bins = [
        {
            "sigma": [float(at.edges[i]), float(at.edges[i + 1])],
            **{f"error_{method}": float(error[i]) for method, error in errors.items()},
        }
        for i in range(BINS)
    ]
    return [_verdict(built, bins, errors), *_agreement(exact, unavailable)]


def _in_float64(built: Trainer, model: Model, at: Points) -> tuple[dict[str, Tensor], str]:
    """Return the derivative by each reference method that the network has, and why one is missing."""
    exact: dict[str, Tensor] = {}
    missing, double = "", probe.in_float64(model)
    for method in _REFERENCES:
        try:
            exact[method] = probe.value_and_derivative(built, double, at.double(), method)[1]
        except (NotImplementedError, RuntimeError) as error:
            missing = first_line(error)
    return exact, missing


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Return ||found - wanted|| / ||wanted|| over the samples of each bin, (BINS,); 0 where both vanish."""
    difference, size = ((x.double().view(BINS, -1)).norm(dim=1) for x in (found.double() - wanted, wanted))
    return torch.where(difference == 0, 0, difference / size).cpu()


def _verdict(built: Trainer, bins: list[dict], errors: dict[str, Tensor]) -> Check:
    precision, method = built.recipe.train.precision, probe.method_of(built)
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
    """Return what makes the derivative more exact."""
    if built.recipe.train.precision == "bfloat16":
        return "train.precision = 'float32', or a smoother time embedding"
    if probe.method_of(built) == "finite_difference":
        return "another objective.tangent_step, or tangent_method = 'dual'"
    if built.device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        return "convolutions compute in TF32 here: torch.backends.cudnn.allow_tf32 = False"
    return "path.time_precision = 'float64', or a smoother time embedding"


def _agreement(exact: dict[str, Tensor], unavailable: str) -> list[Check]:
    """Compare torch's forward derivative with central differences, both in float64: a wrong rule shows here."""
    if len(exact) < len(_REFERENCES):
        return [Check("rules", "-", f"not compared: float64 has one reference alone ({unavailable})")]
    jvp, difference = exact.values()
    error = float(_relative(jvp, difference).max())
    found, values = f"float64: torch.func.jvp and central differences differ by {error:.1e}", {"error": error}
    if error <= _RULES_AGREE:
        return [Check("rules", "ok", found, values=values)]
    advice = "a function's own jvp is wrong, or the network is not differentiable or draws its own random numbers"
    return [Check("rules", "fail", found, advice, values)]
