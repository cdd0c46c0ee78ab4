import pytest
from fake_runs import fake_run
from tui_host import SIZES, drive, shown, until

from cmbench.tui.screens.recipe import RecipeScreen, read_toml

SOURCE = '# [bold]as given[/]\nname = "fake"\nnote = "\x1b[2J\x07 \u202e [@click=app.quit]"\r\n'


@pytest.fixture
def run(tmp_path):
    made = fake_run(tmp_path, "ct_edm-20261122-221503-a3f9")
    made.recipe_source.write_bytes(SOURCE.encode())
    return made


@pytest.mark.parametrize("size", SIZES)
def test_tab_turns_to_the_recipe_as_given_and_back(run, size):
    async def steps(app, pilot):
        await until(pilot, lambda: "seed = 0" in shown(app))
        assert "ct_edm·a3f9 · recipe.toml" in shown(app)
        await pilot.press("tab")
        await until(pilot, lambda: "as given" in shown(app))
        assert "ct_edm·a3f9 · recipe.source.toml" in shown(app)
        assert "seed = 0" not in shown(app)
        await pilot.press("tab")
        await until(pilot, lambda: "seed = 0" in shown(app))

    drive(lambda: RecipeScreen(run), steps, size)


@pytest.mark.parametrize("key", ["escape", "v"])
def test_it_leads_back(run, key):
    async def steps(app, pilot):
        await until(pilot, lambda: "seed = 0" in shown(app))
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, RecipeScreen))

    drive(lambda: RecipeScreen(run), steps)


def test_it_scrolls(run):
    run.recipe.write_text("".join(f"key_{i} = {i}\n" for i in range(100)))

    async def steps(app, pilot):
        await until(pilot, lambda: "key_0 = 0" in shown(app))
        await pilot.press("j", "down")
        await until(pilot, lambda: "key_1 = 1" not in shown(app))
        await pilot.press("k", "k")
        await until(pilot, lambda: "key_0 = 0" in shown(app))
        await pilot.press("end")
        await until(pilot, lambda: "key_99 = 99" in shown(app))

    drive(lambda: RecipeScreen(run), steps, SIZES[1])


def test_what_it_holds_is_text(run):
    toml = read_toml(run.recipe_source)
    assert toml.plain == '# [bold]as given[/]\nname = "fake"\nnote = "␛[2J␇ � [@click=app.quit]"'
    assert len({span.style for span in toml.spans}) > 2
    assert all("click" not in str(span.style) for span in toml.spans)


def test_what_cannot_be_read_is_said(run):
    run.recipe_source.unlink()
    assert read_toml(run.recipe_source).plain == "recipe.source.toml: cannot be read: No such file or directory"
    run.recipe_source.write_bytes(b"\xff\xfe = 1")
    assert read_toml(run.recipe_source).plain.endswith(" = 1")


def test_what_was_read_for_a_screen_that_is_left_is_dropped(run):
    async def steps(app, pilot):
        screen = app.screen
        await until(pilot, lambda: "seed = 0" in shown(app))
        await screen.remove_children()
        await RecipeScreen._show.__wrapped__(screen)

    drive(lambda: RecipeScreen(run), steps)
