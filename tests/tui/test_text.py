import pytest

from cmbench.text import plain
from cmbench.tui.text import cell, content


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ct_edm", "ct_edm"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\nb\tc\r", "a␊b c␍"),
        ("\x9b2J\x7f", "�2J␡"),
        ("right \u202eto left", "right �to left"),
        ("\ud800", "�"),
        ("größe 数", "größe 数"),
    ],
)
def test_nothing_in_a_text_acts_on_the_terminal(text, shown):
    assert plain(text) == shown
    assert content(text).plain == cell(text).plain == shown


def test_markup_is_text():
    assert content("[bold]a[/] [@click=app.quit]b[/]").plain == "[bold]a[/] [@click=app.quit]b[/]"
    assert cell("[red]a[/red]").spans == []
