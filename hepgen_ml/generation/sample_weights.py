"""Weights that a model has learned with the density of a biased sample, or unit weights by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo, concatenate
from hepgen_ml.events.weights import with_weights
from hepgen_ml.reweighting.account import WeightAccount

_REMEDY = (
    "take weighted events (without --unweight), or train with training.weights=equal"
)


class SampleWeights(WeightAccount):
    """Keeps account of the weights of generated events, or accepts events by them.

    A weight is a function of the event, with the cross section as its mean over all events.

    Parameters
    ----------
    run : RunInfo
        Of the weighted events.
    largest : float
        Largest weight of the training sample over its mean.
    unweight : bool
        Accept events with probability weight / largest instead; events above are always accepted.

    Attributes
    ----------
    run : RunInfo
        Run information of the events with their weights.
    n_drawn, n_accepted : int
    """

    def __init__(self, run: RunInfo, largest: float, unweight: bool = False) -> None:
        super().__init__()
        self.run, self.unweight = run, unweight
        self.weight = run.cross_section if run.cross_section > 0 else 1.0
        self.limit = largest * self.weight
        if unweight and run.cross_section > 0:
            processes = tuple(replace(p, max_weight=self.weight) for p in run.processes)
            self.run = run.with_(processes=processes)

    def block(
        self, n: int, make: Callable[[int], EventSample], rng: np.random.Generator
    ) -> EventSample:
        """One block of n events, weighted or accepted, by what `make` and `rng` draw alone."""
        if not self.unweight:
            return self._counted(make(n))

        def draw(k: int) -> tuple[EventSample, FloatArray]:
            events = self._counted(make(k))
            return events, events.weight

        parts = []
        for events, taken in self.accepted(
            n, draw, self.limit, rng, expected=self.weight / self.limit, remedy=_REMEDY
        ):
            parts.append(with_weights(events[taken], np.full(len(taken), self.weight), self.run))
        return concatenate(parts)[:n]

    def _counted(self, events: EventSample) -> EventSample:
        self.count(events.weight)
        return events
