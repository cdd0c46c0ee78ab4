"""Steps of torch's optimisers on a CPU, with the small parameters joined into one.

There an update of a small tensor costs as much as its calls, and RAdam computes its factors for each tensor anew. The
updates are elementwise, so the results are those of torch bit for bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_SMALL = 1 << 14  # elements of a tensor that is joined: to copy a larger one costs what its calls do
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Joining(torch.optim.Optimizer):
    """Beside one of torch's optimisers, whose state and whose results it keeps. It has one group of parameters."""

    plain: type[Any]  # torch's class
    _joined: "_Joined | None" = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step. Tensors are joined once they have moments, from the second step on."""
        if self._joined is None or not self._joined.is_whole():
            self._joined = _join(self)
        return super().step(closure) if self._joined is None or closure is not None else self._joined.step(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take another state, whose moments are joined at the next step."""
        super().load_state_dict(state_dict)
        self._joined = None


class RAdam(Joining, torch.optim.RAdam):
    """torch's RAdam."""

    plain = torch.optim.RAdam


class Adam(Joining, torch.optim.Adam):
    """torch's Adam."""

    plain = torch.optim.Adam


class AdamW(Joining, torch.optim.AdamW):
    """torch's AdamW."""

    plain = torch.optim.AdamW


class _Joined:
    """Small parameters as one, whose moments and steps the optimiser's state then names piece by piece."""

    def __init__(self, optimizer: Joining, small: list[Tensor]) -> None:
        self._small, state = small, optimizer.state
        joined = set(small)
        others = [p for p in optimizer.param_groups[0]["params"] if p not in joined]
        self._whole = nn.Parameter(torch.cat([p.detach().flatten() for p in small]))
        self._whole.grad = torch.empty_like(self._whole)
        self._weights = self._pieces(self._whole.detach())
        self._inner: torch.optim.Optimizer = optimizer.plain([*others, self._whole])  # its settings come with each step
        for p in others:
            self._inner.state[p] = state[p]  # the same dictionary: what it gets belongs to both
        self._steps = torch.stack([state[p]["step"] for p in small])
        moments = {name: torch.cat([state[p][name].flatten() for p in small]) for name in _MOMENTS}
        self._inner.state[self._whole] = {"step": self._steps[0].clone(), **moments}
        pieces = {name: self._pieces(whole) for name, whole in moments.items()}
        for i, p in enumerate(small):
            state[p].update({"step": self._steps[i], **{name: own[i] for name, own in pieces.items()}})

    def is_whole(self) -> bool:
        """Return whether all that is joined has a gradient."""
        return all(p.grad is not None for p in self._small)

    @torch.no_grad()
    def step(self, optimizer: Joining) -> None:
        """Take a step of all parameters, with the optimiser's settings."""
        assert self._whole.grad is not None
        torch.cat([p.grad.flatten() for p in self._small if p.grad is not None], out=self._whole.grad)
        torch.cat([p.flatten() for p in self._small], out=self._whole.detach())
        settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
        self._inner.param_groups[0].update(settings)
        self._inner.step()
        torch._foreach_copy_(self._small, self._weights)
        self._steps += 1

    def _pieces(self, whole: Tensor) -> list[Tensor]:
        sizes = [p.numel() for p in self._small]
        return [piece.view_as(p) for piece, p in zip(whole.split(sizes), self._small, strict=True)]


def _join(optimizer: Joining) -> _Joined | None:
    """Join the small parameters that have gradients and equally many steps behind them, of the first one's type.

    Layouts of their own stay. None if few have, or if one kernel updates them all already.
    """
    if optimizer.param_groups[0].get("fused"):
        return None
    small = [
        p
        for p in optimizer.param_groups[0]["params"]
        if p.device.type == "cpu" and p.numel() < _SMALL and p.is_contiguous() and p.grad is not None
        if optimizer.state.get(p)
    ]
    small = [p for p in small if p.dtype == small[0].dtype]
    steps = {float(optimizer.state[p]["step"]) for p in small}
    return _Joined(optimizer, small) if len(small) > 1 and len(steps) == 1 else None
