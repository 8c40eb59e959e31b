"""Rank of this process in a training with torchrun; needs no torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from hepgen_ml.errors import UsageError

SPEAKS = "speaks"
"""Attribute of errors that a process other than the first must report."""

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Launched(NamedTuple):
    """Rank of this process in a training.

    Attributes
    ----------
    rank : int
        Counted from 0.
    size : int
        Number of processes; 1 if this is the only one.
    local : int
        Counted on this machine.
    """

    rank: int
    size: int
    local: int


def launched() -> Launched:
    """The rank of this process, from the environment variables of torchrun.

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
