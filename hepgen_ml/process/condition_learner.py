"""Gathering the conditions of the user from a stream of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError
from hepgen_ml.events.conditions import Wanted, number_of, texts_of
from hepgen_ml.events.sample import EventSample
from hepgen_ml.process.conditions import MOST_CATEGORIES, MOST_POINTS, Condition, Conditions

_POINTS = 1000
"""Largest number of points of a scan; more different values count as continuous."""


class ConditionLearner:
    """Gathers the conditions of a stream of events, in bounded memory.

    Parameters
    ----------
    wanted : sequence of Wanted
    seed : int
    """

    def __init__(self, wanted: Sequence[Wanted], seed: int) -> None:
        self.wanted = tuple(wanted)
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(6,)))
        self._rows: dict[tuple[str, ...], float] | None = {}
        self._kept = np.empty((0, len(wanted)), dtype="U1")
        self._weight, self._priority = np.zeros(0), np.zeros(0)
        self._levels: list[set[str]] = [set() for _ in wanted]
        self._numeric = [not w.categorical for w in wanted]
        self._low, self._high = np.full(len(wanted), np.inf), np.full(len(wanted), -np.inf)
        self._n = 0

    def add(self, sample: EventSample) -> npt.NDArray[np.str_]:
        """Take in a chunk of events, and return the values (n, K) as they are written."""
        texts = texts_of(sample, self.wanted, self._n)
        if not self.wanted or not len(sample):
            return texts
        for k, w in enumerate(self.wanted):
            self._add_values(k, w, np.unique(texts[:, k]))
        if self._rows is not None:
            rows, inverse = np.unique(texts, axis=0, return_inverse=True)
            weights = np.bincount(inverse.ravel(), weights=sample.weight)
            for row, weight in zip(rows.tolist(), weights.tolist(), strict=True):
                self._rows[tuple(row)] = self._rows.get(tuple(row), 0.0) + weight
            if len(self._rows) > _POINTS:
                self._rows = None
        priority = np.concatenate([self._priority, self._rng.random(len(sample))])
        chosen = np.argsort(priority, kind="stable")[:MOST_POINTS]
        self._kept = np.concatenate([self._kept, texts])[chosen]
        self._weight = np.concatenate([self._weight, sample.weight])[chosen]
        self._priority = priority[chosen]
        self._n += len(sample)
        return texts

    def _add_values(self, k: int, wanted: Wanted, texts: npt.NDArray[np.str_]) -> None:
        numbers = [number_of(str(text)) for text in texts]
        if self._numeric[k] and None not in numbers:
            values = np.array(numbers, dtype=np.float64)
            if not np.isfinite(values).all():
                raise SampleError(
                    f"condition {wanted.name!r} is {texts[~np.isfinite(values)][0]} in an event",
                    remedy="leave such events out, or give them a finite value",
                )
            self._low[k] = min(self._low[k], values.min())
            self._high[k] = max(self._high[k], values.max())
        else:
            self._numeric[k] = False
        if len(self._levels[k]) <= MOST_CATEGORIES:
            self._levels[k].update(map(str, texts.tolist()))

    def found(self, cross_sections: Mapping[tuple[str, ...], float]) -> Conditions | None:
        """The conditions of the events seen so far; None without any.

        Parameters
        ----------
        cross_sections : mapping of tuple of str to float
            In pb, by the values of all conditions where these are parameters of runs.

        Raises
        ------
        SampleError
            A condition that is the same in all events, or a name with too many values.
        """
        if not self.wanted:
            return None
        each = tuple(self._condition(k, w) for k, w in enumerate(self.wanted))
        scan = self._rows is not None
        texts = self._kept if self._rows is None else np.array(list(self._rows))
        weight = self._weight if self._rows is None else np.array(list(self._rows.values()))
        points = np.stack([c.numbers(texts[:, k]) for k, c in enumerate(each)], axis=1)
        sigma = np.array([cross_sections.get(tuple(row), np.nan) for row in texts.tolist()])
        points, first, inverse = np.unique(
            points, axis=0, return_index=True, return_inverse=True
        )  # 800 and 8.0e2 are one
        shares = np.bincount(inverse.ravel(), weights=weight.clip(0.0))
        if not shares.sum() > 0:
            raise SampleError(
                "the weights of its events do not have a positive sum",
                remedy="a density needs a positive cross section; take more events",
            )
        known = sigma[first] if scan and np.isfinite(sigma).all() else np.zeros(0)
        return Conditions(each, points, shares / shares.sum(), scan, known)

    def _condition(self, k: int, wanted: Wanted) -> Condition:
        levels = sorted(self._levels[k])
        same = self._low[k] == self._high[k] if self._numeric[k] else len(levels) == 1
        if same:
            raise SampleError(
                f"condition {wanted.name!r} is {levels[0][:100]} in all events",
                remedy="leave it out, or give events with several values",
            )
        if self._numeric[k]:
            return Condition(wanted, float(self._low[k]), float(self._high[k]))
        if len(levels) > MOST_CATEGORIES:
            raise SampleError(
                f"condition {wanted.name!r} has more than {MOST_CATEGORIES} values that are not "
                f"numbers, such as {levels[0][:100]!r}",
                remedy="name a condition with fewer categories, or one of numbers",
            )
        return Condition(wanted, levels=tuple(levels))
