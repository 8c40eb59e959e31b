"""Weights of a classifier on generated events, or unit weights by rejection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hepgen_ml.errors import ModelError
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo, concatenate
from hepgen_ml.events.weight_groups import declared
from hepgen_ml.events.weights import with_weights
from hepgen_ml.reweighting.account import WeightAccount
from hepgen_ml.reweighting.reweighter import Reweighter

_REMEDY = "use --weights classifier, or train the generator longer"


def names_of(n_members: int) -> list[str]:
    """Names of the weight variations: ``classifier_1`` ... ``classifier_K``."""
    return [f"classifier_{k + 1}" for k in range(n_members)]


class ClassifierWeights(WeightAccount):
    """Assigns the weights of a classifier to events, block by block.

    The nominal weight is multiplied by w(x); every block is scaled so that its mean weight is the
    cross section. Named weights follow the nominal one. The variations ``classifier_k`` are those
    of single classifiers, normalised alike; their spread is the uncertainty of the weights.

    Parameters
    ----------
    reweighter : Reweighter
    run : RunInfo
        Run information of the events without weights.
    unweight : bool
        Accept events with probability w / limit instead, without changing their weights. Events
        above the limit are always accepted.

    Attributes
    ----------
    run : RunInfo
        Run information with weights: proportional to cross sections (strategy -4),
        unless unweighted, because programs drop the size of others.
    n_drawn, n_accepted : int
    """

    def __init__(self, reweighter: Reweighter, run: RunInfo, unweight: bool = False) -> None:
        super().__init__()
        self.reweighter, self.unweight = reweighter, unweight
        self.limit = float(reweighter.facts["unweighting_limit"])
        self.names = names_of(reweighter.n_members)
        sigma = run.cross_section
        self.unit_weight = sigma if sigma > 0 else 1.0
        text = {
            name: f"classifier {k} of {len(self.names)}" for k, name in enumerate(self.names, 1)
        }
        self.run = declared(run, text, "hepgen-ml classifier", "replicas")
        if not unweight and sigma > 0:  # strategy -4 would make the mean a cross section
            top = self.unit_weight * float(reweighter.facts["largest_weight"])
            processes = tuple(replace(p, max_weight=top) for p in run.processes)
            self.run = self.run.with_(weight_strategy=-4, processes=processes)

    def block(
        self, n: int, make: Callable[[int], EventSample], rng: np.random.Generator
    ) -> EventSample:
        """One block of n events, weighted or accepted, by what `make` and `rng` draw alone."""
        return self._accepted(n, make, rng) if self.unweight else self.apply(make(n))

    def apply(self, events: EventSample, nominal: FloatArray | None = None) -> EventSample:
        """Events with the weights of the classifier, their mean that of the run.

        Parameters
        ----------
        events : EventSample
        nominal : (n,) array, optional
            The classifier's weights that are to count, instead of the mean of its members.

        Raises
        ------
        ModelError
            The weights do not sum to a positive number.
        """
        mean, members = self.reweighter.weights(events)
        nominal = mean if nominal is None else nominal
        product, members = self._products(events, nominal, members)
        weight = _scaled(product[None], self.unit_weight)[0]
        # that of every event, also of those whose nominal weight is zero
        factor = nominal * (self.unit_weight / (product.mean() * events.weight.mean()))
        members = _scaled(members, self.unit_weight)
        return self._with(events, weight, members, factor)

    def _products(
        self, events: EventSample, nominal: FloatArray, members: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Weights of the classifier times those of the events; the mean of these is one."""
        before = events.weight / events.weight.mean()
        nominal, members = nominal * before, members * before
        self.count(nominal)
        return nominal, members

    def _with(
        self, events: EventSample, weight: FloatArray, members: FloatArray,
        factor: FloatArray | None = None,
    ) -> EventSample:  # fmt: skip
        """Events with these nominal weights and variations; named weights follow the nominal."""
        further = dict(zip(self.names, members, strict=True))
        return with_weights(events, weight, self.run, further, factor)

    def _accepted(
        self, n: int, make: Callable[[int], EventSample], rng: np.random.Generator
    ) -> EventSample:
        """So many unit-weight events."""
        parts: list[EventSample] = []
        relative: list[FloatArray] = []

        def draw(k: int) -> tuple[tuple[EventSample, FloatArray, FloatArray], FloatArray]:
            events = make(k)
            nominal, members = self._products(events, *self.reweighter.weights(events))
            return (events, nominal, members), nominal

        for (events, nominal, members), taken in self.accepted(
            n, draw, self.limit * self._unit, rng, expected=1 / self.limit, remedy=_REMEDY
        ):
            parts.append(events[taken])
            relative.append(members[:, taken] / nominal[taken])
        whole, variations = concatenate(parts)[:n], np.concatenate(relative, axis=1)[:, :n]
        return self._with(whole, whole.weight, _scaled(variations, 1.0) * whole.weight)

    @property
    def _unit(self) -> float:
        """Mean of the classifier's raw weights, in whose units the limit is."""
        return float(self.reweighter.facts["mean_weight_before_normalisation"])


def _scaled(weights: FloatArray, mean: float) -> FloatArray:
    """Rows of weights (k, n), each with this mean."""
    means = weights.mean(1, keepdims=True)
    if not np.all(means > 0):
        raise ModelError(
            "the weights of a block of events do not sum to a positive number",
            remedy="generate more events, or train the classifier anew",
        )
    return np.asarray(weights * (mean / means))
