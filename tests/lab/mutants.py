"""One-token changes of the package's equations, and the claim that has to notice each of them."""

import ast
import inspect
import textwrap

from cmbench import anatomy
from cmbench.equations import boundary, ema, gaussian_path, oracle, pf_ode, sampling, tangent, timesteps, weighting
from cmbench.equations.boundary import Parameterisation
from cmbench.layers import embedding, norm
from cmbench.model import Model
from cmbench.networks import dit, unet
from cmbench.objectives import _scm, cd, continuous, ct

MIXTURE = oracle.GaussianMixture
MUTANTS = [
    ("multistep_sampling", sampling.multistep_consistency.__wrapped__, "sigma**2 - sigma_min**2", "sigma**2"),
    ("multistep_sampling", sampling.multistep_consistency.__wrapped__, "sigmas[1:]", "sigmas[:1]"),
    (
        "multistep_sampling",
        sampling.consistency_sigmas,
        "(steps + 1, sigma_min, sigma_max).flip(0)[:-1]",
        "(steps + 2, sigma_min, sigma_max).flip(0)[:-2]",
    ),
    ("multistep_sampling", sampling.consistency_sigmas, "flip(0)[:-1]", "flip(0)[1:]"),
    ("multistep_sampling", timesteps.karras_grid, "** rho\n", "** (rho - 1)\n"),
    ("ema_teacher", ema.Follower.update.__wrapped__, "get_ema_multi_avg_fn(mu)", "get_ema_multi_avg_fn(mu**2)"),
    ("ema_teacher", ema.Follower.update.__wrapped__, "get_ema_multi_avg_fn(mu)", "get_ema_multi_avg_fn(0.9 * mu)"),
    ("unbiased_score", pf_ode.score_from_denoised, ".square()", ""),
    ("unbiased_score", pf_ode.score_from_denoised, "denoised - x_t", "denoised + x_t"),
    ("unbiased_score", gaussian_path.GaussianPath.x_t, "* eps", "* 1.05 * eps"),
    ("unbiased_score", MIXTURE.denoise, "(self.variances + variance)", "(self.variances + 1.001 * variance)"),
    ("unbiased_score", MIXTURE._log_joint, "0.5 *", "0.49 *"),
    ("euler_step_of_data", pf_ode.euler_step, "r - t", "t - r"),
    ("euler_step_of_data", pf_ode.velocity_from_score, "* x_t - like", "* x_t + like"),
    ("euler_step_of_data", pf_ode.velocity_from_score, "dsigma_over_sigma - ds_over_s", "dsigma_over_sigma"),
    ("cd_against_ct", pf_ode.euler_step, "r - t", "0.9 * (r - t)"),
    ("cd_against_ct", MIXTURE.denoise, "(self.variances + variance)", "(self.variances + 2 * variance)"),
    ("cd_against_ct", ct.Objective.loss, "x_t(x_0, eps, r)", "x_t(x_0, -eps, r)"),
    ("cd_against_ct", ct.Objective.loss, "self.target or model", "model"),
    ("cd_against_ct", boundary.combined, "x_t + c_out", "x_t - c_out"),
    ("discrete_to_continuous", weighting.inverse_interval, "(sigma - r)", "sigma"),
    ("discrete_to_continuous", Parameterisation.d_of_f, "out * (dsigma * c + sigma * dc)", "out * dsigma * c"),
    ("discrete_to_continuous", Model.F_and_derivative, "dc_in * x_t + c_in * dx", "c_in * dx"),
    ("discrete_to_continuous", continuous.Objective.loss, "p.of_f(t), dxdt, dF", "p.of_f(t), dxdt, 0 * dF"),
    ("zero_tangent", Parameterisation.dc_in, ".pow(3)", ".pow(2)"),
    ("zero_tangent", Parameterisation.dc_noise, "dsigma / sigma - ds / s", "dsigma / sigma"),
    ("discretisation_error", gaussian_path.TrigFlow.ds, "-torch.sin(t)", "-0.99 * torch.sin(t)"),
    ("discretisation_error", gaussian_path.VP.dsigma, "0.5 *", "0.51 *"),
    ("zero_tangent", pf_ode.velocity_from_denoised, "denoised, eps, t", "denoised, 0.99 * eps, t"),
    ("discretisation_error", pf_ode.euler_step, "v(x_t, t)", "v(x_t, r)"),
    ("discretisation_error", pf_ode.heun_step, "(slope + v(x_r, r))", "(slope + slope)"),
    ("discretisation_error", pf_ode.heun_step, "0.5 *", "0.501 *"),
    ("discretisation_error", cd.Objective._teacher_step.__wrapped__, "x_t, t, r)", "x_t, t, 0.9 * r)"),
    ("fourier_scale", embedding.Fourier.forward, "2 * math.pi", "math.pi"),
    ("fourier_scale", embedding.Fourier.forward, "2 * math.pi", "1.999 * math.pi"),
    ("fourier_scale", embedding.Fourier.derivative_norm, "2 * math.pi", "math.pi"),
    ("fourier_scale", embedding._cos_and_sin, "* frequencies", "* frequencies.sign()"),
    ("time_transform", Parameterisation.dc_noise, "0.25 if", "0.26 if"),
    ("time_transform", Parameterisation.c_noise, "0.25 if", "0.26 if"),
    ("time_transform", Parameterisation.c_noise, "return t\n", "return t.square()\n"),
    ("double_normalisation", norm.pnorm, "mean(", "sum("),
    ("double_normalisation", norm.pnorm, "rsqrt()", "reciprocal()"),
    ("double_normalisation", norm.ScaleShift.pair, "pnorm(shift)", "shift"),
    ("double_normalisation", norm.ScaleShift.pair, "if self.double_norm", "if True"),
    ("double_normalisation", unet.Block.forward, "scale, shift =", "shift, scale ="),
    ("double_normalisation", unet.Block.forward, "self.norm_1(h) * scale", "h * scale"),
    ("double_normalisation", dit._modulate, "scale[:, None] + shift[", "shift[:, None] + scale["),
    ("double_normalisation", dit.Block.forward, "self.norm_1(x), self.affine_1", "x, self.affine_1"),
    ("adaptive_weight", weighting.adaptive, "- log_weight", "- 2 * log_weight"),
    ("adaptive_weight", weighting.adaptive, "log_weight.exp()", "(2 * log_weight).exp()"),
    ("adaptive_weight", _scm.terms, "F.detach() - g)", "F.detach() - 1.1 * g)"),
    ("adaptive_weight", _scm.terms, "adaptive(prior * loss, w)", "adaptive(prior * loss, w.detach())"),
    ("adaptive_weight", _scm.terms, "adaptive(prior * loss, w)", "adaptive(prior * loss, 0.9 * w)"),
    ("adaptive_weight", _scm.terms, ".sum(dim=1) / D\n    if", ".sum(dim=1) / D**2\n    if"),
    ("residual_square", continuous.Objective.loss, "(f_t - dfdt).detach()", "(f_t + dfdt).detach()"),
    ("residual_square", continuous.Objective.loss, "0.5 * (f_t", "(f_t"),
    ("residual_square", _scm.terms, "- 2 * (product", "- (product"),
    ("residual_square", _scm.terms, ".sum(dim=1) / D\n    if", ".sum(dim=1) / D**2\n    if"),
    ("residual_square", _scm.terms, "(g * F).flatten(1).sum(dim=1) / D", "(g * F).flatten(1).sum(dim=1) / D**2"),
    ("residual_square", _scm.terms, "adaptive(prior * loss, w)", "adaptive(prior * loss, w.detach())"),
    ("residual_square", tangent.normalised, "size + c", "size"),
    ("residual_square", tangent.normalised, "size = norm(g)\n", "size = norm(g) / g[0].numel() ** 0.5\n"),
    ("residual_square", tangent.norm, "norm(dim=1)", "norm(dim=1) / 3**0.5"),
    ("tangent_precision", _scm.F_and_g, "dt = cos_sin if inside", "dt = 1.01 * cos_sin if inside"),
    ("tangent_precision", tangent.trigflow, "- r * sigma_data *", "- r *"),
    ("tangent_precision", tangent.trigflow_stable, "torch.cos(t), torch.sin(t)", "t.float().cos(), t.float().sin()"),
    ("tangent_precision", anatomy.of_f.__wrapped__, "+ skip * dxdt", "+ dxdt"),
    ("tangent_precision", anatomy.of_f.__wrapped__, "+ dout * F", "- dout * F"),
    ("tangent_precision", anatomy.of_f.__wrapped__, "out * tangent.norm(spatial)", "tangent.norm(spatial)"),
    ("tangent_precision", anatomy.of_f.__wrapped__, "(None, dc_noise, None)", "(None, 1.1 * dc_noise, None)"),
    ("tangent_precision", anatomy.of_f.__wrapped__, "along_x, None, None", "along_x, dc_noise, None"),
    ("tangent_precision", embedding._cos_and_sin, "torch.promote_types(c.dtype, torch.float32)", "torch.bfloat16"),
]


def mutated(function, old, new):
    """Return the code of a function with one place of its source, below the docstring, changed."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines(keepends=True)
    (definition,) = ast.parse("".join(lines)).body
    start, body = definition.lineno - 1, definition.body[0].end_lineno  # what decorates it stays as it is
    text = "".join(lines[body:])
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {function.__qualname__}"
    namespace = dict(function.__globals__)
    exec("".join(lines[start:body]) + text.replace(old, new), namespace)
    return namespace[function.__name__].__code__
