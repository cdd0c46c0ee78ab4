"""Commands that several ranks compute together: the first works as one process would, the others compute for it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, ParamSpec

from cmbench.cli import _gpus, _signals
from cmbench.errors import CmbenchError
from cmbench.rundir import group, launch, torchrun

if TYPE_CHECKING:
    from cmbench.engine.ranks import Ranks

P = ParamSpec("P")
_OPTION = "--gpus"


def shared_out(command: Callable[P, None]) -> Callable[P, int]:
    """Let a command with options --gpus and --device start on several ranks, or start them itself.

    Rank 0 alone reads, measures, prints and writes. All end with its exit code. Signals end it as they end one
    process, and the others with it.
    """

    @wraps(command)
    def on_ranks(*given: P.args, **named: P.kwargs) -> int:
        gpus, device = named.get("gpus"), named.get("device")
        asked = _gpus.for_work(gpus if isinstance(gpus, str) else None, str(device))
        if asked is not None:
            return _start(asked)
        if group.member().size > 1:
            return _as_rank(lambda: command(*given, **named))
        command(*given, **named)
        return 0

    return on_ranks


def _as_rank(work: Callable[[], None]) -> int:
    """As rank 0, work and let the others end; as any other, help it until it ends, whatever signals come."""
    if not group.member().leads:
        for each in _signals.ASKING:
            signal.signal(each, signal.SIG_IGN)  # a handler would be gone while Python ends
    from cmbench.engine import answering
    from cmbench.engine import ranks as all_ranks

    ranks, code = all_ranks.gather(), 0
    if not ranks.leads:
        code = answering.follow(ranks)
        _leave(ranks)
        return code
    try:
        work()
    except Exception as error:
        ranks.dismiss(error.exit_code if isinstance(error, CmbenchError) else 1)
        _leave(ranks)
        raise
    ranks.dismiss(code)
    _leave(ranks)
    return code


def _leave(ranks: "Ranks") -> None:
    """Leave the other ranks once all have heard how they end."""
    from cmbench.engine.messages import LostRankError

    with suppress(LostRankError):
        ranks.all_told(None)
    ranks.close()


def _start(asked: _gpus.Gpus) -> int:
    """Start this command line again on ranks in this terminal, and return the exit code of the first.

    Raises:
        KeyboardInterrupt: Ctrl-C ended them.
        RefusedError: they cannot be started.
    """
    heard: list[int] = []
    environment = {**os.environ, **asked.environment()}
    with tempfile.TemporaryDirectory(prefix="cmbench-") as logs, launch.starting():
        given = ["--standalone", "--nproc-per-node", str(asked.size), "--log-dir", logs]
        _, *own = launch.command(*_without(sys.argv[1:]))
        command = launch.command(torchrun.ARGUMENT, *given, "--", *own)
        process = subprocess.Popen(command, env=environment, start_new_session=True)

        def end(number: int, frame: FrameType | None) -> None:
            heard.append(number)
            process.send_signal(number if number == signal.SIGINT else signal.SIGTERM)  # torchrun knows these

        before = {number: signal.getsignal(number) for number in _signals.ASKING}
        _signals.on(*before, handler=end)
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if signal.SIGINT in heard:
        raise KeyboardInterrupt
    return 128 + heard[0] if heard else code


def _without(arguments: list[str]) -> list[str]:
    """Return a command line without --gpus, which the ranks do not need."""
    kept, skips = [], False
    for argument in arguments:
        if not skips and argument != _OPTION and not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
        skips = argument == _OPTION
    return kept
