"""Torch's compiler as `engine.compiled` needs it: its settings, its place for code, its silence, and its refusals."""

import logging
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cmbench import caches
from cmbench.errors import CmbenchError, UsageError

_SETTINGS: dict[str, object] = {
    "fallback_random": True,  # dropout draws as it does uncompiled: from torch's generators, which the step seeds
    "fx_graph_cache": False,  # it keeps pickles
}
# With `train.deterministic` nothing is chosen by measuring, so that a resumed run gets the same code.
_SAME_CODE: dict[str, object] = {"deterministic": True, "shape_padding": False}
_PLACE = "TORCHINDUCTOR_CACHE_DIR"
_CHOSEN = os.environ.get(_PLACE)  # by the user, as this is read early
Pass = Callable[..., Sequence[Tensor]]
Compiling = Callable[[], AbstractContextManager[None]]


def refuse_if_impossible(device: torch.device) -> None:
    """Refuse to compile where a compiler is missing, before anything is built.

    Raises:
        UsageError: there is no C++ compiler, no folder for compiled code, or no Triton for a GPU.
    """
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise refusal(UsageError, "Triton, which compiles for GPUs, does not work here")
        return
    try:
        _place_code()
        from torch._inductor import cpp_builder

        cpp_builder.get_cpp_compiler()
    except OSError as error:
        raise refusal(UsageError, f"compiled code cannot be kept: {error}") from None
    except Exception:  # its class has another name in each version
        raise refusal(UsageError, "there is no C++ compiler here (g++, or what CXX names)") from None


@contextmanager
def silence() -> Iterator[None]:
    """Let torch say nothing in the block: what matters of it comes as one line."""
    logs = logging.getLogger("torch.utils.cpp_extension")  # warns of a missing CUDA, even on a CPU
    level = logs.level
    logs.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.setLevel(level)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep a terminal's signals from the compilers that start in the block. This process takes them after it.

    Else Ctrl-C would end a compiler, and the run with it. A probe so ended would even choose other code.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _place_code() -> None:
    """Keep compiled code with what else is cached, unless the user chose a place.

    Torch enters its own choice, as soon as it is asked to be deterministic.

    Raises:
        OSError: the folder cannot be made, or nothing can be written there.
    """
    if not _CHOSEN:
        with suppress(RuntimeError):  # without a home folder it takes a temporary one
            os.environ[_PLACE] = str(caches.folder("compiled"))
    if folder := os.environ.get(_PLACE):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def backend(module: nn.Module, given: list[Tensor], compiling: Compiling) -> Pass:
    """Trace a function of tensors, with its backward where a tensor needs a gradient, and compile it.

    Torch compiles the backward when it first runs, and so long after this has returned.
    """
    _place_code()
    from torch._inductor import compile_fx, config

    def lowered(graph: torch.fx.GraphModule, inputs: Sequence[Any], **how: Any) -> Any:
        with compiling():
            return _lowered(graph, inputs, **how)

    settings = _SETTINGS | (_SAME_CODE if torch.are_deterministic_algorithms_enabled() else {})
    known = {name: value for name, value in settings.items() if hasattr(config, name)}
    whole: Any = module  # any module of flat inputs, though annotated as a graph
    return cast(Pass, compile_fx.compile_fx(whole, given, lowered, known))


def _lowered(graph: torch.fx.GraphModule, inputs: Sequence[Any], **how: Any) -> Any:
    """Turn the graph of a pass, or of its backward, into code."""
    from torch._inductor import compile_fx

    return compile_fx.compile_fx_inner(graph, inputs, **how)


def reason(error: Exception) -> str:
    """Return the line of a compiler's report that says most."""
    if type(error).__name__ == "DataDependentOutputException":
        return f"its pass depends on a number in a tensor, by if or .item() ({error})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error: " in line), lines[0])


def refusal(kind: type[CmbenchError], why: str) -> CmbenchError:
    """Return the error that names the key, and why it is not allowed."""
    return kind(f"train.compile: found true, but {why}; allowed: false")
