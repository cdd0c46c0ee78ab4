"""The levels of all U-Nets: which there are, which attend, and what is refused, in the same words."""

import pytest
import torch
from pydantic import ValidationError

from cmbench.config import check
from cmbench.errors import UsageError
from cmbench.networks import adm, ddpmpp, edm2, ncsnpp, unet
from cmbench.networks._levels import levels_of

MODULES = {"unet": unet, "ddpmpp": ddpmpp, "ncsnpp": ncsnpp, "adm": adm, "edm2": edm2}
SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1}
all_kinds = pytest.mark.parametrize("kind", MODULES)


def network(kind, shape, **settings):
    heads = {"head_channels": 8} if kind in ("adm", "edm2") else {}
    with torch.device("meta"):
        return MODULES[kind].Network(MODULES[kind].Config(**{**SMALL, **heads, **settings}), shape, 0)


def attending(net):
    """The heights at which attention is computed, by the pixels that a pass brings there."""
    found, shape = [], (1, 8, 12)

    def note(module, args):
        found.append(args[0].shape[2])

    for name, module in net.named_modules():
        if name.endswith("qkv"):
            module.register_forward_pre_hook(note)
    net(torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta"))
    return set(found)


@all_kinds
@pytest.mark.parametrize(("heights", "expected"), [((8,), {8}), ((4,), {4}), ((8, 4), {8, 4}), ((), set())])
def test_attention_names_heights_of_pictures_that_are_not_square(kind, heights, expected):
    """The published networks also attend in the middle, at the lowest level."""
    middle = set() if kind == "unet" else {4}
    assert attending(network(kind, (1, 8, 12), attention=heights)) == expected | middle


@all_kinds
def test_heights_that_no_level_has_are_refused_in_the_same_words(kind):
    with pytest.raises(UsageError, match=r"network\.attention: found 12, allowed: the heights of the levels \[8, 4\]"):
        network(kind, (1, 8, 12), attention=(12,))
    with pytest.raises(UsageError, match=r"network\.attention: found 16, allowed: the sizes of the levels \[8, 4\]"):
        network(kind, (1, 8, 8), attention=(16,))


@all_kinds
def test_pictures_that_cannot_be_halved_are_refused_in_the_same_words(kind):
    refused = (
        "network.multipliers: found 3 levels for pictures of {} pixels, which halve evenly 1 times; allowed: at most 2"
    )
    for shape, measures in (((1, 6, 6), "6"), ((1, 8, 6), "8x6"), ((1, 6, 8), "6x8")):
        with pytest.raises(UsageError) as told:
            network(kind, shape, multipliers=(1, 1, 1))
        assert str(told.value).startswith(refused.format(measures))


@all_kinds
@pytest.mark.parametrize("multipliers", [[], [1, 0], [65]], ids=str)
def test_multipliers_that_make_no_network_are_refused_in_the_same_words(kind, multipliers):
    with pytest.raises(UsageError) as told:
        check(MODULES[kind].Config, {"multipliers": multipliers}, "a.toml", "network")
    assert str(told.value) == (
        f"a.toml: network.multipliers: found {multipliers}, allowed: one or more integers from 1 to 64"
    )
    with pytest.raises(ValidationError, match="multipliers"):
        MODULES[kind].Config(multipliers=multipliers)


@pytest.mark.parametrize("kind", ["adm", "edm2"])
def test_fewer_channels_than_a_head_has_do_not_attend_as_published(kind):
    """The number of heads is channels // 64 in the public code of both, so 0 in the middle of a narrow network."""
    net = network(kind, (1, 8, 8), attention=(), head_channels=64)
    assert [name for name in net.state_dict() if "qkv" in name] == []
    with pytest.raises(UsageError, match=r"network\.attention: found 8, where there are 8 channels, allowed: sizes of"):
        network(kind, (1, 8, 8), attention=(8,), head_channels=16)
    with pytest.raises(UsageError, match=r"network\.head_channels: found 6, allowed: a divisor of 16"):
        network(kind, (1, 8, 8), attention=(), head_channels=6)


def test_a_level_is_named_by_its_height_and_width():
    levels = levels_of((24, 32), 16, (1, 3), (12,))
    assert [(level.name, level.channels, level.attends) for level in levels] == [
        ("24x32", 16, False),
        ("12x16", 48, True),
    ]
