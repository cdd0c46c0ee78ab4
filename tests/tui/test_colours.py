from itertools import combinations

import numpy as np
import pytest
from textual.color import Color

from cmbench.tui.colours import COLOUR_BLIND, DARK, LEVELS, LIGHT, shade_characters, shades, themes
from cmbench.views.lines import line_colours

THEMES = {theme.name: theme for theme in themes()}

# Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009),
# severity 1, for linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(name):
    share = np.array(Color.parse(name).normalized)
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear sRGB; in it a distance of 2.3 is just noticeable."""
    share = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    f = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
    """WCAG 2."""
    low, high = sorted(float(XYZ[1] @ linear(name)) + 0.05 for name in (a, b))
    return high / low


@pytest.mark.parametrize("name", THEMES)
def test_every_theme_has_eight_colours_of_lines(name):
    colours = [THEMES[name].variables[f"line-{i}"] for i in range(8)]
    assert len(set(colours)) == 8
    assert all(Color.parse(colour) for colour in colours)
    assert all(colour.startswith("ansi_") == name.startswith("ansi") for colour in colours)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("dark", [True, False])
def test_any_two_lines_differ_for_every_sight(dark, sight):
    seen = [lab(SIGHT[sight] @ linear(colour)) for colour in line_colours("any", dark).values()]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 12


@pytest.mark.parametrize("name", [DARK, LIGHT, COLOUR_BLIND])
def test_lines_stand_out_from_the_background(name):
    ground = THEMES[name].background or ("#121212" if THEMES[name].dark else "#e0e0e0")
    assert all(contrast(THEMES[name].variables[f"line-{i}"], ground) > 2.5 for i in range(8))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [DARK, COLOUR_BLIND])
def test_a_map_rises_in_brightness(theme, sight):
    light = [lab(SIGHT[sight] @ linear(f"rgb{tuple(s.bgcolor.triplet)}"))[0] for s in shades(theme, False)]
    assert len(light) == LEVELS
    assert (np.diff(light) > 0).all()
    assert light[-1] - light[0] > 60


@pytest.mark.parametrize("sight", SIGHT)
def test_a_diverging_map_is_brightest_in_the_middle_and_its_ends_differ(sight):
    seen = [lab(SIGHT[sight] @ linear(f"rgb{tuple(s.bgcolor.triplet)}")) for s in shades(DARK, True)]
    light = np.array([each[0] for each in seen])
    assert (np.diff(light[: LEVELS // 2]) > 0).all()
    assert (np.diff(light[LEVELS // 2 :]) < 0).all()
    assert np.linalg.norm(seen[0] - seen[-1]) > 40


def test_shades_without_colours():
    assert shade_characters(True).isascii()
    assert len(set(shade_characters(False))) == len(shade_characters(False)) == len(shade_characters(True)) == 5
