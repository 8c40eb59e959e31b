"""Tables of couplings as functions of the scale, learned from events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.process.auxiliary import EXACT, FloatArray, value_of
from hepgen_ml.process.scale_search import directions
from hepgen_ml.process.scales import formula, formula_names

_KNOTS = 512
_WINDOW = 31

_BENT = 0.3
"""Relative change of the slope of a table up to which an event at its end may follow it."""


def best_table(
    incoming: Tensor,
    final: Tensor,
    scale: FloatArray,
    value: FloatArray,
    masses: Sequence[float] = (),
) -> dict[str, Any] | None:
    """Table of a coupling in the scale that it follows most closely, see `coupling_table`.

    The event's scale where that is as good as any formula of the momenta. Masses are those of
    `hepgen_ml.process.scale_search.directions`.
    """
    known = value > 0
    rows = torch.from_numpy(known)
    incoming, final, scale, value = incoming[rows], final[rows], scale[known], value[known]
    best, share = None, 0.0
    names = [*formula_names(final), *directions(final, 1 / value, masses)]
    for name in (None, *names):
        of = scale if name is None else formula(name, incoming, final).numpy()
        table = coupling_table(of, value)
        if table is None:
            continue
        off = np.abs(value_of(table, incoming, final, of) / value - 1)
        if np.mean(off <= EXACT) > share + 0.01:
            best, share = table, float(np.mean(off <= EXACT))
        if share > 0.99:
            break
    return best


def coupling_table(scale: FloatArray, value: FloatArray) -> dict[str, Any] | None:
    """1/value as a function of log(scale), from events of which a few may not follow it.

    Knots are medians of both over neighbouring events: for a monotone function
    these lie on the curve, and 1/alpha is nearly linear between them.
    """
    known = (scale > 0) & (value > 0)
    scale, value = scale[known], value[known]
    if len(scale) < 8 * _WINDOW:
        return None
    order = np.argsort(scale)
    x, y = np.log(scale[order]), 1.0 / value[order]
    if x[-1] - x[0] < 1e-6:
        return None
    starts = np.searchsorted(x, np.linspace(x[0], x[-1], _KNOTS)) - _WINDOW // 2
    starts = np.unique(np.clip(starts, 0, len(x) - _WINDOW))
    windows = starts[:, None] + np.arange(_WINDOW)
    knots, inverse = np.median(x[windows], axis=1), np.median(y[windows], axis=1)
    knots, inverse = _with_ends(x, y, knots, inverse)
    keep = np.concatenate([[True], np.diff(knots) > 1e-9])
    if keep.sum() < 2:
        return None
    return {"kind": "table", "knots": knots[keep].tolist(), "inverse": inverse[keep].tolist()}


def _with_ends(
    x: FloatArray, y: FloatArray, knots: FloatArray, inverse: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Knots with those of the few events beyond the first and the last, as far as these follow.

    They may be far beyond, across the threshold of a flavour. Medians of three neighbours lie on
    the curve though one of them does not; the outermost follows if the curve goes on through it.
    """
    ends = _upper_end(-x[::-1], y[::-1], -knots[::-1], inverse[::-1])
    return _upper_end(x, y, -ends[0][::-1], ends[1][::-1])


def _upper_end(
    x: FloatArray, y: FloatArray, knots: FloatArray, inverse: FloatArray
) -> tuple[FloatArray, FloatArray]:
    least = 1e-3 * (x[-1] - x[0])
    start = int(np.searchsorted(x, knots[-1], side="right"))
    three = start + np.arange(max(len(x) - start - 2, 0))[:, None] + np.arange(3)
    ends_x = np.append(np.median(x[three], axis=1), x[-1])
    ends_y = np.append(np.median(y[three], axis=1), y[-1])
    for at, value in zip(ends_x, ends_y, strict=True):
        before = int(np.searchsorted(knots, knots[-1] - least, side="right")) - 1
        if at - knots[-1] < least or before < 0:
            continue
        slope = (inverse[-1] - inverse[before]) / (knots[-1] - knots[before])
        rise = slope * (at - knots[-1])
        if abs(value - inverse[-1] - rise) <= _BENT * abs(rise):
            knots, inverse = np.append(knots, at), np.append(inverse, value)
    return knots, inverse
