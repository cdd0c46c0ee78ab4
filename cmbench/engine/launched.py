"""What the processes of a launch of torchrun learn from its store: the launch's name, and which of them began together.

The store lives as long as the launch. torchrun's own words do not serve: a name given by --rdzv-id may be used again,
and each machine counts the restarts for itself.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from uuid import uuid4
from zlib import crc32

from torch.distributed import Store, TCPStore

from cmbench.errors import CmbenchError, StoppedError
from cmbench.rundir import group

_LAUNCH, _ATTEMPT = "cmbench/launch", "cmbench/attempt"
_PATIENCE, _POLL = timedelta(minutes=30), 0.02  # torch's own for processes to come; seconds


def name() -> str:
    """Return what all processes of a launch have in common, over restarts and machines, and those of no other have.

    It is empty without torchrun, and where neither its store nor --rdzv-id can tell.
    """
    if not group.is_launched():
        return ""
    given, address, port = (os.environ.get(k, "") for k in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _named(address, int(port))
    return "" if given == "none" else f"{given}-{crc32(' '.join(sys.argv[1:]).encode()):08x}"


@cache
def _named(address: str, port: int) -> str:
    try:
        store = TCPStore(address, port, is_master=False, timeout=_PATIENCE)
        return store.compare_set(_LAUNCH, "", uuid4().hex).decode()
    except RuntimeError as error:
        raise CmbenchError(f"torchrun cannot be reached: {' '.join(str(error).split())}") from None


def attempt(store: Store, rank: int, size: int, heard: Sequence[str] = ()) -> str:
    """Meet the other processes, and return the name of this attempt, which none of an earlier one has.

    The first process names it, and waits for an answer of each. Another that finds a name, but not its own answer among
    those that were waited for, has found an earlier attempt's, and waits for the next name.

    Args:
        store: of torchrun. It keeps what earlier attempts wrote.
        rank: of this process.
        size: the number of processes.
        heard: signals that announce an end, as they come.

    Raises:
        StoppedError: a signal came first.
        CmbenchError: they do not come.
    """
    mine, others, end = uuid4().hex, range(1, size), time.monotonic() + _PATIENCE.total_seconds()
    if rank == 0:
        store.set(_ATTEMPT, mine)
    while time.monotonic() < end:
        if heard:
            raise StoppedError(f"{heard[-1]} before all ranks had come: nothing is trained")
        named = store.get(_ATTEMPT).decode() if store.check([_ATTEMPT]) else ""
        if rank == 0 and store.check([f"{mine}/{k}" for k in others]):
            store.set(f"{mine}/all", json.dumps([store.get(f"{mine}/{k}").decode() for k in others]))
            return mine
        if rank and named:
            store.set(f"{named}/{rank}", mine)
            if store.check([f"{named}/all"]) and mine in json.loads(store.get(f"{named}/all")):
                return named
        time.sleep(_POLL)
    raise CmbenchError(f"rank {rank} cannot reach the others: they have not come")
