"""The cost of training in forward passes of the student's network, to compare methods at equal compute.

Evaluations and measurements of the tangent's parts are not counted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cmbench.engine.teacher import Teacher
from cmbench.model import Model


@dataclass(frozen=True)
class Compute:
    """Forward-equivalents: a forward pass of the student counts 1, a backward pass 2, the derivative of a pass 1.

    Attributes:
        per_image: for one training image, including the target's and the teacher's passes.
        before: cost of the runs from which the teacher or the initial weights come.
    """

    per_image: float
    before: float = 0.0

    def so_far(self, images: int) -> dict[str, float]:
        """Return the figures of a metrics row after so many images."""
        spent = {"forwards_per_image": self.per_image, "forwards": self.per_image * images}
        return {**spent, "forwards_with_teacher": spent["forwards"] + self.before} if self.before else spent


def per_image(forwards: dict[str, float], teacher: float) -> float:
    """Return the forward-equivalents of one image.

    Args:
        forwards: the objective's passes by who makes them.
        teacher: cost of each pass called "teacher", as `of_teacher` returns it.
    """
    return sum(count * (teacher if who == "teacher" else 1.0) for who, count in forwards.items())


def of_teacher(teacher: Teacher | None, student: Model, conditional: bool) -> float:
    """Return the cost of one teacher call, in forward passes of the student.

    An oracle is a closed form and costs nothing. A trained model costs what its network does, and so does a custom
    module. Any other custom class counts as one forward pass of the student, since its cost is unknown.
    """
    if teacher is None or teacher.config.kind == "oracle":
        return 0.0
    if teacher.trained is not None:
        return relative_cost(teacher.trained.model, student)
    denoise, p = teacher.denoiser.denoise, next(student.parameters())
    if not isinstance(teacher.denoiser, nn.Module):
        return 1.0
    labels = torch.zeros(1, dtype=torch.int64, device=p.device) if conditional else None
    with torch.no_grad():
        theirs = operations(lambda: denoise(p.new_zeros(1, *student.shape), p.new_ones(1), labels))
    return theirs / _flops(student)


def relative_cost(model: Model, unit: Model) -> float:
    """Return the floating-point operations of a forward pass of one model over those of another."""
    return _flops(model) / _flops(unit)


def _flops(model: Model) -> int:
    p = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = operations(lambda: model.F(p.new_zeros(1, *model.shape), model.time(p.new_ones(1))))
    model.train(was_training)
    return found


def operations(run: Callable[[], object]) -> int:
    """Return the floating-point operations of the matrix products and convolutions of a call."""
    from torch.utils.flop_counter import FlopCounterMode  # here: few need it

    ops = torch.ops.aten
    fused = {  # the kernel of CPUs, which torch's counter does not know; it counts as the products that it stands for
        ops._scaled_dot_product_flash_attention_for_cpu: _of_attention,
        ops._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, *shapes, **more: 2 * _of_attention(*shapes),
    }
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        run()
    return max(1, counter.get_total_flops())


def _of_attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
    """Return the operations of q k^T and of the product with v, from the shapes (..., N, d)."""
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
