"""Weights that a model has learned with the density of a biased sample, or unit weights by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hepgen_ml.errors import ModelError
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate
from hepgen_ml.reweighting.account import WeightAccount

_MAX_ROUNDS = 1000
_MAX_DRAWN = 50_000  # events drawn at a time for rejection; bounds the memory


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
        Accept events with probability weight / largest instead; those few above are accepted
        always.

    Attributes
    ----------
    run : RunInfo
        Of the events as they leave.
    n_drawn, n_accepted : int
    """

    def __init__(self, run: RunInfo, largest: float, unweight: bool = False) -> None:
        self.run, self.unweight = run, unweight
        self.mean = run.cross_section if run.cross_section > 0 else 1.0
        self.limit = largest * self.mean
        if unweight and run.cross_section > 0:
            processes = tuple(replace(p, max_weight=self.mean) for p in run.processes)
            self.run = run.with_(processes=processes)
        super().__init__()

    def block(
        self, n: int, make: Callable[[int], EventSample], rng: np.random.Generator
    ) -> EventSample:
        """One block of n events, weighted or accepted, by what `make` and `rng` draw alone."""
        if not self.unweight:
            return self._counted(make(n))
        parts: list[EventSample] = []
        found = drawn = 0
        for _ in range(_MAX_ROUNDS):
            accepted = found / drawn if found else self.mean / self.limit
            events = self._counted(make(min(int((n - found) / accepted) + 16, _MAX_DRAWN)))
            taken = np.flatnonzero(rng.random(len(events)) * self.limit < events.weight)
            self.n_accepted += len(taken)
            drawn, found = drawn + len(events), found + len(taken)
            parts.append(_scaled(events[taken], self.mean, self.run))
            if found >= n:
                return concatenate(parts)[:n]
        raise ModelError(
            f"rejection accepted {found} of {drawn} events only",
            remedy="take weighted events (without --unweight), or train with "
            "training.weights=equal",
        )

    def _counted(self, events: EventSample) -> EventSample:
        self.count(events.weight)
        return events


def _scaled(events: EventSample, mean: float, run: RunInfo) -> EventSample:
    """Events of equal weight; named weights keep their ratio to the nominal one."""
    factor = mean / events.weight
    return EventSample(
        run,
        events.offsets,
        events.particles,
        {**events.events, "weight": np.full(len(events), mean)},
        weights={name: values * factor for name, values in events.weights.items()},
        scales=events.scales,
        attributes=events.attributes,
    )
