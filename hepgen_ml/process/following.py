"""Finding masses that follow the conditions of the user: fixed ones, and resonances."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.phase_space.laws import Kind, Law, fit_law, proportional
from hepgen_ml.phase_space.masses import MovingMass, MovingPeak
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.peaks import find_peak

Rows = npt.NDArray[np.intp]

_FEWEST = 100
"""Minimum number of masses at a condition to fit a peak."""

_FEWEST_OF_MEAN, _CLEAR = 30, 4.0
"""Minimum number of values at a condition for a mean, and standard deviations by which a mean must
differ from that of all values."""

_CELLS = 12
"""Number of ranges of a continuous condition in which a peak is searched."""

_IN_CELL = 400
"""Approximate number of events in such a range."""

_EXACT = 1e-4
"""Relative spread of equal masses, due to the digits of files."""

_MOVED = 0.3
"""Shift in widths above which a peak moves."""

NEARLY_RIGHT = math.pi / 2 * (1 - 1e-9)
"""Angle of the Breit-Wigner map beyond all masses."""

_MARGIN = 1e-3
"""Margin of the range of angles beyond those in the sample."""


def follows(
    mass: FloatArray, values: FloatArray, conditions: Conditions | None
) -> MovingMass | MovingPeak | None:
    """Mass as a function of conditions; None if it does not depend on them.

    Parameters
    ----------
    mass : (n,) array
        In GeV.
    values : (n, K) array
        Conditions of the same events.
    conditions : Conditions or None
    """
    good = np.isfinite(mass) & (mass > 0)
    if conditions is None or good.sum() < _FEWEST or not good.all():
        return None
    kinds = conditions.kinds
    fixed = _fixed(mass, values, kinds)
    if fixed is not None:
        return fixed
    best: tuple[float, Law, Law] | None = None
    for k in [None, *(k for k, kind in enumerate(kinds) if kind != "category")]:
        if k is not None and not (values[:, k] > 0).all():
            continue
        found = _peak_over(mass, values, kinds, k, conditions.scan)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    if best is None:
        return None
    _, position, width = best
    m, w = _at(position, values), _at(width, values)
    if np.ptp(m) < _MOVED * np.median(w):
        return None
    angle = np.arctan((mass**2 - m**2) / (m * w))
    margin = _MARGIN * np.ptp(angle)
    first, last = angle.min() - margin, angle.max() + margin
    return MovingPeak(0.0, float("inf"), position, width,
                      float(max(first, -NEARLY_RIGHT)), float(min(last, NEARLY_RIGHT)))  # fmt: skip


def mean_follows(values: FloatArray, given: FloatArray, conditions: Conditions) -> Law | None:
    """Mean of positive values (n,) as a function of conditions (n, K); None if constant."""
    where, means, errors = [], [], []
    for rows in cells_of(given, conditions.kinds, conditions.scan):
        if len(rows) < _FEWEST_OF_MEAN:
            continue
        own = values[rows]
        where.append(np.median(given[rows], axis=0))
        means.append(float(own.mean()))
        errors.append(max(float(own.std()) / means[-1] / math.sqrt(len(rows)), 1e-6))
    if len(means) < 2:
        return None
    at, error = np.array(means), np.array(errors)
    middle = float(np.exp(np.average(np.log(at), weights=error**-2.0)))
    if (np.abs(np.log(at / middle)) < _CLEAR * error).all():
        return None
    return fit_law(np.stack(where), at, error, conditions.kinds)


def _at(law: Law, values: FloatArray) -> FloatArray:
    return law(torch.from_numpy(values)).numpy()


def _fixed(mass: FloatArray, values: FloatArray, kinds: tuple[Kind, ...]) -> MovingMass | None:
    """A mass that is fixed at given conditions."""
    largest = float(mass.max())
    if np.ptp(mass) <= _EXACT * largest:
        return None
    for k, kind in enumerate(kinds):
        if kind == "category" or not (values[:, k] > 0).all():
            continue
        ratio = mass / values[:, k]
        if np.ptp(ratio) <= _EXACT * ratio.max():
            factor = float(np.median(ratio))
            law = proportional(kinds, k, 1.0 if abs(factor - 1) < _EXACT else factor)
            return MovingMass(law, largest)
    points, inverse = np.unique(values, axis=0, return_inverse=True)
    if len(points) > len(mass) / 20:
        return None
    groups = [mass[inverse.ravel() == i] for i in range(len(points))]
    if any(np.ptp(g) > _EXACT * g.max() for g in groups):
        return None
    at = np.array([float(f"{np.median(g):.10g}") for g in groups])
    return MovingMass(fit_law(points, at, np.full(len(at), 1e-9), kinds), largest)


def _peak_over(
    mass: FloatArray, values: FloatArray, kinds: tuple[Kind, ...], k: int | None, scan: bool
) -> tuple[float, Law, Law] | None:
    """Median relative width, position and width of a peak in the mass over condition k, or alone.

    At each point of a scan, or in ranges of a continuous condition. Where these have too few
    events, the peak over the condition may be that of all events.
    """
    base = np.ones_like(mass) if k is None else values[:, k]
    ratio = mass / base
    places, positions, widths, numbers = [], [], [], []
    cells = [rows for rows in cells_of(values, kinds, scan) if len(rows) >= _FEWEST]
    for rows in cells:
        peak = find_peak(ratio[rows])
        if peak is None:
            continue
        scale = 1.0 if k is None else float(np.median(base[rows]))
        places.append(np.median(values[rows], axis=0))
        positions.append(peak[0] * scale)
        widths.append(peak[1] * scale)
        numbers.append(len(rows))
    # peaks at a few points only are not a moving peak
    if len(places) < 2 or len(places) < 0.7 * len(cells):
        peak = None if k is None else find_peak(ratio)
        if k is None or peak is None:
            return None
        position, width = (proportional(kinds, k, factor) for factor in peak)
        return peak[1] / peak[0], position, width
    at, full = np.array(positions), np.array(widths)
    error = np.sqrt(2 / np.array(numbers))
    where = np.stack(places)
    return (
        float(np.median(full / at)),
        fit_law(where, at, np.maximum(error * full / at, 1e-12), kinds),
        fit_law(where, full, np.maximum(2 * error, 1e-3), kinds),
    )


def cells_of(values: FloatArray, kinds: tuple[Kind, ...], scan: bool) -> list[Rows]:
    """Rows of events at each point of a scan; else in ranges of one condition after the other."""
    if scan:
        points, inverse = np.unique(values, axis=0, return_inverse=True)
        return [np.flatnonzero(inverse.ravel() == i) for i in range(len(points))]
    cells = [np.arange(len(values))]
    most = min(_CELLS, len(values) / _IN_CELL)
    n = max(1, round(most ** (1 / len(kinds))))
    for k, kind in enumerate(kinds):
        split: list[Rows] = []
        for rows in cells:
            column = values[rows, k]
            if kind == "category":
                split += [rows[column == level] for level in np.unique(column)]
            else:
                split += np.array_split(rows[np.argsort(column, kind="stable")], n)
        cells = split
    return cells
