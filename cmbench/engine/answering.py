"""What all ranks but the first do in a command that measures or draws: their share of what rank 0 asks for."""

import os
from contextlib import suppress
from typing import Any

import torch

from cmbench import consent
from cmbench.engine import asking, bulk
from cmbench.engine.bench import measure
from cmbench.engine.evaluate import Evaluation
from cmbench.engine.messages import LostRankError
from cmbench.engine.ranks import Ranks
from cmbench.errors import CmbenchError


def follow(ranks: Ranks) -> int:
    """Do what rank 0 asks until it lets this rank end, or this one fails alone, and return the exit code.

    Raises:
        LostRankError: another rank has ended.
    """
    last: Evaluation | None = None
    while (order := ranks.hear())["do"] != "end":
        try:
            if order["do"] == "bench":
                measure.follow(ranks, order)
                continue
            last = ranks.agreed(lambda: _evaluation(ranks, order, last))  # noqa: B023 - called at once
            _answer(ranks, order, last)
        except LostRankError:
            raise
        except Exception as error:
            if ranks.is_apart:  # it has left word why, for rank 0
                return error.exit_code if isinstance(error, CmbenchError) else 1
            last = None  # as on every rank: rank 0 says it, and then how all end
    return order["code"]


def _evaluation(ranks: Ranks, order: dict[str, Any], last: Evaluation | None) -> Evaluation:
    """Return what is asked about, again if it was asked about before."""
    place = asking.heard(order["place"])
    if last is not None and last.place == place:
        return last
    with suppress(OSError):
        os.chdir(order["folder"])
    consent.moved(place.places)  # the user has typed them for all ranks
    return Evaluation(place, ranks=ranks)


def _answer(ranks: Ranks, order: dict[str, Any], evaluation: Evaluation) -> None:
    if order["do"] == "draw":
        labels = torch.zeros(order["n"], dtype=torch.int64) if order["labels"] else None
        asking.of_all(ranks, evaluation.trained, order["n"], order["sigmas"], order["seed"], labels)
    elif order["do"] == "bulk":
        bulk.answer(ranks, evaluation.trained, order)
    else:
        evaluation.share_of_function(order["do"], order["seed"], order["n"])
