"""Which of the processes of one training this is, as torchrun says it; needs no torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from hepgen_ml.errors import UsageError

SPEAKS = "speaks"
"""Attribute of errors that a process other than the first has to tell, as nobody else does."""

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Launched(NamedTuple):
    """Place of this process among those of one training.

    Attributes
    ----------
    rank : int
        Counted from 0.
    size : int
        Processes in all; 1 where none but this was launched.
    local : int
        Counted on this machine.
    """

    rank: int
    size: int
    local: int


def launched() -> Launched:
    """The place of this process, by the environment variables that torchrun sets.

    Raises
    ------
    UsageError
        They contradict each other.
    """
    if not all(os.environ.get(name) for name in _NEEDED):
        return Launched(0, 1, 0)
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if not (0 <= rank < size and local >= 0):
            raise ValueError
    except ValueError:
        raise UsageError(
            "RANK, WORLD_SIZE and LOCAL_RANK of the environment do not describe a "
            "process of a training",
            remedy="start with torchrun, or unset them",
        ) from None
    return Launched(rank, size, local)
