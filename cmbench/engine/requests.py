"""Requests to a trainer: granted between two steps and answered in the journal; a resume makes settings again."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cmbench import steering
from cmbench.engine import schedules
from cmbench.engine.recorder import Record
from cmbench.errors import UsageError, did_you_mean
from cmbench.rundir import control, settings
from cmbench.rundir.files import to_json
from cmbench.rundir.log import Row
from cmbench.text import brief, cut, shown

if TYPE_CHECKING:
    from cmbench.engine.live import Runner

_LOOK_EVERY = 0.25  # seconds between looks into control/
_LONGEST, _LONGEST_NAME = 1 << 16, 200  # longest settings (bytes) and action that an answer repeats


class Requests:
    """The requests to a run.

    Args:
        runner: of the run.
        ahead: settings to be made once their step is done, in order: {"id", "step", "settings"}, and "replayed" if
            the journal of an earlier segment has them.
    """

    def __init__(self, runner: "Runner", ahead: Sequence[Row] = ()) -> None:
        self._runner, self._ahead = runner, list(ahead)
        self._paused = False
        self._next_look = 0.0

    def between_steps(self) -> Iterator[Record]:
        """Grant what is due, and wait while the run is paused. Returns when the run should take a step or stop.

        The state must be that between two steps.
        """
        yield from self.due()
        if time.monotonic() >= self._next_look:
            yield from self._look()
        while self._paused and not self._runner.stop_requested:
            time.sleep(_LOOK_EVERY)
            self._runner.recorder.beat()
            yield from self._runner.warn()
            yield from self._look()

    def due(self) -> Iterator[Record]:
        """Make the settings whose step is done. Those of a resume may also train the run further."""
        while self._ahead and self._ahead[0]["step"] <= self._runner.trainer.state.step:
            yield from self._grant({**self._ahead.pop(0), "action": "set"}, steering.LENGTH)

    def refuse(self, why: str) -> Iterator[Record]:
        """Refuse all waiting requests."""
        for request in control.take(self._runner.run):
            yield self._answer(request, f"refused: {why}")

    def _look(self) -> Iterator[Record]:
        self._next_look = time.monotonic() + _LOOK_EVERY
        for request in control.take(self._runner.run):
            yield from self._grant({key: request[key] for key in ("id", "action", "settings") if key in request})

    def _grant(self, request: Row, also: Collection[str] = ()) -> Iterator[Record]:
        runner, files, before = self._runner, {}, self._runner.trainer.recipe
        try:
            match request.get("action"):
                case "stop":
                    runner.request_stop("requested")
                case "pause":
                    self._pause(True)
                case "continue":
                    self._pause(False)
                case "checkpoint":
                    yield (record := _granted(runner.recorder.checkpoint))
                    files = {"files": [record.row["folder"]]}
                case "snapshot":
                    runner.trainer.ranks.tell({"do": "snapshot"})
                    samples, film = runner.trainer.snapshot(), runner.trainer.film()
                    yield (record := _granted(lambda: runner.recorder.snapshot(samples, film)))
                    files = {"files": [f"snapshots/{name}" for name in record.row["files"]]}
                case "set":
                    self._set(request, also)
                case unknown:
                    raise UsageError(_not_an_action(unknown))
        except UsageError as error:
            yield self._answer(request, f"refused: {brief(error)}")
        else:
            yield self._answer(request, "done", **files)
            after = runner.trainer.recipe
            if after.train.steps != before.train.steps and not request.get("replayed"):
                follow = schedules.that_follow_steps(before, after)
                yield runner.recorder.event("lengthened", steps=after.train.steps, follow=follow)

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        self._runner.recorder.show("paused" if paused else "running")

    def _set(self, request: Row, also: Collection[str]) -> None:
        given, runner = request.get("settings"), self._runner
        if not isinstance(given, dict) or not given:
            raise UsageError(f"settings: found {shown(given)}, allowed: keys with their values")
        runner.trainer.steer(given, "settings", also)
        runner.trainer.ranks.tell({"do": "set", "settings": given})
        if not request.get("replayed"):
            self._ahead = settings.without_keys_of({**request, "step": runner.trainer.state.step}, self._ahead)

    def _answer(self, request: Row, result: str, **details: Any) -> Record:
        """Write the one row that answers a request. Values of a wrong type are left out.

        Values that make the row too long for readers, or cannot be written, are left out too: no request ends a run.
        """
        action, given = request.get("action"), request.get("settings")
        row = {"id": request["id"], "action": cut(action, _LONGEST_NAME) if isinstance(action, str) else None}
        if isinstance(given, dict) and _can_be_repeated(given):
            row["settings"] = given
        if request.get("replayed"):
            row["replayed"] = True
        return self._runner.recorder.event("request", **row, result=result, **details)


def _can_be_repeated(settings: Row) -> bool:
    try:
        return len(to_json(settings)) <= _LONGEST
    except (TypeError, ValueError, RecursionError):
        return False


def _granted(write: Callable[[], Record]) -> Record:
    """Write what was requested; if that fails, the request is refused and the run continues."""
    try:
        return write()
    except OSError as error:
        raise UsageError(f"it cannot be written: {error.strerror or error}") from None


def _not_an_action(found: object) -> str:
    hint = did_you_mean(found, control.ACTIONS) if isinstance(found, str) else ""
    return f"action: found {shown(found)}, allowed: {', '.join(control.ACTIONS)}{hint}"
