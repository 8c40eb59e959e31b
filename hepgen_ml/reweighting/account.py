"""Statistics of weighted events: effective sample size and efficiency of rejection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from hepgen_ml.errors import ModelError
from hepgen_ml.events.sample import FloatArray, IntArray
from hepgen_ml.events.weights import WeightMoments

T = TypeVar("T")

_MAX_ROUNDS = 1000
_MAX_DRAWN = 50_000  # events drawn at a time for rejection; bounds the memory


class WeightAccount(WeightMoments):
    """Sums over the events that were weighted so far, and rejection by their weights.

    Attributes
    ----------
    n_drawn, n_accepted : int
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_accepted = 0

    @property
    def n_drawn(self) -> int:
        """Events that were weighted so far."""
        return self.n

    @property
    def efficiency(self) -> float:
        """Fraction of the events that rejection accepted so far."""
        return self.n_accepted / max(self.n, 1)

    @property
    def counts(self) -> tuple[float, ...]:
        """Argument of `add`: events drawn and accepted, sums of weights and their squares."""
        return self.n, self.n_accepted, self.total, self.squares

    def add(self, counts: tuple[float, ...]) -> None:
        """Add the counts of events that were weighted elsewhere."""
        self.n += int(counts[0])
        self.n_accepted += int(counts[1])
        self.total += counts[2]
        self.squares += counts[3]

    def accepted(
        self,
        n: int,
        draw: Callable[[int], tuple[T, FloatArray]],
        limit: float,
        rng: np.random.Generator,
        *,
        expected: float,
        remedy: str,
    ) -> Iterator[tuple[T, IntArray]]:
        """Draw events until n are accepted with probability weight / limit.

        Events above the limit are always accepted.

        Parameters
        ----------
        n : int
        draw : callable
            Returns the given number of events, and their weights (k,), which it has counted.
        limit : float
        rng : numpy.random.Generator
            Accepts.
        expected : float
            Approximate fraction that is accepted.
        remedy : str
            Advice in the error if almost all events are rejected.

        Yields
        ------
        events, (m,) int array
            Events from `draw`, and the numbers of the accepted ones; at least n in total.

        Raises
        ------
        ModelError
            Almost no event is accepted.
        """
        found = drawn = 0
        for _ in range(_MAX_ROUNDS):
            rate = found / drawn if found else expected
            events, weight = draw(min(int((n - found) / rate) + 16, _MAX_DRAWN))
            taken = np.flatnonzero(rng.random(len(weight)) * limit < weight)
            self.n_accepted += len(taken)
            drawn, found = drawn + len(weight), found + len(taken)
            yield events, taken
            if found >= n:
                return
        raise ModelError(f"rejection accepted only {found} of {drawn} events", remedy=remedy)
