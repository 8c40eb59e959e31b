"""The time of a training: all that happens counts, but for reading the sample."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from hepgen_ml.config import TrainingConfig

CLOSING = 0.08
"""Part of the time that is kept for calibration and acceptance, after the network's training."""

_LEAST = 0.2
"""Part of the time that a network is trained at least, however long all before it took."""

_LAST = 0.02
"""And part for what follows where no time is left at all."""

T = TypeVar("T")


class Clock:
    """Says how much of the time that a training may take is left.

    Parameters
    ----------
    seconds : float
        From now on, without the time in which the sample is read.

    Attributes
    ----------
    reading : float
        Seconds in which the sample was read.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.reading = seconds, 0.0
        self._begun = time.monotonic()

    @property
    def used(self) -> float:
        """Seconds so far, without those of reading."""
        return time.monotonic() - self._begun - self.reading

    def for_network(self, training: TrainingConfig) -> TrainingConfig:
        """Settings with the time that is left for the network itself."""
        left = (1 - CLOSING) * self.seconds - self.used
        return training.model_copy(update={"max_time": max(left, _LEAST * self.seconds)})

    def for_closing(self) -> float:
        """Seconds that are left for what follows the network's training."""
        return max(self.seconds - self.used, _LAST * self.seconds)


class Stopwatch:
    """Adds up the time in which something is read.

    Attributes
    ----------
    seconds : float
    """

    def __init__(self) -> None:
        self.seconds, self._begun = 0.0, 0.0

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._begun

    def timed(self, parts: Iterator[T]) -> Iterator[T]:
        """The parts; only the time until each of them is there counts."""
        while True:
            with self:
                part = next(parts, None)
            if part is None:
                return
            yield part
