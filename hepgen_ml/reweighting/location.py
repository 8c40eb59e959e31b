"""Regions of phase space in which two samples differ, found by the weights of a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.analysis.metrics import (
    bin_edges,
    equal_numbers,
    histogram_chi2,
    shared_observables,
)
from hepgen_ml.analysis.observables import Observable, ObservableTable, observables
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.events.weights import effective_size

LOW, HIGH = 0.1, 10.0
"""Weights below and above which events form the tails."""

_TAIL_QUANTILE = 0.01  # fraction of events in each tail if few weights are that extreme
_MIN_TAIL = 50
_MIN_GROUP = 1000


@dataclass(frozen=True)
class Deviation:
    """An observable in which the samples differ.

    Attributes
    ----------
    observable : Observable
    before, after : float
        chi2/ndf without and with the weights.
    worst_bin : (low, high)
        With the largest pull before weighting.
    worst_ratio : float
        Ratio of generated over truth in this bin.
    worst_pull : float
        Deviation of this ratio in standard deviations.
    """

    observable: Observable
    before: float
    after: float
    worst_bin: tuple[float, float]
    worst_ratio: float
    worst_pull: float


@dataclass(frozen=True)
class Mark:
    """Difference between the events of a tail and all others in one observable.

    Attributes
    ----------
    observable : Observable
    separation : float
        Area under the ROC curve of this observable alone minus 0.5; negative for small values.
    low, middle, high : float
        16, 50 and 84 % quantiles in the tail.
    """

    observable: Observable
    separation: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Tail:
    """Events with extreme weights, compared with all the others.

    Attributes
    ----------
    side : {"low", "high"}
        Low weights: generated too often.
    limit : float
        Weight that bounds the tail, relative to the mean of the final state.
    n_events : int
    share : float
        Fraction of all generated events of the final state.
    marks : list of Mark
        The largest separation first.
    """

    side: str
    limit: float
    n_events: int
    share: float
    marks: list[Mark]


@dataclass(frozen=True)
class Location:
    """One final state.

    Attributes
    ----------
    signature : Signature
    deviations : list of Deviation
        The largest chi2/ndf first.
    tails : list of Tail
    weights : (n,) float array
        Weights of its generated events.
    """

    signature: Signature
    deviations: list[Deviation]
    tails: list[Tail]
    weights: FloatArray


def locate(
    truth: EventSample, generated: EventSample, weights: FloatArray, *, n_events: int = 50_000
) -> list[Location]:
    """Find the observables, bins and events in which two samples differ.

    Parameters
    ----------
    truth, generated : EventSample
    weights : (n,) array
        Held-out weights of the generated events (`Reweighter.held_out`).
    n_events : int
        At most so many of each sample and final state are compared.

    Returns
    -------
    list of Location
        The largest final state first; none with fewer than 1000 events of either sample.
    """
    tables = observables(truth), observables(generated)
    found = []
    for signature, true in tables[0].items():
        made = tables[1].get(signature)
        if made is None or min(len(true), len(made)) < _MIN_GROUP:
            continue
        w = weights[made.index]
        factor = dict(zip(made.index.tolist(), w, strict=True))
        a, b = equal_numbers(true, made, n_events)
        chosen = np.array([factor[i] for i in b.index.tolist()])
        deviations = [
            d for o in shared_observables(a, b) if (d := _deviation(o, a, b, chosen)) is not None
        ]
        deviations.sort(key=lambda d: -d.before)
        found.append(Location(signature, deviations, _tails(made, w / w.mean()), w))
    return found


def _deviation(
    o: Observable, truth: ObservableTable, made: ObservableTable, weights: FloatArray
) -> Deviation | None:
    a, b = truth[o.name], made[o.name]
    edges = bin_edges([a, b], o)
    before = histogram_chi2(a, b, edges, truth.weight, made.weight)
    if before.ndf < 1:
        return None
    after = histogram_chi2(a, b, edges, truth.weight, made.weight * weights)
    sums = []
    for values, w in ((a, truth.weight), (b, made.weight)):
        counts = np.histogram(values, edges, weights=w)[0] / w.sum()
        squares = np.histogram(values, edges, weights=w**2)[0] / w.sum() ** 2
        sums.append((counts, squares))
    (p, p_error), (q, q_error) = sums
    variance = p_error + q_error
    pull = np.where((p > 0) & (q > 0), (q - p) / np.sqrt(np.maximum(variance, 1e-300)), 0.0)
    worst = int(np.argmax(np.abs(pull)))
    return Deviation(
        o,
        before.per_ndf,
        after.per_ndf,
        (float(edges[worst]), float(edges[worst + 1])),
        float(q[worst] / p[worst]) if p[worst] > 0 else 0.0,
        float(pull[worst]),
    )


def _tails(made: ObservableTable, w: FloatArray) -> list[Tail]:
    """Both tails; where few weights are extreme, the most extreme events of all."""
    share = max(_TAIL_QUANTILE, 1.1 * _MIN_TAIL / len(w))
    quantiles = np.quantile(w, [share, 1 - share])
    low = LOW if np.sum(w < LOW) >= _MIN_TAIL else float(quantiles[0])
    high = HIGH if np.sum(w > HIGH) >= _MIN_TAIL else float(quantiles[1])
    tails = []
    for side, limit, chosen in (("low", low, w < low), ("high", high, w > high)):
        n = int(chosen.sum())
        if not _MIN_TAIL <= n < len(w):
            continue
        marks = []
        for o in made.observables:
            values = made[o.name]
            if not o.discrete and np.ptp(values) > 0:
                separation = _area(values[chosen], values[~chosen]) - 0.5
                inside = np.quantile(values[chosen], [0.16, 0.5, 0.84]).tolist()
                marks.append(Mark(o, separation, *inside))
        marks.sort(key=lambda mark: -abs(mark.separation))
        tails.append(Tail(side, limit, n, n / len(w), marks))
    return tails


def _area(a: np.ndarray, b: np.ndarray) -> float:
    """Probability that a value of `a` is larger than one of `b`, ties counted half."""
    b = np.sort(b)
    below = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
    return float(below.mean() / (2 * len(b)))


def to_dict(locations: list[Location], most: int = 20) -> list[dict[str, Any]]:
    """Plain numbers and strings, for JSON."""
    return [
        {
            "final_state": str(x.signature),
            "effective_sample_size": effective_size(x.weights) / len(x.weights),
            "weight_quantiles": {
                str(q): float(np.quantile(x.weights, q))
                for q in (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0)
            },
            "observables": [
                {
                    "name": d.observable.name,
                    "chi2_per_ndf": d.before,
                    "chi2_per_ndf_reweighted": d.after,
                    "worst_bin": list(d.worst_bin),
                    "generated_over_truth": d.worst_ratio,
                    "pull": d.worst_pull,
                }
                for d in x.deviations[:most]
            ],
            "tails": [
                {
                    "side": t.side,
                    "limit": t.limit,
                    "events": t.n_events,
                    "share": t.share,
                    "marks": [
                        {
                            "name": m.observable.name,
                            "separation": m.separation,
                            "quantiles": [m.low, m.middle, m.high],
                        }
                        for m in t.marks[:most]
                    ],
                }
                for t in x.tails
            ],
        }
        for x in locations
    ]


def summary(locations: list[Location], most: int = 5) -> str:
    """Table for a terminal."""
    lines = []
    for x in locations:
        size = effective_size(x.weights) / len(x.weights)
        lines.append(f"{x.signature}: effective sample size {size:.1%} of its events")
        lines.append(f"  {'observable':<22}{'chi2/ndf':>9}{'weighted':>9}  worst bin")
        lines += [
            f"  {d.observable.name:<22}{d.before:>9.2f}{d.after:>9.2f}  "
            f"{d.worst_bin[0]:.4g} to {d.worst_bin[1]:.4g} {d.observable.unit}".rstrip()
            + f": generated/truth {d.worst_ratio:.3f} ({d.worst_pull:+z.1f} sigma)"
            for d in x.deviations[:most]
        ]
        for t in x.tails:
            sign = "<" if t.side == "low" else ">"
            marks = ", ".join(
                f"{m.observable.name} {m.low:.4g} to {m.high:.4g}" for m in t.marks[:3]
            )
            lines.append(f"  {t.n_events} events with w {sign} {t.limit:.3g} have {marks}")
        lines.append("")
    return "\n".join(lines)
