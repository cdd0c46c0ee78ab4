"""Requests to a trainer: each one is granted between two steps or refused, and answered once."""

import threading
import time

import pytest
import torch
from fake_runs import read_rows
from steered import after, answers, asked, assert_same_end, create, finish, killed
from waiting import until

from cmbench.engine import checkpoint, optimizer, recorder, runner, weights
from cmbench.errors import STOPPED
from cmbench.rundir import control, status
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")
QUIET = ["snapshot.every=0", "evaluate.every=0", "checkpoint.every=0"]
SCT = ["objective={kind='sct'}", "path.kind=trigflow", "log.every=1", *QUIET]


def written_by(run):
    """What steering can change: which rows, snapshots and checkpoints there are, and the last weights."""
    last = steps_of_checkpoints(run)[-1]
    sums = [
        (name, {k: float(v.double().sum()) for k, v in group.items()})
        for name, group in checkpoint.load(run, last).items()
    ]
    steps = [[row["step"] for row in read_rows(path)] for path in (run.metrics, run.profiles)]
    return steps, sorted(path.name for path in run.snapshots.iterdir()), steps_of_checkpoints(run), sums


@pytest.mark.parametrize(
    ("key", "value", "base"),
    [
        ("optimizer.lr", 1e-3, ["optimizer.warmup=7", "optimizer.decay=cosine"]),
        ("ema.lengths", [0.3, 0.6], []),
        ("ema.lengths", [0.2, 0.05], ["ema.profile=power", "ema.lengths=[0.1, 0.15]"]),
        ("objective.tangent_warmup", 40, SCT),
        ("log.every", 2, []),
        ("profile.every", 2, ["profile.every=0"]),
        ("checkpoint.every", 3, ["checkpoint.keep=9"]),
        ("snapshot.every", 4, []),
        ("evaluate.every", 3, []),
    ],
)
def test_a_setting_before_the_first_step_is_a_run_that_had_it_from_the_start(home, key, value, base):
    run = finish(asked(create(home, *base), {0: [("set", {key: value})]}))
    wanted = finish(create(home, *base, f"{key}={value}"))
    assert_same_end(run, wanted)
    assert written_by(run) == written_by(wanted)
    other = finish(create(home, *base))
    assert written_by(run) != written_by(other)  # the key does something in this recipe


def test_a_rate_holds_from_the_next_step_on_and_the_schedule_keeps_its_shape(home):
    base = ["log.every=1", "optimizer.warmup=4", "optimizer.decay=inverse_sqrt", "optimizer.decay_after=6", *QUIET]
    made = asked(create(home, *base), {5: [("set", {"optimizer.lr": 0.5})]})
    old = made.trainer.recipe.optimizer
    run = finish(made)
    rates = [row["lr"] for row in read_rows(run.metrics)]
    new = old.model_copy(update={"lr": 0.5})
    assert rates == [optimizer.learning_rate(old if step < 5 else new, step, 12) for step in range(12)]
    (row,) = answers(run)
    assert (row["step"], row["settings"], row["result"]) == (5, {"optimizer.lr": 0.5}, "done")
    assert "lr = 0.01" in run.recipe.read_text()


def test_a_tangent_warm_up_holds_from_the_next_step_on(home):
    made = create(home, *SCT, "objective.tangent_warmup=100")
    run = finish(asked(made, {5: [("set", {"objective.tangent_warmup": 20})]}))
    assert [row["r"] for row in read_rows(run.metrics)] == [k / (100 if k < 5 else 20) for k in range(12)]


def test_an_average_keeps_its_weights_and_takes_the_new_length_as_its_name(home):
    made = asked(create(home, *QUIET), {5: [("set", {"ema.lengths": [0.8, 0.9]}), ("checkpoint", None)]})
    before: dict[str, torch.Tensor] = {}
    average = made.trainer.state.averages[0]
    after(made, 6, lambda: before.update({k: v.clone() for k, v in average.model.state_dict().items()}))
    run = finish(made)
    saved = checkpoint.load(run, 5)
    assert [name for name in saved if name.startswith("ema_")] == ["ema_0.8", "ema_0.9"]
    assert all(torch.equal(before[name], saved["ema_0.8"][name]) for name in before)  # not yet moved by step 6
    assert weights.load(run, torch.device("cpu")).ema == "0.8"


def test_averages_are_found_under_their_lengths_at_the_checkpoint(home):
    made = asked(
        create(home, *QUIET, "checkpoint.every=5", "checkpoint.keep=3"), {7: [("set", {"ema.lengths": [0.8, 0.7]})]}
    )
    run, device = finish(made), torch.device("cpu")
    for step, lengths in ((5, ("0.9", "0.5")), (12, ("0.8", "0.7"))):
        for length in lengths:
            trained = weights.load(run, device, length, step)
            tensors = checkpoint.load_group(run, step, f"ema_{length}")
            assert all(torch.equal(trained.model.state_dict()[name], tensor) for name, tensor in tensors.items())
        assert weights.load(run, device, step=step).ema == lengths[0]


def test_a_checkpoint_now_is_whole_and_the_run_goes_on_from_it_unchanged(home):
    run = killed(asked(create(home, *QUIET), {7: [("checkpoint", None)]}), 9)
    assert steps_of_checkpoints(run) == [7]
    (row,) = answers(run)
    assert row["files"] == ["checkpoints/00000007"]
    assert [r["kind"] for r in read_rows(run.events)] == ["started", "checkpoint", "request"]
    again = runner.resume(run)
    assert again.trainer.state.step == 7
    assert_same_end(finish(again), finish(create(home, *QUIET)))


def test_a_snapshot_now_is_what_the_recipe_would_have_drawn(home):
    run = finish(asked(create(home, *QUIET), {7: [("snapshot", None)]}))
    wanted = finish(create(home, *QUIET, "snapshot.every=7"))
    (row,) = answers(run)
    assert row["files"] == [f"snapshots/00000007_{n}step.png" for n in (1, 2)]
    drawn = sorted(path.name for path in run.snapshots.iterdir())
    assert len(drawn) == 7  # points come as numbers too, and what f makes of fixed latents
    for name in drawn:
        assert (run.snapshots / name).read_bytes() == (wanted.snapshots / name).read_bytes()


def test_a_pause_holds_the_step_while_the_heart_beats_and_a_run_goes_on_as_if_nothing_was(home, trained, monkeypatch):
    monkeypatch.setattr(recorder, "_STATUS_EVERY", 0.05)
    made = asked(create(home), {4: [("pause", None)]})
    seen = []

    def watch():
        try:
            until(lambda: status.read(made.run)["state"] == "paused")
            first = status.read(made.run)
            until(lambda: status.read(made.run)["heartbeat"] > first["heartbeat"] + 0.3)
            seen.extend([first, status.read(made.run), status.is_live(made.run)])
        finally:  # else the run would wait for ever
            control.request(made.run, "continue")

    watcher = threading.Thread(target=watch)
    watcher.start()
    run = finish(made)
    watcher.join()
    *seen, live = seen
    assert live
    assert [(now["step"], now["state"]) for now in seen] == [(4, "paused")] * 2
    assert [(row["step"], row["action"], row["result"]) for row in answers(run)] == [
        (4, "pause", "done"),
        (4, "continue", "done"),
    ]
    assert_same_end(run, trained)


def test_a_paused_run_does_what_else_it_is_asked_and_stops(home):
    settings = {"optimizer.lr": 0.5}
    requests = [("pause", None), ("set", settings), ("snapshot", None), ("checkpoint", None), ("stop", None)]
    made = asked(create(home, *QUIET), {4: requests})
    list(made.records())
    assert (made.exit_code, status.read(made.run)["state"]) == (STOPPED, "stopped")
    assert [(row["action"], row["step"], row["result"]) for row in answers(made.run)] == [
        (action, 4, "done") for action, _ in requests
    ]
    again = runner.resume(made.run)
    assert again.trainer.recipe.optimizer.lr == 0.5
    finish(again)  # a pause is not made again


def test_a_signal_ends_a_pause(home):
    made = asked(create(home, *QUIET), {4: [("pause", None)]})

    def stop():
        until(lambda: status.read(made.run)["state"] == "paused")
        made.request_stop("SIGTERM")

    threading.Thread(target=stop).start()
    list(made.records())
    assert (made.exit_code, steps_of_checkpoints(made.run)) == (STOPPED, [4])


def test_paused_time_is_not_counted_as_training(home):
    made = asked(create(home, *QUIET, "log.every=12"), {6: [("pause", None)]})
    paused = []

    def go_on():
        until(lambda: status.read(made.run)["state"] == "paused")
        began = time.perf_counter()
        time.sleep(2.0)
        paused.append(time.perf_counter() - began)
        control.request(made.run, "continue")

    threading.Thread(target=go_on).start()
    began = time.perf_counter()
    run = finish(made)
    in_all = time.perf_counter() - began
    (row,) = read_rows(run.metrics)
    assert 12 * 8 / row["images_per_s"] <= in_all - paused[0]  # seconds for twelve steps


REFUSED = {
    "unknown action": ({"action": "pasue"}, ["'pasue'", "pause, continue", "did you mean 'pause'?"]),
    "no action": ({}, ["None", "allowed: pause"]),
    "an action of another type": ({"action": {"a": [1]}}, ["{'a': [1]}", "allowed: pause"]),
    "a set of nothing": ({"action": "set"}, ["settings", "None"]),
    "a set of an empty table": ({"action": "set", "settings": {}}, ["settings", "{}"]),
    "a set of a list": ({"action": "set", "settings": [1]}, ["settings", "[1]"]),
    "a set of an unknown key": ({"action": "set", "settings": {"log.evry": 1}}, ["log.evry", "'log.every'?"]),
    "a set out of range": ({"action": "set", "settings": {"optimizer.lr": -1}}, ["optimizer.lr", "-1", "0"]),
    "one good and one bad": ({"action": "set", "settings": {"optimizer.lr": 9.0, "log.every": 0}}, ["log.every", "0"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_answered_and_changes_nothing(home, trained, case):
    request, mentions = REFUSED[case]
    made = create(home)
    after(made, 4, lambda: (made.run.control / "1700000000000000000-00ab.json").write_bytes(to_json(request)))
    asked(made, {4: []})
    run = finish(made)
    (row,) = answers(run)
    assert (row["id"], row["result"][:9]) == ("1700000000000000000-00ab", "refused: ")
    assert [part for part in mentions if part not in row["result"]] == []
    assert_same_end(run, trained)


NESTED = b'{"action":"set","settings":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"
LONG = b'{"action":"set","settings":{"' + b"a" * (5 << 20) + b'":1}}'


@pytest.mark.parametrize(
    ("content", "action", "text"),
    [
        (b'{"action":', None, "action: found None"),
        (NESTED, None, "action: found None"),
        (LONG, "set", "aaa"),
        (b'{"action":"' + b"a" * (5 << 20) + b'"}', "a" * 133 + "…" + "a" * 66, "action: found 'aaa"),
    ],
    ids=["broken", "nested", "long settings", "a long action"],
)
def test_what_cannot_be_read_or_repeated_is_refused_in_a_row_that_can(home, content, action, text):
    made = create(home, *QUIET)
    (made.run.control / "1700000000000000000-00ab.json").write_bytes(content)
    (row,) = answers(finish(made))
    assert (row["id"], row["action"], row["step"]) == ("1700000000000000000-00ab", action, 0)
    assert row["result"].startswith("refused: ")
    assert text in row["result"]
    assert "settings" not in row


def test_a_request_cannot_pass_for_one_made_again(home):
    made = create(home, *QUIET)
    request = {"action": "set", "settings": {"log.every": 4}, "replayed": True, "result": "done", "step": 99}
    (made.run.control / "1700000000000000000-00ab.json").write_bytes(to_json(request))
    (row,) = answers(finish(made))
    assert row == {
        **{"segment": 1, "step": 0, "time": row["time"], "train_s": 0.0, "kind": "request"},
        "id": "1700000000000000000-00ab",
        **{"action": "set", "settings": {"log.every": 4}, "result": "done"},
    }


def test_who_asks_at_the_end_hears_that_it_is_the_end(home):
    run = finish(asked(create(home, *QUIET), {12: [("checkpoint", None)]}))
    assert [row["result"] for row in answers(run)] == ["refused: the run has finished"]
    assert read_rows(run.events)[-1]["kind"] == "finished"
    assert read_json(run.status)["state"] == "finished"
