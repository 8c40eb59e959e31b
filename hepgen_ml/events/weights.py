"""Weights of the Les Houches accord for events whose weights have any scale.

HepMC3 and ROOT files normalise events by the sum of their weights. Programs that read LHE files
use, under strategy ±3, the cross section of the run and only the sign of a weight; under ±4 they
use the mean weight as cross section. Therefore weights of equal size become unit weights, and
others are scaled so that their mean is the cross section.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo, Subrun

log = logging.getLogger(__name__)

_EQUAL = 1e-6  # relative difference of weights of the same size
_SIGMAS = 5.0


class Numbers(Protocol):
    """Interface that arrays and tensors share."""

    def sum(self) -> Any:
        """Sum of all."""

    def __mul__(self, other: Any, /) -> Any: ...


def effective_size(weight: Numbers) -> float:
    """Effective sample size (sum w)^2 / sum w^2: events of equal weight with the same precision.

    Parameters
    ----------
    weight : (n,) array or tensor
        Of either sign; 0 events without any.
    """
    return float(weight.sum()) ** 2 / max(float((weight * weight).sum()), 1e-300)


def unweighting_limit(weights: FloatArray, loss: float = 1e-3) -> float:
    """Largest weight for an acceptance of events with probability w/limit.

    Events with larger weights are always accepted; at most a fraction `loss` of the total weight is
    lost by that.
    """
    ordered = np.sort(weights)[::-1]
    # lost above a limit at the i-th largest weight: sum of the larger ones minus i times it
    lost = np.cumsum(ordered) - np.arange(1, len(ordered) + 1) * ordered
    allowed = np.flatnonzero(lost <= loss * ordered.sum())
    return float(ordered[allowed[-1]])


@dataclass
class WeightMoments:
    """Number of events, and sums of their weights and of the squares of these.

    Attributes
    ----------
    n : int
        Events.
    total, squares : float
        Sums of weights and of their squares.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def count(self, weight: FloatArray) -> None:
        """Take in the weights (n,) of events."""
        self.n += len(weight)
        self.total += float(weight.sum())
        self.squares += float((weight**2).sum())

    @property
    def mean(self) -> float:
        """Mean weight."""
        return self.total / max(self.n, 1)

    @property
    def effective_fraction(self) -> float:
        """(sum w)^2 / sum w^2 over the number of events."""
        return self.total**2 / max(self.squares * self.n, 1e-300)


@dataclass
class WeightSums(WeightMoments):
    """Sums of weights of a sample, chunk by chunk.

    Attributes
    ----------
    smallest, largest : float
        Absolute weights.
    negative : bool
        Whether any is below zero.
    processes : dict of int to float
        Sum of weights by process number.
    """

    smallest: float = np.inf
    largest: float = 0.0
    negative: bool = False
    processes: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, chunks: Iterable[EventSample]) -> WeightSums:
        """Sums over all chunks of a sample."""
        sums = cls()
        for chunk in chunks:
            sums.add(chunk)
        return sums

    def add(self, chunk: EventSample) -> None:
        """Take in the events of one chunk."""
        weight = chunk.events["weight"]
        if not len(weight):
            return
        size = np.abs(weight)
        self.count(weight)
        self.smallest = min(self.smallest, float(size.min()))
        self.largest = max(self.largest, float(size.max()))
        self.negative |= bool((weight < 0).any())
        ids = chunk.events.get("process_id", np.zeros(len(weight), dtype=np.int32))
        found, where = np.unique(ids, return_inverse=True)
        sums = np.bincount(where, weight, len(found))
        for process, value in zip(found.tolist(), sums.tolist(), strict=True):
            self.processes[process] = self.processes.get(process, 0.0) + value

    @property
    def equal(self) -> bool:
        """Whether all weights have the same size."""
        return self.largest - self.smallest <= _EQUAL * self.largest


def declared(run: RunInfo, weights: Mapping[int, float]) -> RunInfo:
    """The run with all processes that its events have, each with its part of the cross section.

    Parameters
    ----------
    run : RunInfo
        Unchanged if it declares all of them.
    weights : mapping of int to float
        Sum of weights by process number.
    """
    total = sum(weights.values())
    if set(weights) <= {p.process_id for p in run.processes} or not total > 0:
        return run
    sigma, error = run.cross_section, run.cross_section_error
    largest = max((p.max_weight for p in run.processes), default=1.0)
    shares = {process: s / total for process, s in sorted(weights.items())}
    return run.with_(processes=_divided(shares, sigma, error, largest))


def _divided(
    shares: dict[int, float], sigma: float, error: float, largest: float
) -> tuple[Subrun, ...]:
    """Processes with parts of a cross section, whose errors in quadrature are that of the whole."""
    size = sum(map(abs, shares.values()))
    return tuple(
        Subrun(process, share * sigma, error * float(np.sqrt(abs(share) / size)), largest)
        for process, share in shares.items()
    )


def les_houches(
    run: RunInfo, sums: WeightSums, *, stated: bool, exact: bool = False
) -> tuple[RunInfo, float]:
    """Run information for an LHE file, and the factor of its weights.

    Parameters
    ----------
    run : RunInfo
    sums : WeightSums
        Sums of the events' weights.
    stated : bool
        Whether the weights follow the strategy of the run; not in formats without strategies.
    exact : bool
        Whether the mean weight must equal the cross section exactly, not only up to fluctuations.

    Raises
    ------
    OutputError
        The cross section is not known, or the weights do not have a positive sum.
    """
    strategy = abs(run.weight_strategy)
    if not sums.n:
        return run, 1.0
    if not abs(run.cross_section) > 0:  # negative for interference terms
        if not (stated and strategy == 4 and sums.mean > 0):
            raise OutputError(
                "the cross section is not known, and an LHE file has to state it",
                remedy="give it with --cross-section",
            )
        shares = {process: s / sums.total for process, s in sorted(sums.processes.items())}
        run = run.with_(processes=_divided(shares, sums.mean, np.nan, sums.largest))
        return run, 1.0
    run = declared(run, sums.processes)
    if stated and strategy == 3 and sums.equal:
        return run, 1.0
    if not sums.total * run.cross_section > 0:
        raise OutputError(
            f"the sum of weights is {sums.total:g}, from which no cross section follows",
            remedy="take more events",
        )
    if strategy == 4 and stated and not exact and _is_mean(run, sums):
        return run, 1.0
    if sums.equal and not stated:
        return run.with_(weight_strategy=-3 if sums.negative else 3), 1.0
    factor = run.cross_section / sums.mean
    processes = tuple(replace(p, max_weight=factor * sums.largest) for p in run.processes)
    return run.with_(weight_strategy=-4, processes=processes), factor


def multiply_weights(sample: EventSample, factor: float) -> None:
    """Multiply the weights of events, named ones included; their arrays are replaced."""
    if factor != 1:
        sample.events["weight"] = sample.weight * factor
        sample.weights = {name: w * factor for name, w in sample.weights.items()}


def with_weights(
    sample: EventSample,
    weight: FloatArray,
    run: RunInfo,
    further: Mapping[str, FloatArray] | None = None,
    factor: FloatArray | None = None,
) -> EventSample:
    """Events with these nominal weights (n,); named weights keep their ratio to the nominal one.

    Parameters
    ----------
    sample : EventSample
    weight : (n,) array
    run : RunInfo
        Of the events with these weights.
    further : mapping of str to (n,) array, optional
        More named weights.
    factor : (n,) array, optional
        By which named weights change where the nominal one is zero and states no ratio; one by
        default, so that they stay as they are.
    """
    if factor is None:
        factor = np.ones(len(weight))
    factor = np.divide(weight, sample.weight, out=factor.copy(), where=sample.weight != 0)
    named = {name: values * factor for name, values in sample.weights.items()}
    return EventSample(
        run, sample.offsets, sample.particles, {**sample.events, "weight": weight},
        weights=named | dict(further or {}), scales=sample.scales, attributes=sample.attributes,
    )  # fmt: skip


def _is_mean(run: RunInfo, sums: WeightSums) -> bool:
    """Whether the mean weight is the cross section within the errors of both."""
    sigma, mean = run.cross_section, sums.mean
    variance = max(0.0, sums.squares / sums.n - min(mean**2, sigma**2))
    error = np.hypot(np.sqrt(variance / sums.n), np.nan_to_num(run.cross_section_error))
    return bool(abs(mean - sigma) <= _SIGMAS * error + 1e-5 * sigma)


def compare_mean(run: RunInfo, n: float, total: float, squares: float) -> None:
    """Warn if the mean weight of events of strategy 4 is not the stated cross section."""
    stated, mean = run.cross_section, total / n
    error = np.sqrt(max(squares / n - mean**2, 0.0) / n)
    allowed = 5 * np.hypot(error, np.nan_to_num(run.cross_section_error)) + 1e-3 * stated
    if stated > 0 and min(abs(mean - stated), abs(total - stated) / n) > allowed:
        log.warning(
            "the mean weight is %.6g +- %.2g, but the stated cross section %.6g pb: generated "
            "events have the latter", mean, error, stated,
        )  # fmt: skip
