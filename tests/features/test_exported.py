"""Features by an ONNX graph: what it is given, what it returns, and graphs that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmbench.engine import features
from cmbench.errors import UsageError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")


def graph(path: Path, kind: int, shape: list, axes: list[int] | None = None) -> Path:
    """Write a graph that returns the mean of each channel, or other means."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["y"], axes=axes or [2, 3], keepdims=0),
    ]
    given = helper.make_tensor_value_info("x", kind, shape)
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "means", [given], [found]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("kind", ["UINT8", "FLOAT"])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_graph_gets_pictures_of_256_levels(tmp_path, kind, colours):
    file = graph(tmp_path / "means.onnx", getattr(onnx.TensorProto, kind), ["n", 3, "h", "w"])
    levels = torch.randint(0, 256, (70, colours, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = features.named(str(file), (colours, 4, 6), CPU)(levels / 127.5 - 1)
    assert found.shape == (70, 3)
    np.testing.assert_allclose(found, levels.expand(-1, 3, -1, -1).double().mean(dim=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape", "axes", "says"),
    [
        ("UINT8", ["n", 3, 224, 224], None, r"an input of tensor\(uint8\) \['any', 3, 224, 224\], allowed: one of"),
        ("UINT8", [8, 3, 4, 4], None, r"\[8, 3, 4, 4\], allowed: one of uint8 or float \['any', 3, 4, 4\]"),
        ("UINT8", ["n", 1, 4, 4], None, r"\['any', 1, 4, 4\]"),
        ("DOUBLE", ["n", 3, 4, 4], None, r"an input of tensor\(double\)"),
        ("UINT8", ["n", 3, 4, 4], [0], r"returns \[3, 4, 4\] float32 for 5 pictures, allowed: \[5, d\] of floats"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(tmp_path, kind, shape, axes, says):
    file = graph(tmp_path / "x.onnx", getattr(onnx.TensorProto, kind), shape, axes)
    with pytest.raises(UsageError, match=says):
        features.named(str(file), (3, 4, 4), CPU)(torch.zeros(5, 3, 4, 4))


def test_what_is_no_graph_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    for name, says in (("text", "is no ONNX graph"), ("missing", "cannot be read: No such file")):
        with pytest.raises(UsageError, match=says) as found:
            features.named(str(tmp_path / f"{name}.onnx"), (3, 4, 4), CPU)
        assert "\n" not in str(found.value)
    with pytest.raises(UsageError, match="for samples of shape \\[2\\], allowed for them: pixels"):
        features.named(str(tmp_path / "text.onnx"), (2,), CPU)
