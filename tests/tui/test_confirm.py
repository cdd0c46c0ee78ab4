import pytest
from textual.screen import Screen
from tui_host import SIZES, drive, shown, until

from cmbench.tui.screens.confirm import Ask, Confirm, TypedConfirm

HOSTILE = "[bold]a[/] \x1b[2J \u202e[@click=app.quit]"


def answer(screen, keys: list[str], size=SIZES[0]) -> tuple[object, str]:
    """Ask, press keys, and return the answer and what stood on the screen."""
    answers: list[object] = []
    seen: list[str] = []

    async def steps(app, pilot):
        app.push_screen(screen, answers.append)
        await until(pilot, lambda: app.screen is screen)
        await pilot.pause()
        seen.append(shown(app))
        await pilot.press(*keys)
        await pilot.pause()
        if app.screen is screen:
            seen.append(shown(app))
        else:
            await until(pilot, lambda: answers)

    drive(Screen, steps, size)
    return (answers[0] if answers else "none"), seen[-1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["y"], True),
        (["n"], False),
        (["q"], False),
        (["escape"], False),
        (["enter"], False),
        (["tab", "enter"], True),
        (["right", "enter"], True),
        (["x"], "none"),
    ],
)
def test_only_a_yes_is_one(size, keys, expected):
    assert answer(Confirm("Sure?"), keys, size)[0] == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [Confirm, Ask, lambda text: TypedConfirm(text, text)])
def test_a_question_may_hold_anything(size, make):
    _, text = answer(make(HOSTILE), ["f12"], size)
    assert "[bold]a[/] ␛[2J �[@click=app.quit]" in text
    assert "\x1b" not in text


def test_a_line_is_answered_as_it_was_typed():
    assert answer(Ask("Note?"), [*"a b", "enter"])[0] == "a b"
    assert answer(Ask("Note?", "old"), ["end", "x", "enter"])[0] == "oldx"
    assert answer(Ask("Note?", "old"), ["backspace", "escape"])[0] is None
    assert answer(Ask("Note?", "\x1b[2J"), ["enter"])[0] == "␛[2J"


def test_what_matters_is_typed_in_full():
    assert answer(TypedConfirm("Sure?", "a3f9"), [*"a3f9", "enter"])[0] is True
    assert answer(TypedConfirm("Sure?", "a3f9"), [*"a3f9", "escape"])[0] is False
    given, text = answer(TypedConfirm("Sure?", "a3f9"), [*"a3f8", "enter"])
    assert (given, "that is not a3f9" in text) == ("none", True)
    assert answer(TypedConfirm("Sure?", "a3f9"), ["enter"])[0] == "none"
