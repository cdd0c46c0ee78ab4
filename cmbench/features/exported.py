"""Features by an ONNX graph that the user names, such as one of DINOv2 for FD-DINOv2 (Stein et al. 2023).

A graph is a list of known operators with their numbers: onnxruntime runs no code of a file. The other forms of exported
networks do: a TorchScript archive and a .pt2 are read with pickles, or evaluate expressions.
"""

from pathlib import Path

import torch
from torch import Tensor

from cmbench import regular
from cmbench.errors import UsageError
from cmbench.finite import as_bytes
from cmbench.text import cut

SUFFIX = ".onnx"
_AT_ONCE = 64
_LARGEST = 1 << 31  # bytes, as its format allows
_TYPES = {"tensor(uint8)": torch.uint8, "tensor(float)": torch.float32}


class Exported:
    """What the first output of a graph is for pictures (n, 1 or 3, H, W) in [-1, 1].

    The graph takes pictures (n, 3, H, W) of 0 to 255, as uint8 or float, and resizes and scales them itself.

    Args:
        path: of the file.
        shape: of a picture.
        device: a GPU is used where onnxruntime can.

    Raises:
        UsageError: the samples are not pictures, the package is missing, or the file is no such graph.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], device: torch.device) -> None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UsageError(f"--features: found {path} for samples of shape {list(shape)}, allowed for them: pixels")
        try:
            import onnxruntime
        except ImportError:
            raise UsageError(f"--features: {path} needs the onnxruntime package: pip install 'cmbench[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is said below, in one line
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        there = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
        try:
            content = regular.read(path, _LARGEST, links=True)
            self._session = onnxruntime.InferenceSession(content, options, providers=there)
        except OSError as error:
            raise UsageError(f"--features: {path} cannot be read: {error.strerror or error}") from None
        except Exception as error:  # onnxruntime's errors have many types
            raise UsageError(f"--features: {path} is no ONNX graph: {_reason(error)}") from None
        self._path = path
        self._dtype = self._checked(shape)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the features, (n, d)."""
        parts = []
        for part in x.split(_AT_ONCE):
            levels = as_bytes(part).expand(-1, 3, -1, -1).contiguous().to(self._dtype).cpu().numpy()
            try:
                found = self._session.run(None, {self._session.get_inputs()[0].name: levels})[0]
            except Exception as error:  # as above
                raise UsageError(f"--features: {self._path} fails on {list(levels.shape)}: {_reason(error)}") from None
            if len(found) != len(part) or found.dtype.kind != "f":
                raise UsageError(
                    f"--features: {self._path} returns {list(found.shape)} {found.dtype} for {len(part)} pictures, "
                    f"allowed: [{len(part)}, d] of floats"
                )
            parts.append(torch.from_numpy(found).flatten(1).to(x.device))
        return torch.cat(parts)

    def _checked(self, shape: tuple[int, ...]) -> torch.dtype:
        """Return the type of the input; refuse one that takes no such pictures."""
        inputs = self._session.get_inputs()
        given = [size if isinstance(size, int) else "any" for size in inputs[0].shape] if inputs else []
        wanted = ["any", 3, *shape[1:]]
        fits = (
            len(given) == 4 and given[0] == "any" and all(a in (b, "any") for a, b in zip(given, wanted, strict=True))
        )
        if len(inputs) != 1 or inputs[0].type not in _TYPES or not fits:
            found = f"{len(inputs)} inputs" if len(inputs) != 1 else f"an input of {inputs[0].type} {given}"
            raise UsageError(f"--features: {self._path}: found {found}, allowed: one of uint8 or float {wanted}")
        return _TYPES[inputs[0].type]


def _reason(error: Exception) -> str:
    return cut(" ".join(str(error).split()), 200)
