"""Steps of the training loop itself, in memory: without evaluation, snapshot or checkpoint, and never the last."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from cmbench.engine import loop
from cmbench.engine.trainer import Trainer

_NEVER = 10**9  # steps


def in_memory(built: Trainer, rows_every: int | None = None, batch_size: int | None = None) -> Trainer:
    """Return a trainer of the same state that never comes to its last step.

    Args:
        built: the recipe.
        rows_every: steps between rows, and between looks at the tangent's parts, where the recipe has any; 0: never.
            None: as in the recipe.
        batch_size: in place of the recipe's.
    """
    recipe = built.recipe
    changes: dict[str, dict[str, int]] = {name: {"every": 0} for name in ("checkpoint", "snapshot", "evaluate")}
    if rows_every is not None:
        every, looks = rows_every or _NEVER, recipe.profile.anatomy_every and rows_every
        changes |= {"log": {"every": every}, "profile": {"anatomy_every": looks}}
        changes["profile"] |= {"every": every} if recipe.profile.every else {}
    changes["train"] = {"steps": built.state.step + _NEVER - 1}
    changes["train"] |= {} if batch_size is None else {"batch_size": batch_size}
    tables = {name: getattr(recipe, name).model_copy(update=own) for name, own in changes.items()}
    return replace(built, recipe=recipe.model_copy(update=tables))


def taken(built: Trainer, told: Callable[[loop.Event], object] = lambda event: None) -> Iterator[None]:
    """Take a step for each item that is asked for, and tell of the events within it.

    Raises:
        ArithmeticError: loss or gradient is not finite.
    """
    for event in loop.train(built):
        if isinstance(event, loop.Diverged):
            raise ArithmeticError(f"the {event.what} is not finite after {event.step} steps")
        if isinstance(event, loop.Stepped):
            yield
        else:
            told(event)
