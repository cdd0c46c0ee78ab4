"""The levels of the U-Nets: the pictures of each are half as high and half as wide as those of the one before."""

from collections.abc import Sequence
from typing import NamedTuple

from cmbench.errors import UsageError
from cmbench.networks._pictures import measures


class Level(NamedTuple):
    """A level of a U-Net.

    Attributes:
        size: height and width of its pictures.
        channels: of its blocks.
        attends: whether its blocks attend.
    """

    size: tuple[int, int]
    channels: int
    attends: bool

    @property
    def name(self) -> str:
        """The size as in the names of modules, e.g. "16x16"."""
        return "{}x{}".format(*self.size)


def levels_of(size: tuple[int, int], width: int, multipliers: Sequence[int], attention: Sequence[int]) -> list[Level]:
    """Return the levels for pictures of height and width `size`, from the largest to the smallest.

    A level has `width` times its multiplier channels. It attends if the height of its pictures is among `attention`.

    Raises:
        UsageError: the size cannot be halved so often, or no level has a height that should attend.
    """
    count = len(multipliers)
    halved = [n for n in range(1, count + 1) if not any(side % 2 ** (n - 1) for side in size)]
    if halved[-1] < count:
        raise UsageError(
            f"network.multipliers: found {count} levels for pictures of {measures(*size)} pixels, which halve "
            f"evenly {halved[-1] - 1} times; allowed: at most {halved[-1]} levels"
        )
    sizes = [(size[0] >> i, size[1] >> i) for i in range(count)]
    levels = [Level(own, width * m, own[0] in attention) for own, m in zip(sizes, multipliers, strict=True)]
    check_heights("attention", attention, levels)
    return levels


def check_heights(key: str, heights: Sequence[int], levels: Sequence[Level]) -> None:
    """Refuse heights of pictures that a key of [network] names and no level has.

    Raises:
        UsageError: there is one.
    """
    known = [level.size[0] for level in levels]
    if unknown := [height for height in heights if height not in known]:
        what = "sizes" if len(set(levels[0].size)) == 1 else "heights"
        raise UsageError(f"network.{key}: found {unknown[0]}, allowed: the {what} of the levels {known}")


def heads_of(channels: int, each: int) -> int:
    """Return the number of heads of `each` channels. Fewer channels than a head has do not attend, as published."""
    return channels // each


def check_heads(each: int, levels: Sequence[Level]) -> None:
    """Refuse heads of `each` channels that blocks cannot have. The lowest level also attends in the middle.

    Raises:
        UsageError: a level should attend and has too few channels, or heads would not share its channels evenly.
    """
    for level in levels:
        if level.attends and level.channels < each:
            raise UsageError(
                f"network.attention: found {level.size[0]}, where there are {level.channels} channels, allowed: sizes "
                f"of at least network.head_channels = {each}"
            )
        uneven = heads_of(level.channels, each) and level.channels % each
        if uneven and (level.attends or level is levels[-1]):
            raise UsageError(f"network.head_channels: found {each}, allowed: a divisor of {level.channels}")
