"""A call of a torch function on dual tensors: the input of the rules of cmbench.forward_mode.dual."""

from collections.abc import Callable
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Call(NamedTuple):
    """A call of a torch function; its keywords are constants."""

    function: Function
    primals: list[Any]
    tangents: list[Any]
    keywords: dict[str, Any]

    def of(self, *primals: Any) -> Any:
        """Call the same function on other arguments, with the same keywords."""
        return self.function(*primals, **self.keywords)

    def arguments(self, **defaults: Any) -> tuple[Any, ...]:
        """Return the primals in the order of the function's signature, which is given as name=default."""
        return tuple({**defaults, **dict(zip(defaults, self.primals, strict=False)), **self.keywords}.values())

    def constant_from(self, position: int) -> bool:
        """Whether the arguments from `position` on are constants."""
        return len(self.tangents) <= position or all(t is None for t in self.tangents[position:])


Rule = Callable[[Call, Any], Any]
RuleWithValue = Callable[[Call], Any]
