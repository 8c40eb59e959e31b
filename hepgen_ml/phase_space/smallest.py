"""The extreme values of one observable, and those of others there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from hepgen_ml.phase_space.edges import Values

Indices = npt.NDArray[np.int64]

MOST = 4096
"""Largest number of extreme values kept for an observable."""

MOST_COMPARED = 256
"""Largest number of these that are kept with the values of other observables."""

BOUNDED_ABOVE = ("pt", "abs_eta", "mass", "pt_pair", "pt_hat", "ht")
"""Observables that have upper bounds; of the others the small values are kept alone."""


class Smallest:
    """The smallest values of an observable, and the values of others for the smallest of these.

    Attributes
    ----------
    values : (k,) array
        Sorted.
    rows : (1 + m, n) array
        The first of these, and the values of m other observables.
    """

    def __init__(self) -> None:
        self.values: Values = np.zeros(0)
        self.rows: Values = np.zeros((0, 0))

    def wanted(self, values: Values) -> npt.NDArray[np.int64]:
        """Which values (n,) may be among the smallest."""
        inside = np.isfinite(values)
        if len(self.values) > MOST:
            inside &= values < self.values[-1]
        return np.flatnonzero(inside)

    def add(self, values: Values, rows: Values) -> None:
        """Take in values, and rows of the smallest of these or of all."""
        joined = np.concatenate([self.values, values])
        if len(joined) > MOST + 1:
            joined = np.partition(joined, MOST)[: MOST + 1]
        self.values = np.sort(joined)
        both = np.concatenate([self.rows, rows], axis=1) if self.rows.size else rows
        self.rows = both[:, np.argsort(both[0], kind="stable")[:MOST_COMPARED]]


class Seen:
    """Memory of one observable of one class or pair of classes.

    Attributes
    ----------
    low, high : Smallest
        The latter of the negative values.
    entries : int
    threshold : float
        Of a mass: the smallest sum of the masses.
    of_decays : (float, float)
        Smallest and largest mass of the decay products of a resonance, which do not count as
        entries.
    direct : bool
        Whether no entry is of a particle that comes from a resonance (known of ``pt``, ``mass``).
    alone : bool
        Whether all entries are of two particles that are all of a collision; of sums and masses of
        whole collisions, whether none is of more; of transverse momenta of pairs, whether never
        more than one particle is beside.
    contents : set of tuple of str
        Of sums and masses of whole collisions: classes of what is added; of leading particles:
        those of the final state.
    named : bool
        Of transverse momenta of pairs: whether all are those of a resonance.
    """

    def __init__(self) -> None:
        self.low, self.high = Smallest(), Smallest()
        self.entries = 0
        self.threshold = math.inf
        self.of_decays = math.inf, -math.inf
        self.direct = self.alone = self.named = True
        self.contents: set[tuple[str, ...]] = set()

    @classmethod
    def joined(
        cls, parts: Sequence[Seen], threshold: Callable[[list[float]], float] = max
    ) -> Seen:
        """Several classes as one, with the largest threshold of these or another one."""
        found = cls()
        for part in parts:
            for mine, other in ((found.low, part.low), (found.high, part.high)):
                if len(other.values):
                    mine.add(other.values, other.rows)
            found.entries += part.entries
            found.note_decays(*part.of_decays)
        found.threshold = threshold([part.threshold for part in parts])
        found.direct = all(part.direct for part in parts)
        found.alone = all(part.alone for part in parts)
        found.named = all(part.named for part in parts)
        found.contents = set().union(*(part.contents for part in parts))
        return found

    def with_contents(self, name: Callable[[str], str]) -> Seen:
        """The same with other names of what is added."""
        found = copy(self)
        found.contents = {tuple(sorted(map(name, names))) for names in self.contents}
        return found

    def note_decays(self, low: float, high: float) -> None:
        """Add the smallest and largest masses of resonances."""
        self.of_decays = min(self.of_decays[0], float(low)), max(self.of_decays[1], float(high))

    def take_in(
        self, name: str, values: Values, at: Indices, others: Callable[[Indices], Sequence[Values]]
    ) -> None:
        """Take in some values of an observable, those at these places of an array.

        `others` has the values (m,) of other observables at m places, see `Smallest`.
        """
        mine = values[at]
        self.entries += int(np.isfinite(mine).sum())
        for extremes, sign in ((self.low, 1.0), (self.high, -1.0)):
            if sign < 0 and name not in BOUNDED_ABOVE:
                continue
            chosen = extremes.wanted(sign * mine)
            if not len(chosen):
                continue
            first = chosen
            if len(chosen) > MOST_COMPARED:
                order = np.argpartition(sign * mine[chosen], MOST_COMPARED)
                first = chosen[order[:MOST_COMPARED]]
            rows = np.stack([sign * mine[first], *others(at[first])])
            extremes.add(sign * mine[chosen], rows)

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest value of all."""
        low = float(self.low.values[0]) if len(self.low.values) else math.inf
        high = -float(self.high.values[0]) if len(self.high.values) else -math.inf
        return min(low, self.of_decays[0]), max(high, self.of_decays[1])
