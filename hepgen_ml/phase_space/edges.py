"""Edges in the distribution of an observable, as opposed to tails and kinematic edges.

Close to a cut the density is finite and then ends: the k-th most extreme value moves linearly
with k. In a tail it moves like log k, and above a natural bound, such as zero, like a power of k.
A kinematic edge moves with other observables; the edge of a cut is independent of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_FEW = 64
"""Number of extreme values for the first test of an edge, and minimum number."""

_STRAIGHT = 0.68
"""Largest position of the middle one of the first values between first and last: halfway for a
sharp edge, 0.63 where the density rises like a square root, 0.71 where linearly."""

HARDLY_ANY, _STRAIGHT_HARDLY = 500, 0.6
"""Number of entries below which the first values are a large part, and must be straighter."""

_WIDE_SCALE, _MOST_WIDE, _STRAIGHT_WIDE, _BENT_WIDE = 64, 1024, 0.68, 0.75
"""In the second test, one in so many entries is used, up to a maximum. If their median is below the
first position, the edge may be soft at its end, as for jets; above the second, there is no edge."""

_WIDEST_SCALE, _STRAIGHT_WIDEST = 16, 0.62
"""Largest number of entries, which covers the soft end that masses give an edge."""

_STRAY, _STRAY_GAP, _STRAY_STRAIGHT = 2e-5, 20.0, 0.6
"""Part of the entries that may lie beyond an edge (a bad event or two), by how many mean
spacings of the others at least, and how straight these must be: tails have stray values too."""

_BINS, _IN_TAIL, _EVIDENT = 12, 4, 15.0
"""Bins of a density that ends and as many beyond its end, the part of the entries in these (one in
so many), and twice the logarithm of the ratio of likelihoods with and without an end that makes
the end evident: in samples of smooth tails it is 1 to 2, and rarely 12."""

_MARGIN = 6.0
"""Mean spacings between the edge and the first value, if no round number is closer."""

_RELATED, _RELATED_FEW, _RELATED_PARTS = 0.1, 4.0, 0.3
"""Largest fraction of the variance of an observable's ranks near its edge that other observables
explain, a term divided by the number of values, and the fraction if the others determine the
observable: near a cut the fraction is small, near a kinematic edge it is usually 0.45 to 0.9."""

_COLLINEAR = 0.05
"""Added to the variance of others, so that small differences between nearly equal values do not
count: the momenta of the products of a resonance determine each other."""

_COMPARED_SCALE = 128
"""One in so many entries is compared with other observables, but at least the number above."""


@dataclass(frozen=True)
class Edge:
    """Lower end of a distribution.

    Attributes
    ----------
    at : float
        A little below the first value, at a round number if there is one.
    near : int
        Number of values of the test.
    width : float
        Distance from the edge to the last of these.
    position : float
        Of the middle one between first and last; one half for a sharp edge.
    spacing : float
        Mean distance between the values next to the edge.
    """

    at: float
    near: int
    width: float
    position: float
    spacing: float


def lower_edge(
    values: Values, entries: int, natural: float | None = None, strays: bool = True
) -> Edge | None:
    """Edge below the smallest values, if there is one.

    Parameters
    ----------
    values : (k,) array
        The smallest values, sorted.
    entries : int
        How many values there are in all.
    natural : float, optional
        Bound of the observable without any cut, at which its square has at most a finite density.
    strays : bool
        Whether one or two values may lie outside.
    """
    allowed = [0, *(k for k in (1, 2) if strays and k <= _STRAY * entries)]
    for k in allowed:
        some = values[k:]
        if len(some) <= _FEW:
            break
        linear = some if natural is None else some**2
        shape = some if natural is None else _log_distance(some, natural)
        n = _judged(shape, entries)
        if n is None:
            continue
        position = _position(linear, n)
        first = float(linear[0])
        if k > 0:
            mean = float(linear[n] - first) / n
            before = values[k - 1] if natural is None else values[k - 1] ** 2
            if first - before < _STRAY_GAP * mean or _position(shape, n) > _STRAY_STRAIGHT:
                continue
        spacing = max(float(linear[m] - first) / m for m in (8, _FEW, n))
        low = first - _MARGIN * spacing
        if natural is None:
            at = _roundest(low, first)
        elif low <= natural**2:
            continue
        else:
            at = _roundest(math.sqrt(low), float(some[0]))
        return Edge(at, n, float(some[n]) - at, position, float(some[_FEW] - some[0]) / _FEW)
    return None


def ends(values: Values, entries: int) -> bool:
    """Whether a density ends where the smallest values do, rather than to continue smoothly.

    A density whose logarithm is a parabola is fitted to their histogram, with an end and without
    one: then the empty bins beyond count, and are unlikely if many entries are expected there.

    Parameters
    ----------
    values : (k,) array
        The smallest values, sorted.
    entries : int
        How many values there are in all.
    """
    n = min(max(entries // _IN_TAIL, _FEW), len(values) - 1)
    if not values[n] > values[0]:
        return True
    place = (values[: n + 1] - values[0]) / (values[n] - values[0])
    inside = np.histogram(place, _BINS, (0.0, 1.0))[0].astype(np.float64)
    x = (np.arange(-_BINS, _BINS) + 0.5) / _BINS
    smooth = _likelihood(x, np.concatenate([np.zeros(_BINS), inside]))
    return 2 * (_likelihood(x[_BINS:], inside) - smooth) > _EVIDENT


def _likelihood(x: Values, counts: Values) -> float:
    """Largest logarithm of the Poisson likelihood of exp(a + b x + c x^2)."""
    powers = np.stack([np.ones_like(x), x, x**2], axis=1)
    factors = np.array([math.log(max(float(counts.mean()), 1e-3)), 0.0, 0.0])

    def log_likelihood(some: Values) -> float:
        exponent = np.clip(powers @ some, -50.0, 50.0)
        return float((counts * exponent - np.exp(exponent)).sum())

    best = log_likelihood(factors)
    for _ in range(100):
        mean = np.exp(np.clip(powers @ factors, -50.0, 50.0))
        curvature = (powers * mean[:, None]).T @ powers + 1e-9 * np.eye(3)
        step = np.linalg.solve(curvature, powers.T @ (counts - mean))
        # shorter where the likelihood falls
        lengths = 0.5 ** np.arange(20)
        size = next((s for s in lengths if log_likelihood(factors + s * step) >= best), 0.0)
        factors = factors + size * step
        before, best = best, log_likelihood(factors)
        if best - before < 1e-6:
            break
    return best


def _log_distance(values: Values, natural: float) -> Values:
    """Logarithm of the distance of squares to that of a natural bound.

    There a power of any order, which is no edge, looks like the tail of an exponential.
    """
    squares = values**2 - natural**2
    logarithm: Values = np.log(np.maximum(squares, 1e-12 * max(natural**2, 1e-300)))
    return logarithm


def _judged(shape: Values, entries: int) -> int | None:
    """Number of values that demonstrate an edge, None without an edge."""
    last = len(shape) - 1
    wide = min(max(entries // _WIDE_SCALE, _FEW), _MOST_WIDE, last)
    widest = min(entries // _WIDEST_SCALE, last)
    at_wide = _position(shape, wide)
    if entries < HARDLY_ANY:
        return wide if at_wide <= _STRAIGHT_HARDLY else None
    if at_wide <= (_STRAIGHT_WIDE if wide > _FEW else _STRAIGHT):
        return wide
    if _position(shape, _FEW) <= _STRAIGHT and at_wide <= _BENT_WIDE:
        return _FEW
    if widest > wide and _position(shape, widest) <= _STRAIGHT_WIDEST:
        return widest
    return None


def _position(values: Values, n: int) -> float:
    """Position of the middle one of the first n + 1 values between first and last."""
    span = float(values[n] - values[0])
    return float(values[(n + 1) // 2] - values[0]) / span if span > 0 else math.inf


def is_fixed(rows: Values, entries: int, *, determined: bool = False) -> bool:
    """Whether an edge is independent of other observables.

    The edge of a cut is; the observable then does not depend on others close to it. A kinematic
    edge moves: the mass of two jets, for example, begins at twice their transverse momentum.

    Parameters
    ----------
    rows : (1 + k, n) array
        Smallest values of the observable, sorted, and the values of k others.
    entries : int
        How many values there are in all.
    determined : bool
        Whether the others together determine the observable.
    """
    n = min(max(entries // _COMPARED_SCALE, _FEW), rows.shape[1])
    ranks = np.stack([_ranks(row) for row in rows[:, :n]])
    varying = ranks[np.ptp(ranks, axis=1) > 0]
    if len(varying) < 2:
        return True
    correlation = np.corrcoef(varying)[0, 1:]
    others = np.atleast_2d(np.corrcoef(varying[1:])) + _COLLINEAR * np.eye(len(varying) - 1)
    explained = float(correlation @ np.linalg.solve(others, correlation))
    return explained <= (_RELATED_PARTS if determined else _RELATED + _RELATED_FEW / n)


def _ranks(values: Values) -> Values:
    """Ranks, equal for values that differ by rounding (angles of pairs that balance)."""
    size = float(np.median(np.abs(values))) or 1.0
    rounded = np.round(values / size if math.isfinite(size) else values, 9)
    _, inverse, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - counts / 2)[inverse]
    return ranks


def _roundest(low: float, high: float) -> float:
    """Number with the fewest digits in [low, high], or about `low` if that is accidental.

    Cuts are usually round numbers, such as 20, 0.4 or 4.5. Values that differ by rounding alone
    have no number of few digits below them: then it is `low`.
    """
    size = max(abs(low), abs(high))
    if not high - low > 1e-12 * size:
        return low
    for digits in range(4):
        for step in (10.0, 5.0, 2.0, 1.0):
            unit = step * 10.0 ** (math.floor(math.log10(size)) - digits)
            candidate = math.floor(high / unit + 1e-9) * unit
            likely = high - low < unit / (5 if digits else 2)  # one digit is what most cuts have
            if low <= candidate <= high and likely:
                return _below(candidate, low, high)
    unit = 10.0 ** math.floor(math.log10((high - low) / 3))
    return _below(math.floor(low / unit) * unit, low, high)


def _below(value: float, low: float, high: float) -> float:
    """A value in 12 digits, or `low` where these lie above `high`."""
    rounded = float(f"{value:.12g}")
    return rounded if rounded <= high else low
