import asyncio
import random
from itertools import pairwise

import pyte
import pytest
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.segment import ControlType, Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets import Static

from cmbench.tui.output import lean

WIDTH, HEIGHT = 40, 8


class Terminal:
    def __init__(self, *outputs):
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self.stream = pyte.Stream(self.screen)
        self.sent = 0
        for output in outputs:
            self.feed(output)

    def feed(self, output):
        self.sent += len(output.encode())
        self.stream.feed(output)

    def __eq__(self, other):
        rows = range(HEIGHT)
        return all(self.screen.buffer[y][x] == other.screen.buffer[y][x] for y in rows for x in range(WIDTH))

    __hash__ = None


def a_colour(dice):
    kinds = [
        None,
        Color.default(),
        Color.from_ansi(dice.randrange(16)),
        Color.from_ansi(dice.randrange(16, 256)),
        Color.from_rgb(*(dice.randrange(256) for _ in range(3))),
    ]
    return dice.choice(kinds)


def a_style(dice):
    def wanted():
        return dice.choice([None, None, True, False])

    if dice.random() < 0.2:
        return None
    return Style(
        color=a_colour(dice), bgcolor=a_colour(dice), bold=wanted(), italic=wanted(), underline=wanted(),
        reverse=wanted(), strike=wanted(),
    )  # fmt: skip


def a_strip(dice, width):
    """A strip of some cells, among them wide characters."""
    styles = [a_style(dice) for _ in range(3)]
    segments, left = [], width
    while left:
        text = "".join(dice.choice("ab x  ⣿数é") for _ in range(dice.randrange(1, 9)))
        while cell_len(text) > left:
            text = text[:-1]
        if text:
            segments.append(Segment(text, dice.choice(styles)))
            left -= cell_len(text)
    return Strip(segments, width)


def a_line(dice):
    cuts = sorted({0, WIDTH, *(dice.randrange(1, WIDTH) for _ in range(dice.randrange(3)))})
    return {a: a_strip(dice, b - a) for a, b in pairwise(cuts)}, cuts[1:]


@pytest.mark.parametrize("system", ["standard", "256", "truecolor"])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_screen_in_fewer_bytes(seed, system):
    dice = random.Random(f"{seed} {system}")  # Textual keeps the codes of a style whatever the colour system
    console = Console(color_system=system, force_terminal=True)
    lines = [a_line(dice) for _ in range(HEIGHT)]
    whole = LayoutUpdate([list(line.values()) for line, _ in lines], Region(0, 0, WIDTH, HEIGHT))
    plain, short = Terminal(whole.render_segments(console)), Terminal(lean(whole).render_segments(console))
    assert plain == short
    for _ in range(4):
        changed, spans = [dict(line) for line, _ in lines], []
        for y in sorted(dice.sample(range(HEIGHT), 3)):
            x1, x2 = sorted(dice.sample(edges(lines[y][0]), 2))
            changed[y] = {x: painted(dice, strip, x1 - x, x2 - x) for x, strip in lines[y][0].items()}
            spans.append((y, x1, x2))
        update = ChopsUpdate(changed, spans, [ends for _, ends in lines])
        lines = [(line, ends) for line, (_, ends) in zip(changed, lines, strict=True)]
        plain.feed(update.render_segments(console))
        short.feed(lean(update).render_segments(console))
        assert plain == short
    assert short.sent < 0.9 * plain.sent


def edges(line):
    """The cells at which a character begins or the line ends."""
    text = "".join(strip.text for strip in line.values())
    return [cell_len(text[:i]) for i in range(len(text) + 1)]


def painted(dice, strip, start, stop):
    """Give the characters of a strip that lie wholly between two cells another style: what a widget would do."""
    style, at, segments = a_style(dice), 0, []
    for text, old, _ in strip:
        for character in text:
            inside = start <= at and at + cell_len(character) <= stop
            segments.append(Segment(character, style if inside else old))
            at += cell_len(character)
    return Strip(segments, strip.cell_length).simplify()


def test_a_wide_character_across_the_edge_of_a_change_stays_whole():
    console = Console(color_system="truecolor", force_terminal=True)
    line = {0: Strip([Segment("a数数" + "." * (WIDTH - 5), Style(color="red"))], WIDTH)}
    whole = LayoutUpdate([[line[0]]], Region(0, 0, WIDTH, 1)).render_segments(console)
    for x1 in range(6):
        update = ChopsUpdate([line], [(0, x1, 9)], [[WIDTH]])
        assert Terminal(whole, lean(update).render_segments(console)) == Terminal(whole)


def test_controls_and_links_go_through_as_they_are():
    """textual-image hands over the pixels of a picture as a control."""
    console = Console(color_system="truecolor", force_terminal=True)
    sixel = Segment("\x1bPq#0~~\x1b\\", Style.null(), [(ControlType.CURSOR_FORWARD, 0)])
    link = Segment("here", Style(color="red", link="https://example.org"))
    strip = Strip([Segment("ab", Style(bold=True)), sixel, link], 6)
    for update in (LayoutUpdate([[strip]], Region(0, 0, 6, 1)), ChopsUpdate([{0: strip}], [(0, 1, 6)], [[6]])):
        sent = lean(update).render_segments(console)
        assert sixel.text in sent
        assert link.style.render("here") in sent
        assert sent.index(sixel.text) < sent.index("https")
        assert sent.index("ab") < sent.index("\x1b[0m") < sent.index(sixel.text)


def test_other_updates_are_left_alone():
    class Own(LayoutUpdate):
        pass

    update = Own([], Region(0, 0, 0, 0))
    assert lean(update) is update


def test_a_change_of_one_cell_of_a_wide_line_costs_a_few_bytes():
    console = Console(color_system="truecolor", force_terminal=True)
    line = {0: Strip([Segment("x" * WIDTH, Style(color="#123456"))], WIDTH)}
    update = ChopsUpdate([line], [(0, 30, 31)], [[WIDTH]])
    assert len(lean(update).render_segments(console)) < 40 < len(update.render_segments(console))


def test_updates_of_a_live_application():
    async def main():
        class Two(App):
            def compose(self):
                yield Static("[b red]left[/] 数字 " * 3, id="a")
                yield Static("[on blue]right[/]", id="b")

        app = Two()
        async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
            await pilot.pause()
            console, compositor = app.console, app.screen._compositor
            whole = compositor.render_full_update()
            assert Terminal(whole.render_segments(console)) == Terminal(lean(whole).render_segments(console))
            app.query_one("#a").update("other [i]text[/]")
            compositor.update_widgets({app.query_one("#a")})
            part = compositor.render_partial_update()
            screens = [
                Terminal(a.render_segments(console), b.render_segments(console))
                for a, b in ((whole, part), (lean(whole), lean(part)))
            ]
            assert screens[0] == screens[1]

    asyncio.run(main())
