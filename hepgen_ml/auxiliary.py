"""Scale and couplings of an event: constant, computed from the kinematics, or learned.

Generators choose the scale by a formula. Where one of a few common formulas
reproduces the sample's scale, it is used; otherwise the logarithm of the scale
over the closest formula becomes one more coordinate of the density. The same
holds for the couplings, which are usually functions of the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    Coordinate,
    invariant_mass_squared,
    transverse_momentum,
)

FloatArray = npt.NDArray[np.float64]

AUXILIARY = ("scale", "alpha_qcd", "alpha_qed")
"""Event columns treated here, in the order in which they may depend on each other."""

EXACT = 2e-5
"""Relative agreement that counts as exact; scales are printed with about 7 digits."""

_KNOTS = 512


def reference_scales(p: Tensor) -> dict[str, Tensor]:
    """Common scale choices of a final state.

    Parameters
    ----------
    p : (events, n, 4) tensor
        Final-state momenta in GeV.

    Returns
    -------
    dict of str to (events,) tensor, GeV
    """
    mass2 = invariant_mass_squared(p).clamp_min(0.0)
    mt = torch.sqrt(transverse_momentum(p) ** 2 + mass2)
    heavy = mass2.mean(0).argsort(descending=True, stable=True)[:2]
    total = p.sum(1)
    return {
        "constant": torch.ones_like(total[:, 3]),
        "ht": mt.sum(1),
        "sqrt_shat": torch.sqrt(invariant_mass_squared(total).clamp_min(1e-12)),
        "geometric_mean_mt": torch.exp(torch.log(mt.clamp_min(1e-6)).mean(1)),
        "geometric_mean_mt_heaviest": torch.exp(torch.log(mt[:, heavy].clamp_min(1e-6)).mean(1)),
    }


class Auxiliaries:
    """How scale and couplings follow for the events of one chart.

    Parameters
    ----------
    rules : mapping of str to dict
        For each of `AUXILIARY`: ``kind`` is ``constant`` (``value``),
        ``formula`` (``formula`` of `reference_scales` times ``factor``), ``table`` (1/value
        linear between ``knots`` in log scale) or ``density`` (log of the value over
        ``factor`` times ``formula`` is a coordinate).
    """

    def __init__(self, rules: Mapping[str, dict[str, Any]]) -> None:
        self.rules = {name: dict(rules[name]) for name in AUXILIARY}
        for name, rule in self.rules.items():
            if rule["kind"] not in ("constant", "formula", "table", "density"):
                raise ValueError(f"unknown rule {rule['kind']!r} for {name}")
        self.learned = tuple(n for n in AUXILIARY if self.rules[n]["kind"] == "density")
        self.coordinates = tuple(Coordinate(f"log_{name}") for name in self.learned)

    @classmethod
    def learn(cls, p: Tensor, values: Mapping[str, FloatArray]) -> Auxiliaries:
        """Find the rules from events of one chart.

        Parameters
        ----------
        p : (events, n, 4) tensor
        values : mapping of str to (events,) array
            Columns of `AUXILIARY`; absent ones count as the constant −1 (unknown).
        """
        formulas = {name: v.numpy() for name, v in reference_scales(p).items()}
        rules: dict[str, dict[str, Any]] = {}
        for name in AUXILIARY:
            value = values.get(name)
            if value is None:
                rules[name] = {"kind": "constant", "value": -1.0}
                continue
            rules[name] = _constant(value) or (
                _formula(value, formulas)
                if name == "scale"
                else _table(values["scale"], value) or _density(value, "constant", 1.0)
            )
        return cls(rules)

    def encode(self, p: Tensor, values: Mapping[str, FloatArray]) -> Tensor:
        """Coordinates (events, k) of the learned auxiliaries."""
        formulas = reference_scales(p) if self.learned else {}
        columns = []
        for name in self.learned:
            rule = self.rules[name]
            ratio = torch.as_tensor(values[name]) / (rule["factor"] * formulas[rule["formula"]])
            columns.append(torch.log(ratio.clamp_min(1e-300)))
        return torch.stack(columns, -1) if columns else p.new_zeros((len(p), 0))

    def decode(self, p: Tensor, x: Tensor) -> dict[str, FloatArray]:
        """Event columns from final-state momenta and coordinates (events, k)."""
        formulas = reference_scales(p)
        values: dict[str, FloatArray] = {}
        for name in AUXILIARY:
            rule = self.rules[name]
            if rule["kind"] == "constant":
                values[name] = np.full(len(p), rule["value"])
            elif rule["kind"] == "table":
                knots, inverse = np.asarray(rule["knots"]), np.asarray(rule["inverse"])
                values[name] = 1.0 / _interpolate(np.log(values["scale"]), knots, inverse)
            else:
                value = rule["factor"] * formulas[rule["formula"]]
                if rule["kind"] == "density":
                    value = value * torch.exp(x[:, self.learned.index(name)])
                values[name] = value.numpy()
        return values


def _constant(value: FloatArray) -> dict[str, Any] | None:
    middle = float(np.median(value))
    if np.all(np.abs(value - middle) <= 1e-6 * abs(middle)) or np.any(value <= 0):
        return {"kind": "constant", "value": middle}
    return None


def _density(value: FloatArray, formula: str, factor: float) -> dict[str, Any]:
    return {"kind": "density", "formula": formula, "factor": factor}


def _formula(value: FloatArray, formulas: Mapping[str, FloatArray]) -> dict[str, Any]:
    """The formula closest to the values, exact or as the reference of a density."""
    spreads = {}
    for name, formula in formulas.items():
        ratio = value / formula
        factor = float(np.median(ratio))
        off = np.abs(ratio / factor - 1)
        if np.mean(off > EXACT) < 1e-3:
            return {"kind": "formula", "formula": name, "factor": _tidy(factor)}
        spreads[name] = (float(np.median(off)), factor)
    best = min(spreads, key=lambda name: spreads[name][0])
    return _density(value, best, _tidy(spreads[best][1]))


def _tidy(factor: float) -> float:
    """Simple factors (1/2, 1, 2) instead of their measured value."""
    rounded = round(factor * 4) / 4
    return rounded if rounded > 0 and abs(factor / rounded - 1) < EXACT else factor


def _table(scale: FloatArray, value: FloatArray) -> dict[str, Any] | None:
    """1/value as a function of log(scale), if it is one; 1/alpha is linear at one loop."""
    if np.any(scale <= 0) or np.ptp(scale) < 1e-6 * np.max(scale):
        return None
    order = np.argsort(scale)
    x, y = np.log(scale[order]), 1.0 / value[order]
    wanted = np.linspace(x[0], x[-1], _KNOTS)
    chosen = np.unique(np.clip(np.searchsorted(x, wanted), 0, len(x) - 1))
    chosen = chosen[np.concatenate([[True], np.diff(x[chosen]) > 1e-9])]
    if len(chosen) < 2 or len(x) < 4 * len(chosen):
        return None
    off = np.abs(_interpolate(x, x[chosen], y[chosen]) / y - 1)
    if np.mean(off > EXACT) > 1e-2:
        return None
    return {"kind": "table", "knots": x[chosen].tolist(), "inverse": y[chosen].tolist()}


def _interpolate(x: FloatArray, knots: FloatArray, y: FloatArray) -> FloatArray:
    """Piecewise linear, continued linearly beyond the ends."""
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = (y[i + 1] - y[i]) / (knots[i + 1] - knots[i])
    return np.asarray(y[i] + slope * (x - knots[i]))
