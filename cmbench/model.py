"""A network on a path: one F_theta gives the consistency function f_theta and the denoiser D_theta."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from cmbench.equations import boundary, tangent
from cmbench.equations.boundary import NoiseName, Parameterisation, Scalings, ScalingsName
from cmbench.equations.gaussian_path import GaussianPath, like
from cmbench.equations.tangent import Method

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Let float32 products and convolutions in the block use TF32 on a GPU ("high"), or not ("highest").

    Torch keeps this for the whole process, with TF32 on for convolutions and off for products. So it is put back:
    closed forms, measures and augmentations stay exact. A backward pass needs a block of its own. CPUs have no TF32.
    """
    if not _has_tf32(device):
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    _set_products(precision, precision == "high")
    try:
        yield
    finally:
        _set_products(*before)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda"


def _set_products(of_products: str, in_convolutions: bool) -> None:
    torch.set_float32_matmul_precision(of_products)
    torch.backends.cudnn.allow_tf32 = in_convolutions


class Model(nn.Module):
    """F_theta with the parameterisations of its path.

    Every method takes x_t (B, ...), t (B,), labels (B,) or None, on the model's own path, and returns (B, ...) in the
    dtype of x_t. Only F_theta runs in the chosen precision; times and scalings stay in the dtype of t.

    Args:
        F_theta: the raw network.
        shape: the shape of one sample, e.g. (1, 8, 8) or (2,).
        path: the path of x_t and t.
        sigma_data: standard deviation of the data.
        sigma_min: the lowest noise level; f is the identity there, unless `boundary_at` is "zero".
        sigma_max: the noise level at which sampling starts.
        precision: "float32" or "bfloat16" (autocast).
        matmul_precision: as in `products`.
        scalings: as in `equations.boundary`.
        noise: as in `equations.boundary`.
        boundary_at: "sigma_min" or "zero", the noise level at which f is the identity.
        times: 2 for a network of two times (t, t - r), which f calls with r = 0.
        time_dtype: the dtype of the times that `time` returns.
    """

    def __init__(
        self,
        F_theta: nn.Module,
        shape: tuple[int, ...],
        path: GaussianPath,
        sigma_data: float,
        sigma_min: float,
        sigma_max: float,
        precision: str = "float32",
        scalings: ScalingsName = "edm",
        noise: NoiseName = "log",
        boundary_at: str = "sigma_min",
        times: int = 1,
        time_dtype: torch.dtype = torch.float32,
        matmul_precision: str = "highest",
    ) -> None:
        super().__init__()
        self.F_theta, self.shape, self.path, self.times = F_theta, shape, path, times
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max
        epsilon = sigma_min if boundary_at == "sigma_min" else 0.0
        self.parameterisation = Parameterisation(path, sigma_data, scalings, epsilon, noise)
        self.autocast, self.time_dtype = AUTOCAST[precision], time_dtype
        self.matmul_precision = matmul_precision
        self.recorded_by: Callable[..., Tensor] | None = None  # calls F_theta in recorded passes: see `engine.ranks`
        self.augment_labels: Tensor | None = None  # of the batch at hand, where training changes its pictures
        self.last_F: Tensor | None = None  # the output of the recorded pass; its gradient feeds the time profile

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return f_theta(x_t, t) = c_skip x_t + c_out F_theta(c_in x_t, c_noise)."""
        return self._combined(self.parameterisation.of_f(t), x_t, t, labels)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return D_theta(x_t, t), the estimate of E[x_0 | x_t].

        For a network of two times it uses r = t, the velocity at t itself. With r = 0, as in f, it would give the end
        of the trajectory instead.
        """
        return self._combined(self.parameterisation.of_D(t), x_t, t, labels, t if self.times == 2 else None)

    def F(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, r: Tensor | None = None) -> Tensor:  # noqa: N802
        """Return the raw output F_theta(c_in x_t, c_noise). r (B,), for a network of two times; None: 0."""
        return self._F(self.parameterisation.c_in(t), x_t, t, labels, r)

    def F_and_derivative(  # noqa: N802
        self,
        x_t: Tensor,
        t: Tensor,
        dx: Tensor,
        dt: Tensor,
        labels: Tensor | None = None,
        r: Tensor | None = None,
        method: Method = "dual",
        h: float = tangent.STEP,
    ) -> tuple[Tensor, Tensor]:
        """Return F, recorded for backward, and its derivative along (dx, dt), not recorded.

        Args:
            x_t: (B, ...).
            t: (B,).
            dx: (B, ...), the derivative of x_t.
            dt: (B,), the derivative of t; r stays constant.
            labels: (B,) or None.
            r: (B,) or None, for a network of two times.
            method: how to take the derivative; see `equations.tangent`.
            h: the step of the central difference, in units of (dx, dt).
        """
        p = self.parameterisation
        c_in, dc_in = like(p.c_in(t), x_t), like(p.dc_in(t) * dt, x_t)
        dc_noise = p.dc_noise(t) * dt
        if self.times == 2:
            dc_noise = torch.stack([dc_noise, dt], dim=1)
        primals = (c_in * x_t, self.c_noise(t, r), labels)
        tangents = (dc_in * x_t + c_in * dx, dc_noise, None)
        with self.precision(x_t):
            F, dF = tangent.value_and_derivative(self.network(), primals, tangents, method, h)
        return self._recorded(F).to(x_t.dtype), dF.to(x_t.dtype)

    def log_variance(self, t: Tensor) -> Tensor:
        """Return the network's own log of the size of its loss, where it has such a head. (B,) -> (B,)."""
        return self.F_theta.log_variance(self.parameterisation.c_noise(t))  # type: ignore[operator]

    def time_type(self, x: Tensor) -> torch.dtype:
        """Return the dtype of times for data x: that of the recipe, or that of x if it is finer."""
        return torch.promote_types(self.time_dtype, x.dtype)

    def time(self, sigma: Tensor) -> Tensor:
        """Return the path's time for a noise level, in the precision of times. (B,)."""
        return self.path.t_of_noise_level(sigma.to(torch.promote_types(self.time_dtype, sigma.dtype)))

    def on_edm_path(self) -> "OnEDMPath":
        """Return f and D as functions of x_0 + sigma eps and sigma, whatever the model's own path."""
        return OnEDMPath(self)

    def _combined(
        self, scalings: Scalings, x_t: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None
    ) -> Tensor:
        return boundary.combined(scalings, x_t, self._F(scalings.c_in, x_t, t, labels, r))

    def _F(  # noqa: N802
        self, c_in: Tensor, x_t: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None
    ) -> Tensor:
        with self.precision(x_t):
            F = self.network()(like(c_in, x_t) * x_t, self.c_noise(t, r), labels)
        return self._recorded(F).to(x_t.dtype)

    def network(self) -> Callable[..., Tensor]:
        """Return F_theta as a function of x, c_noise and labels, with `augment_labels`, if they are set.

        It is `recorded_by`, if that is set, for the passes of training that have a gradient.
        """
        recorded = self.recorded_by is not None and self.training and torch.is_grad_enabled()
        called: Callable[..., Tensor] = self.recorded_by if recorded and self.recorded_by else self.F_theta
        told = self.augment_labels
        if told is None:
            return called

        def augmented(x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
            if len(x) != len(told):
                raise ValueError(f"found a pass of {len(x)} samples, allowed: the {len(told)} of the batch at hand")
            return called(x, c_noise, labels, told)

        return augmented

    def c_noise(self, t: Tensor, r: Tensor | None = None) -> Tensor:
        """Return the time input of F_theta, (B,), or (B, 2) for a network of two times; r (B,) is 0 if not given."""
        c_noise = self.parameterisation.c_noise(t)
        if self.times == 1:
            return c_noise
        return torch.stack([c_noise, t if r is None else t - r], dim=1)

    def precision(self, x: Tensor) -> AbstractContextManager:
        """Return the context in which F_theta runs on x."""
        cast = torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None)
        return self._on_gpu(cast, x.device) if _has_tf32(x.device) else cast

    @contextmanager
    def _on_gpu(self, cast: AbstractContextManager, device: torch.device) -> Iterator[None]:
        with products(self.matmul_precision, device), cast:
            yield

    def arithmetic(self, device: torch.device) -> str:
        """Return in what F_theta multiplies on a device: "float32", "tf32" or "bfloat16"."""
        if self.autocast is not None:
            return "bfloat16"
        return "tf32" if _has_tf32(device) and self.matmul_precision == "high" else "float32"

    def _recorded(self, F: Tensor) -> Tensor:
        if self.training and F.requires_grad:
            F.retain_grad()
            self.last_F = F
        return F


class OnEDMPath:
    """A model as a function of x = x_0 + sigma eps (B, ...) and the noise level sigma (B,)."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the consistency function. (B, ...)."""
        t = self.model.time(sigma)
        return self.model(self._x_t(x, t), t, labels)

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the estimate of E[x_0 | x]. (B, ...)."""
        t = self.model.time(sigma)
        return self.model.denoise(self._x_t(x, t), t, labels)

    def _x_t(self, x: Tensor, t: Tensor) -> Tensor:
        return like(self.model.path.s(t), x) * x
