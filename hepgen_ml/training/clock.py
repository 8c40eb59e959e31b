"""The time of a training, without that of reading the sample."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from hepgen_ml.config import TrainingConfig

CLOSING = 0.08
"""Fraction of the time reserved for calibration and acceptance after the training."""

_LEAST = 0.2
"""Minimum fraction of the time for the training of the network."""

_LAST = 0.02
"""Minimum fraction of the time for the stages after the training."""

T = TypeVar("T")


class Clock:
    """Measures the remaining time of a training.

    Parameters
    ----------
    seconds : float
        Time limit from now on, without the time in which the sample is read.

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
        """Remaining seconds for the stages after the training of the network."""
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
        """The parts; only the time to produce each of them counts."""
        while True:
            with self:
                part = next(parts, None)
            if part is None:
                return
            yield part
