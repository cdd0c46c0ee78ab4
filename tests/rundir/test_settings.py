"""Which settings led to a checkpoint and which come after it, from journals of several segments."""

import pytest

from cmbench.rundir import settings


def opens(first_step: int) -> dict:
    return {"segment": 1, "first_step": first_step}


def given(identity: str, step: int, result: str = "done", **values: float) -> dict:
    replayed = {"replayed": True} if values.pop("replayed", False) else {}
    row = {"kind": "request", "action": "set", "id": identity, "step": step, "result": result, "settings": values}
    return {**row, **replayed}


def named(rows: list[dict]) -> list[tuple[str, int, dict]]:
    return [(row["id"], row["step"], row["settings"]) for row in rows]


def split(rows: list[dict], step: int) -> tuple[list, list]:
    made, ahead = settings.at(rows, step)
    return named(made), named(ahead)


@pytest.mark.parametrize(("step", "in_force"), [(0, 0), (3, 0), (4, 1), (8, 1), (9, 2), (12, 2)])
def test_a_setting_is_in_force_from_its_own_step(step, in_force):
    rows = [opens(1), given("a", 4, lr=1.0), given("b", 9, lr=2.0)]
    made, ahead = split(rows, step)
    assert made + ahead == [("a", 4, {"lr": 1.0}), ("b", 9, {"lr": 2.0})]
    assert len(made) == in_force


def test_what_was_refused_and_other_requests_are_none():
    pause = {"kind": "request", "action": "pause", "id": "p", "step": 2, "result": "done"}
    rows = [opens(1), given("a", 2, result="refused: so", lr=1.0), pause, {"kind": "started", "step": 0}]
    assert split(rows, 5) == ([], [])


def test_one_made_again_is_there_once():
    rows = [opens(1), given("a", 9, lr=1.0), opens(6), given("a", 9, lr=1.0, replayed=True)]
    assert split(rows, 10) == ([("a", 9, {"lr": 1.0})], [])
    assert split(rows, 5) == ([], [("a", 9, {"lr": 1.0})])


def test_one_not_yet_made_again_is_not_lost_by_a_second_resume():
    rows = [opens(1), given("a", 9, lr=1.0), opens(6), opens(8)]
    assert split(rows, 7) == ([], [("a", 9, {"lr": 1.0})])


def test_one_at_the_checkpoint_that_was_not_made_again_is_still_ahead():
    """The checkpoint of step 9 was written again, and the trainer killed before it made the setting again."""
    rows = [opens(1), given("a", 9, lr=1.0), opens(6)]
    assert split(rows, 9) == ([], [("a", 9, {"lr": 1.0})])


def test_of_two_at_one_step_the_later_stays_the_later():
    rows = [opens(1), given("a", 9, lr=1.0), given("b", 9, lr=2.0), opens(6), given("a", 9, lr=1.0, replayed=True)]
    assert split(rows, 5) == ([], [("a", 9, {"lr": 1.0}), ("b", 9, {"lr": 2.0})])


def test_a_new_one_replaces_later_ones_for_its_keys():
    rows = [opens(1), given("a", 7, lr=1.0), given("b", 9, lr=2.0, every=3.0), opens(6), given("c", 5, lr=4.0)]
    assert split(rows, 5) == ([("c", 5, {"lr": 4.0})], [("b", 9, {"every": 3.0})])
    assert split(rows, 3) == ([], [("c", 5, {"lr": 4.0}), ("b", 9, {"every": 3.0})])


def test_one_made_again_replaces_nothing():
    rows = [opens(1), given("a", 7, lr=1.0), given("b", 9, lr=2.0), opens(6), given("a", 7, lr=1.0, replayed=True)]
    assert split(rows, 8) == ([("a", 7, {"lr": 1.0})], [("b", 9, {"lr": 2.0})])


def abandons(first_step: int) -> dict:
    return {**opens(first_step), "abandons": True}


def test_what_a_later_segment_abandons_is_not_made_again():
    rows = [opens(1), given("a", 4, lr=1.0), given("b", 5, lr=2.0), given("c", 6, lr=3.0), given("d", 9, lr=4.0)]
    assert split([*rows, abandons(6)], 5) == ([("a", 4, {"lr": 1.0}), ("b", 5, {"lr": 2.0})], [])
    later = [*rows, abandons(6), opens(6), given("e", 7, lr=5.0), opens(6)]
    assert split(later, 5) == ([("a", 4, {"lr": 1.0}), ("b", 5, {"lr": 2.0})], [("e", 7, {"lr": 5.0})])


def test_one_that_was_still_to_be_made_again_at_the_checkpoint_itself_is_not_abandoned():
    rows = [opens(1), given("a", 9, lr=1.0), opens(6), abandons(10)]
    assert split(rows, 9) == ([], [("a", 9, {"lr": 1.0})])


def test_two_of_one_name_are_two():
    """A script that asks by hand may call its file the same each time."""
    rows = [opens(1), given("1", 4, lr=1.0), given("1", 9, every=2.0)]
    assert split(rows, 5) == ([("1", 4, {"lr": 1.0})], [("1", 9, {"every": 2.0})])


def test_what_is_in_force_by_now():
    rows = [
        opens(1),
        given("a", 4, lr=1.0, every=3.0),
        given("b", 9, lr=2.0),
        given("c", 9, result="refused: so", lr=5),
    ]
    assert settings.in_force(rows) == {"lr": 2.0, "every": 3.0}
    assert settings.in_force([*rows, opens(6)]) == {"lr": 1.0, "every": 3.0}
    assert settings.in_force([*rows, opens(6), given("b", 9, lr=2.0, replayed=True)]) == {"lr": 2.0, "every": 3.0}
    assert settings.in_force([]) == {}


def test_a_damaged_one_is_none():
    rows = [opens(1), {**given("a", 4, lr=1.0), "settings": [1]}, {**given("b", 5), "settings": None}]
    assert settings.in_force(rows) == {}
    assert split(rows, 9) == ([], [])


@pytest.mark.parametrize("damage", [{"step": None}, {"step": "3"}, {"id": []}, {"id": 7}, {"settings": [1]}])
def test_damaged_settings_are_none(damage):
    whole = {"kind": "request", "action": "set", "result": "done", "id": "a", "step": 3, "settings": {"log.every": 2}}
    assert settings.at([whole], 5) == ([whole], [])
    assert settings.at([{**whole, **damage}], 5) == ([], [])
    assert settings.in_force([{**whole, **damage}]) == {}
