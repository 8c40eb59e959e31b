"""Account of weighted events: what they are worth, and how many rejection accepts."""

from __future__ import annotations

import numpy as np

from hepgen_ml.events.sample import FloatArray


class WeightAccount:
    """Sums over the events that were weighted so far.

    Attributes
    ----------
    n_drawn, n_accepted : int
    """

    def __init__(self) -> None:
        self.n_drawn = self.n_accepted = 0
        self._sum = self._sum_of_squares = 0.0

    def count(self, weight: FloatArray) -> None:
        """Take in the weights (n,) of events."""
        self.n_drawn += len(weight)
        self._sum += float(weight.sum())
        self._sum_of_squares += float(np.sum(weight**2))

    @property
    def effective_fraction(self) -> float:
        """(sum w)^2 / sum w^2 over the number of all events that were weighted so far."""
        return self._sum**2 / max(self._sum_of_squares * self.n_drawn, 1e-300)

    @property
    def efficiency(self) -> float:
        """Fraction of the events that rejection accepted so far."""
        return self.n_accepted / max(self.n_drawn, 1)

    @property
    def counts(self) -> tuple[float, ...]:
        """What `add` takes: events drawn and accepted, sums of weights and their squares."""
        return self.n_drawn, self.n_accepted, self._sum, self._sum_of_squares

    def add(self, counts: tuple[float, ...]) -> None:
        """Add the counts of events that were weighted elsewhere."""
        self.n_drawn += int(counts[0])
        self.n_accepted += int(counts[1])
        self._sum += counts[2]
        self._sum_of_squares += counts[3]
