"""The tables of a recipe that are not components: frozen, strict, with one line of documentation per key."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cmbench.config import (
    STEERABLE,
    Config,
    Count,
    Floats,
    NoiseLevel,
    NonNegative,
    Positive,
    PositiveInt,
    SamplerSteps,
    Samples,
    SamplesOrNone,
    Strings,
)
from cmbench.errors import did_you_mean
from cmbench.measures import OF_SAMPLES, row_key

_FLOAT32 = 3.4028234663852886e38  # the largest float32; torch refuses larger factors
MatmulPrecision = Literal["highest", "high"]
DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,4})?)$"
# A length such as 0.999 may be written as a number.
EmaName = Annotated[str, BeforeValidator(lambda value: repr(value) if isinstance(value, float) else value)]


def is_own_class(kind: str) -> bool:
    """Return whether a kind has the form module:Class."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", kind) is not None


# The defaults of each path: scalings, c_noise, boundary.
_OF_PATH = {
    "edm": ("edm", "log", "sigma_min"),
    "vp": ("edm", "log", "zero"),
    "trigflow": ("trigflow", "identity", "zero"),
    "linear": ("linear", "identity", "zero"),
}


class PathTable(Config):
    """[path]: the probability path, its range in EDM noise levels for any path, and how F_theta gives f and D."""

    kind: Literal["edm", "vp", "trigflow", "linear"] = Field("edm", description="edm, vp, trigflow or linear")
    sigma_data: NoiseLevel = Field(0.5, description="standard deviation of the data")
    sigma_min: NoiseLevel = Field(0.002, description="lowest noise level of training and sampling")
    sigma_max: NoiseLevel = Field(80.0, description="noise level at which sampling starts")
    sigma_mid: NonNegative = Field(0.0, description="second noise level of two-step sampling; 0: the Karras grid's")
    scalings: Literal["edm", "trigflow", "linear"] = Field(
        "edm", description="c_skip, c_out, c_in: edm, trigflow (edm with F = v / sigma_data), linear (F = v)"
    )
    boundary: Literal["sigma_min", "zero"] = Field(
        "sigma_min", description="where f is the identity: sigma_min or zero"
    )
    c_noise: Literal["identity", "angle", "log", "log_1000"] = Field(
        "log",
        description="the network's time: identity (t), angle (TrigFlow's t), log (ln(sigma) / 4), log_1000",
    )
    time_precision: Literal["float32", "float64"] = Field("float32", description="of times, scalings and embeddings")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_by_path(cls, given: object) -> object:
        kind = given.get("kind", "edm") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(kind, str) or kind not in _OF_PATH:
            return given  # the field's own check reports the error
        scalings, c_noise, boundary = _OF_PATH[kind]
        return {"scalings": scalings, "boundary": boundary, "c_noise": c_noise, **given}

    @model_validator(mode="after")
    def _fits(self) -> "PathTable":
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min: found {self.sigma_min}, allowed: less than sigma_max = {self.sigma_max}")
        if self.sigma_mid and not self.sigma_min < self.sigma_mid < self.sigma_max:
            between = f"between sigma_min = {self.sigma_min} and sigma_max = {self.sigma_max}"
            raise ValueError(f"sigma_mid: found {self.sigma_mid}, allowed: {between}, or 0")
        if self.boundary == "sigma_min" and self.scalings == "linear":
            raise ValueError("boundary: found 'sigma_min', allowed for scalings = 'linear': zero")
        return self


# What [teacher] and [start] say of a file of other people's weights. None: not said, and not written into a recipe.
Function = Literal["denoiser", "consistency", "average_velocity"]
OfFile = Annotated[
    str | None,
    Field(min_length=1, description="a safetensors file, a PyTorch state dict or a diffusers folder"),
]
Which = Annotated[
    str | None,
    Field(min_length=1, description="which of the file's state dicts, e.g. ema; needed where several fit"),
]
Computes = Annotated[
    Function | None,
    Field(description="what the file's weights compute: denoiser (D, if not given), consistency or average_velocity"),
]
MayLack = Annotated[Strings | None, Field(description="patterns of names that the file may lack, e.g. logvar*")]
MayHave = Annotated[Strings | None, Field(description="patterns of names that the file may have beyond the network's")]
OF_A_FILE = ("weights", "function", "allow_missing", "allow_unexpected", "network", "path")


class Teacher(Config):
    """[teacher]: the denoiser that distillation follows."""

    kind: str = Field("oracle", description="oracle, run, file, or module:Class (built with the data set)")
    run: str = Field("", description="kind run: a selector: a path, a prefix, @latest or @latest:PREFIX")
    ema: EmaName = Field("", description="kind run: which EMA of it; empty: the first; none: the raw weights")
    initialise_student: bool = Field(False, description="kinds run and file: start from the teacher's weights")
    file: OfFile = None
    weights: Which = None
    function: Computes = None
    allow_missing: MayLack = None
    allow_unexpected: MayHave = None
    network: dict[str, Any] | None = Field(None, description="kind file: its network, kind and keys as in [network]")
    path: dict[str, Any] | None = Field(
        None, description="kind file: its path, keys as in [path]; if not given, EDM's with the levels of [path]"
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> "Teacher":
        if self.kind not in (kinds := ("oracle", "run", "file")) and not is_own_class(self.kind):
            hint = did_you_mean(self.kind, kinds)
            raise ValueError(f"kind: found '{self.kind}', allowed: 'oracle', 'run', 'file' or 'module:Class'{hint}")
        if self.kind == "run" and not self.run:
            raise ValueError("run: missing, and kind = 'run' needs it (a path, a prefix, @latest or @latest:PREFIX)")
        if self.kind == "file":
            for key, what in (("file", "a path"), ("network", "a table [teacher.network] with kind and keys")):
                if getattr(self, key) is None:
                    raise ValueError(f"{key}: missing, and kind = 'file' needs it ({what})")
        if self.kind != "run" and (self.run or self.ema):
            raise ValueError(f"kind: found '{self.kind}', allowed: 'run' where run or ema is set")
        if self.kind not in ("run", "file") and self.initialise_student:
            raise ValueError(f"kind: found '{self.kind}', allowed: 'run' or 'file' where initialise_student is set")
        if self.kind != "file" and (key := _first_of(self, "file", *OF_A_FILE)):
            raise ValueError(f"kind: found '{self.kind}', allowed: 'file' where {key} is set")
        return self


class Start(Config):
    """[start]: the initial weights, from a run or a file. Without this table the seed gives them."""

    run: str = Field("", description="a path, a prefix, @latest or @latest:PREFIX; '' takes the table away")
    ema: EmaName = Field("", description="which EMA of the run; empty: the first; none: the raw weights")
    file: OfFile = None
    weights: Which = None
    function: Computes = None
    allow_missing: MayLack = None
    allow_unexpected: MayHave = None
    network: dict[str, Any] | None = Field(
        None, description="the file's network, kind and keys as in [network]; if not given, the run's own"
    )
    path: dict[str, Any] | None = Field(
        None, description="the file's path, keys as in [path]; if not given, the run's own"
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> "Start":
        if bool(self.run) == (self.file is not None):
            raise ValueError(f"run: {'found beside' if self.run else 'missing without'} file; allowed: one of the two")
        if not self.run and self.ema:
            raise ValueError("ema: found with file, allowed: with run; weights says which of a file's")
        if self.run and (key := _first_of(self, *OF_A_FILE)):
            raise ValueError(f"{key}: found with run, allowed: with file")
        return self


def _first_of(config: Config, *keys: str) -> str:
    """Return the first of the keys that is set; empty if none is."""
    return next((key for key in keys if getattr(config, key) is not None), "")


class Warmup(Config):
    """The tangent's warm-up in [objective]. It is defined here, without torch, because views steer it."""

    tangent_warmup: Count = Field(
        10_000, description="steps over which r grows from 0 to 1; 0: r = 1 at once", json_schema_extra=STEERABLE
    )


class Optimizer(Config):
    """[optimizer]."""

    idle = {"decay_after": ("decay", ("none",))}  # noqa: RUF012

    kind: Literal["radam", "adam", "adamw"] = Field("radam", description="radam, adam or adamw")
    lr: Positive = Field(1e-4, description="learning rate after the warm-up", json_schema_extra=STEERABLE)
    betas: Floats = Field((0.9, 0.999), description="decay of the moments")
    eps: Positive = Field(1e-8, description="added to the root of the second moment")
    weight_decay: NonNegative = Field(0.0, description="decoupled for adamw, L2 for the others; of w_phi too")
    warmup: Count = Field(0, description="steps of linear warm-up, the first at lr / warmup")
    decay: Literal["none", "cosine", "inverse_sqrt"] = Field("none", description="none, cosine or inverse_sqrt")
    decay_after: Count = Field(0, description="inverse_sqrt: constant until this step; cosine: likewise")
    clip: NonNegative = Field(0.0, description="largest norm of the gradient; 0: not clipped")
    fused: Literal["auto", "on", "off"] = Field(
        "auto", description="update all weights in one kernel: on, off, or auto: for adam and adamw on a GPU"
    )

    @model_validator(mode="after")
    def _in_range(self) -> "Optimizer":
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: found {list(self.betas)}, allowed: two numbers in [0, 1)")
        if self.lr / (1 - self.betas[0]) > _FLOAT32:  # what Adam multiplies its first step with
            upper = f"up to {_FLOAT32 * (1 - self.betas[0]):.2g}, float32's end times 1 - betas[0]"
            raise ValueError(f"lr: found {self.lr:g}, allowed: {upper}")
        if self.weight_decay > _FLOAT32:
            raise ValueError(f"weight_decay: found {self.weight_decay:g}, allowed: up to {_FLOAT32:.1e}, float32's end")
        if self.fused == "on" and self.kind == "radam":
            raise ValueError("fused: found 'on', allowed for kind = 'radam', of which torch has none: auto or off")
        if self.decay == "inverse_sqrt" and not self.decay_after:
            raise ValueError("decay_after: found 0, allowed: at least 1 for decay = 'inverse_sqrt'")
        return self


class Ema(Config):
    """[ema]: averages of the weights for sampling. (The objective keeps the target's average.)"""

    idle = {  # noqa: RUF012
        "ramp_up": ("profile", ("constant", "power")),
        "keep_every": ("profile", ("constant", "half_life")),
    }

    profile: Literal["constant", "half_life", "power"] = Field(
        "constant", description="constant decay, half_life with lengths in images, or EDM2's power function"
    )
    lengths: Floats = Field(
        (0.999,),
        description="constant: decays; power: sigma_rel; the first is sampled from",
        json_schema_extra=STEERABLE,
    )
    ramp_up: NonNegative = Field(
        0.0, description="half_life: no longer than this share of the images so far; 0: no ramp-up; EDM: 0.05"
    )
    keep_every: Count = Field(
        0, description="power: steps between copies of the averages, from which others follow afterwards; 0: none"
    )

    @model_validator(mode="after")
    def _in_range(self) -> "Ema":
        upper = {"constant": 1.0, "half_life": 1e16, "power": 0.28}[self.profile]
        if not all(0 < length < upper for length in self.lengths) or len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths: found {list(self.lengths)}, allowed: different numbers in (0, {upper})")
        if self.keep_every and self.profile == "power" and len(self.lengths) < 2:
            raise ValueError(
                f"keep_every: found {self.keep_every} with lengths = {list(self.lengths)}, allowed: with two lengths "
                "or more, such as [0.05, 0.1]"
            )
        return self


class Train(Config):
    """[train]."""

    steps: PositiveInt = Field(1000, description="optimiser steps, the K of the curricula")
    batch_size: Samples = Field(128, description="samples of a step, of all ranks together")
    micro_batch_size: SamplesOrNone = Field(
        0, description="samples that go through the network at once, which bounds memory; 0: all of a rank's batch"
    )
    device: str = Field("auto", pattern=DEVICE, description="auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the network; bfloat16 by autocast")
    compile: bool = Field(False, description="compile the network's passes at the first step; true: faster after it")
    matmul_precision: MatmulPrecision = Field(
        "highest", description="of the network's float32 products and convolutions on a GPU; high: TF32, highest: not"
    )
    channels_last: bool = Field(
        False, description="keep the weights of convolutions, and so pictures within the network, channels last"
    )
    deterministic: bool = Field(
        True, description="equal runs are equal bit for bit; false: faster operations on a GPU, resumed otherwise"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        if self.micro_batch_size > self.batch_size:
            allowed = f"up to batch_size = {self.batch_size}, or 0"
            raise ValueError(f"micro_batch_size: found {self.micro_batch_size}, allowed: {allowed}")
        return self

    @property
    def at_once(self) -> int:
        """The samples that go through the network at once."""
        return self.micro_batch_size or self.batch_size


class Log(Config):
    """[log]."""

    every: PositiveInt = Field(
        20, description="steps between rows of metrics.jsonl, means over them", json_schema_extra=STEERABLE
    )


class Profile(Config):
    """[profile]."""

    every: Count = Field(100, description="steps between rows of profiles.jsonl; 0: never", json_schema_extra=STEERABLE)
    bins: int = Field(32, ge=2, le=512, description="time bins, even in the sampler's own variable")
    anatomy_every: Count = Field(20, description="steps between looks at the tangent's terms; 0: never")
    anatomy_n: Samples = Field(32, description="samples of the batch that each such look takes")


class Checkpoint(Config):
    """[checkpoint]."""

    every: Count = Field(500, description="steps between checkpoints; 0: at the end alone", json_schema_extra=STEERABLE)
    keep: PositiveInt = Field(3, description="newest that stay, beside the best of those evaluated at their own step")


class Snapshot(Config):
    """[snapshot]."""

    every: Count = Field(500, description="steps between snapshots; 0: never", json_schema_extra=STEERABLE)
    steps: SamplerSteps = Field((1, 2), description="sampler steps of each picture")
    n: Samples = Field(64, description="samples, from latents that never change")


class Evaluate(Config):
    """[evaluate]: measures of samples against held-out data, and the distance to the true consistency function."""

    every: Count = Field(500, description="steps between evaluations; 0: never", json_schema_extra=STEERABLE)
    metrics: Strings = Field(
        ("sliced_wasserstein",), description="measures, files of cmbench/evaluation; the first decides which is best"
    )
    steps: SamplerSteps = Field((1, 2), description="sampler steps; the first decides which checkpoint is best")
    n: Samples = Field(1000, description="samples, from latents that never change")
    true_error_n: SamplesOrNone = Field(
        128, description="exact trajectories for the true consistency error, where there is an oracle; 0: none"
    )
    self_error_n: SamplesOrNone = Field(
        0, description="trajectories of a teacher that denoises for the self-consistency error; 0: none"
    )

    @model_validator(mode="after")
    def _in_range(self) -> "Evaluate":
        if not self.steps:
            raise ValueError(f"steps: found {list(self.steps)}, allowed: one or more integers from 1")
        for name in self.metrics:
            if name not in OF_SAMPLES:
                raise ValueError(
                    f"metrics: found '{name}', allowed: {', '.join(OF_SAMPLES)}{did_you_mean(name, OF_SAMPLES)}"
                )
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics: found {list(self.metrics)}, allowed: one or more different measures")
        if not OF_SAMPLES[self.metrics[0]].better:
            directed = ", ".join(name for name, measure in OF_SAMPLES.items() if measure.better)
            raise ValueError(f"metrics: found '{self.metrics[0]}' as the first, allowed there: {directed}")
        return self

    @property
    def decisive(self) -> str:
        """The row key that decides which checkpoint is best, e.g. sw_1step."""
        return row_key(self.metrics[0], self.steps[0])


TABLES: dict[str, type[Config]] = {
    "path": PathTable,
    "teacher": Teacher,
    "start": Start,
    "optimizer": Optimizer,
    "ema": Ema,
    "train": Train,
    "log": Log,
    "profile": Profile,
    "checkpoint": Checkpoint,
    "snapshot": Snapshot,
    "evaluate": Evaluate,
}
