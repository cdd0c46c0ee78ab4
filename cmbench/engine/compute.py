"""What training costs, in forward passes of the student's network: methods are compared at equal compute.

Evaluations and looks at the tangent's parts are not counted.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from cmbench.networks._model import Model


@dataclass(frozen=True)
class Compute:
    """Forward-equivalents: a forward pass of the student counts 1, a backward pass 2, the derivative of a pass 1.

    Attributes:
        per_image: of one training image, the target's and the teacher's passes included.
        before: what the runs have cost that the teacher or the first weights come from.
    """

    per_image: float
    before: float = 0.0

    def so_far(self, images: int) -> dict[str, float]:
        """Return the figures of a metrics row after so many images."""
        spent = {"forwards_per_image": self.per_image, "forwards": self.per_image * images}
        return {**spent, "forwards_with_teacher": spent["forwards"] + self.before} if self.before else spent


def per_image(forwards: dict[str, float], student: Model, teacher: Model | None) -> float:
    """Return the forward-equivalents of one image.

    Args:
        forwards: of the objective, by who makes them.
        student: the unit.
        teacher: the trained model that makes the passes called "teacher"; None for an oracle, which has no network.
    """
    own = sum(count for who, count in forwards.items() if who != "teacher")
    return own + (forwards.get("teacher", 0.0) * relative_cost(teacher, student) if teacher else 0.0)


def relative_cost(model: Model, unit: Model) -> float:
    """Return the floating-point operations of a forward pass of one model over those of another."""
    return _flops(model) / _flops(unit)


@torch.no_grad()
def _flops(model: Model) -> int:
    parameter = next(model.parameters())
    x = torch.zeros(1, *model.shape, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model.F(x, model.time(torch.ones(1, device=parameter.device, dtype=parameter.dtype)))
    model.train(was_training)
    return max(1, counter.get_total_flops())
