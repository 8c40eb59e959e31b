"""Scales and couplings of the few events that follow no rule of the others.

Such events are too few for a density of their values, but real: two Higgs bosons decay to four b
quarks, and in one event of thousands it is ambiguous which of these the generator paired for its
scale. Each of their values becomes an *exception*, an option of its own; events that nothing else
explains take the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RARE = 1e-3
"""Fraction of unexplained events up to which their values are exceptions rather than a density."""

NEARLY = 1e-2
"""Relative deviation up to which events without a density of their own take the nearest option."""

_MOST = 8
"""Largest number of exceptions of a rule."""

_BEYOND = 0.1
"""Share of the deviation that counts where a table is continued beyond its ends: thresholds of
flavours change the slope of a coupling there."""


def is_exception(option: Mapping[str, Any]) -> bool:
    """Whether an option of a rule is the value of few events."""
    return bool(option.get("exception", False))


def exceptional_formulas(ratio: FloatArray, name: str, factor: float) -> list[dict[str, Any]]:
    """Multiples of a formula with these ratios (m,) of the values to it."""
    return [
        {"kind": "formula", "formula": name, "factor": factor * r, "exception": True}
        for r in _some(ratio)
    ]


def exceptional_constants(value: FloatArray) -> list[dict[str, Any]]:
    """These values (m,)."""
    return [{"kind": "constant", "value": v, "exception": True} for v in _some(value)]


def _some(values: FloatArray) -> list[float]:
    """All of a few values, some over the whole range of more."""
    distinct = np.unique(values[np.isfinite(values) & (values > 0)])
    if len(distinct) > _MOST:
        distinct = np.quantile(distinct, np.linspace(0, 1, _MOST), method="nearest")
    return [float(v) for v in distinct]


def closest(
    options: list[dict[str, Any]],
    exact: FloatArray,
    value: FloatArray,
    scale: FloatArray,
    precision: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Option (m,) nearest to each value, whether it is exact, and whether it may stand for it.

    Parameters
    ----------
    options : list of dict
    exact : (k, m) array
        Values of the options.
    value, scale : (m,) array
        Values and scales of events.
    precision : float
        Relative deviation that counts as exact.
    """
    off = deviation(value, exact)
    counted = np.stack(
        [row * _weight(o, scale) for row, o in zip(off, options, strict=True)]
    )
    rare = np.array([is_exception(o) for o in options])[:, None]
    ordinary = np.where(rare, np.inf, counted)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(np.log(value / np.maximum(exact, 1e-300)))
    # Exact ordinary options first, then exact exceptions, then what is nearly right.
    exceptional = np.where(off <= precision, precision + off, NEARLY * (1 + distance))
    exceptional = np.where(rare & (value > 0), exceptional, np.inf)
    cost = np.where(rare, exceptional, np.where(ordinary <= NEARLY, ordinary, np.inf))
    cost = np.where(np.isfinite(cost).any(axis=0), cost, off)
    choice = np.argmin(cost, axis=0)
    chosen = choice[None]
    is_exact = np.take_along_axis(off, chosen, 0)[0] <= precision
    taken = np.take_along_axis(counted, chosen, 0)[0] <= NEARLY
    taken |= np.take_along_axis(np.broadcast_to(rare, off.shape), chosen, 0)[0]
    return choice, is_exact, taken


def deviation(value: FloatArray, exact: FloatArray) -> FloatArray:
    """Relative deviation, zero between zeros."""
    return np.asarray(np.abs(value - exact) / np.maximum(np.abs(exact), 1e-300))


def _weight(option: Mapping[str, Any], scale: FloatArray) -> FloatArray | float:
    """Share of the deviation from an option that counts."""
    if option["kind"] != "table" or option.get("of") is not None:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scale = np.log(scale)
    knots = option["knots"]
    return np.where((log_scale < knots[0]) | (log_scale > knots[-1]), _BEYOND, 1.0)
