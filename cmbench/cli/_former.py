"""Former names of options: still accepted, so that old scripts work, but listed nowhere."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperCommand


def names(**names: str) -> type[TyperCommand]:
    """Return a command class that also accepts former names of options.

    Args:
        names: current names by former names, both without leading dashes and with _ for inner dashes.
    """

    class Command(_Command):
        now: ClassVar[Mapping[str, str]] = {_option(before): _option(now) for before, now in names.items()}

    return Command


class _Command(TyperCommand):
    now: ClassVar[Mapping[str, str]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_renamed(args, self.now)))


def _option(name: str) -> str:
    return f"{'-' if len(name) == 1 else '--'}{name.replace('_', '-')}"


def _renamed(args: Sequence[str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield the arguments with current option names; arguments after -- stay as they are."""
    ended = False
    for arg in args:
        ended = ended or arg == "--"
        name, equals, value = arg.partition("=")
        short = arg[:2] if arg[:1] == "-" != arg[1:2] else ""
        if ended:
            yield arg
        elif name in now:
            yield f"{now[name]}{equals}{value}"
        elif short in now:  # its value follows at once, as in -n20
            yield f"{now[short]}={arg[2:]}"
        else:
            yield arg
